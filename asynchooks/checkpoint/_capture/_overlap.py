"""Copies that go on while training goes on, and the barrier that ends them before the state changes.

Decides what may be copied later (what the caller names: things that only the optimizer's step changes), when it
has to be copied (before that step), and whether that was kept: the tensors' version counters tell. A copy whose
sources have changed on the way fails its snapshot; nothing torn is ever handed out. Until the barrier, a second
capture of the same things takes what the first has copied.
"""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from asynchooks.checkpoint._capture._lanes import (
    CudaStreams,
    Hold,
    Lane,
    Piece,
    StreamLane,
    ThreadLane,
    copy_at_once,
)
from asynchooks.checkpoint._capture._storages import inner_tensors, is_strided, storage_key
from asynchooks.errors import CaptureError

__all__ = ["NOBODY", "Copies", "Copy", "Overlap", "Plan", "Watch", "before_step", "shared_copies"]

Overlap: TypeAlias = "torch.optim.Optimizer | torch.nn.Module | torch.Tensor"
Key: TypeAlias = object

_SAMPLE_BYTES = 64


class Watch(Protocol):
    """Who wants to know of a copy's waits and of its end: an executor's `ChangeBarrier`, say."""

    def waiting(self) -> AbstractContextManager[None]:
        """Entered around a wait before a step, on the thread that waits."""

    def lift(self) -> None:
        """Told that the sources may change. Any thread."""


class _Nobody:
    def waiting(self) -> AbstractContextManager[None]:
        return nullcontext()

    def lift(self) -> None:
        pass


NOBODY: Watch = _Nobody()


class Witness:
    """Sees whether memory has changed: by the versions of the tensors over it, and by a sample of its bytes.

    A write through ``.data`` or numpy counts no version. It mostly changes all of a tensor, and so the sample: a
    net, not a proof.
    """

    __slots__ = ("_sample", "_source", "_versions")

    def __init__(self, tensors: Iterable[torch.Tensor], source: torch.Tensor) -> None:
        self._versions = [(tensor, tensor._version) for tensor in tensors]  # noqa: SLF001 - torch has no public name
        self._source = source
        self._sample = _sample(source)

    def sees_change(self) -> bool:
        """Whether the memory is known to have changed."""
        if any(tensor._version != version for tensor, version in self._versions):  # noqa: SLF001
            return True
        return _sample(self._source) != self._sample


def _sample(source: torch.Tensor) -> list[bytes]:
    """Three cache lines: the first, one in the middle, the last. Of the CPU's memory alone."""
    if source.device.type != "cpu":
        return []
    start, nbytes = source.data_ptr(), source.nbytes
    size = _SAMPLE_BYTES
    if nbytes <= 2 * size:
        return [ctypes.string_at(start, nbytes)]
    return [ctypes.string_at(start + offset, size) for offset in (0, (nbytes - size) // 2, nbytes - size)]


class Copy:
    """The bytes of one capture that one lane copies.

    Attributes:
        copied: where the copy of a storage is, by what identifies its source. Theirs until the barrier.
    """

    def __init__(
        self,
        copied: Mapping[Key, torch.UntypedStorage],
        witnesses: Mapping[Key, Witness],
        place: Callable[[Key], str],
    ) -> None:
        self.copied = copied
        self._witnesses: Mapping[Key, Witness] = witnesses
        self._place = place
        self._lane: Lane | None = None
        self._lock = threading.Lock()
        self._judged = False
        self._torn: str | None = None

    def start(self, lane: Lane) -> None:
        """Take note of who copies."""
        self._lane = lane

    def judge(self) -> None:
        """See whether any source has changed; the first time counts. Called when all is copied, or at the barrier."""
        with self._lock:
            if self._judged:
                return
            self._judged = True
            for key, witness in self._witnesses.items():
                if witness.sees_change():
                    self._torn = self._place(key)
                    return

    def order(self) -> None:
        """The barrier: what the caller does next comes after the copy. Any thread."""
        if self._lane is not None:
            self._lane.order()
        self.judge()
        self._witnesses = {}
        self.copied = {}

    def wait(self) -> None:
        """Block until the bytes are there.

        Raises:
            CaptureError: they are not those of the capture.
        """
        if self._lane is not None:
            self._lane.wait()
        self.judge()
        if self._torn is not None:
            raise CaptureError(
                f"{self._torn} was changed while it was still being copied, so this snapshot is of no one instant. "
                f"Call asynchooks.checkpoint.before_step() before whatever changes it, or capture without overlap."
            )

    def unchanged(self, key: Key) -> torch.UntypedStorage | None:
        """The copy of a storage that is still as it was; None otherwise."""
        copied, witness = self.copied.get(key), self._witnesses.get(key)
        if copied is None or witness is None or self._torn is not None or witness.sees_change():
            return None
        return copied


class Copies:
    """The copies since the last step.

    Attributes:
        hold: holds copies on the CPU back, for tests.
    """

    def __init__(self) -> None:
        self.hold: Hold | None = None
        self._lock = threading.Lock()
        self._open: list[tuple[weakref.ref[Copy], Watch]] = []
        self._is_hooked = False

    def add(self, copies: Iterable[Copy], watch: Watch) -> None:
        """Wait for these copies before the next step. The watch is told at once where there are none."""
        added = [(weakref.ref(copy), watch) for copy in copies]
        with self._lock:
            if added and not self._is_hooked:
                self._is_hooked = True
                register_optimizer_step_pre_hook(_before_optimizer_step)
            forgotten = [entry for entry in self._open if entry[0]() is None]
            self._open = [entry for entry in self._open if entry not in forgotten] + added
        for _, its_watch in forgotten:
            its_watch.lift()
        if not added:
            watch.lift()

    def before_step(self) -> None:
        """See `before_step`."""
        if not self._open:
            return
        with self._lock:
            passed = list(self._open)
        for reference, watch in passed:
            copy = reference()
            if copy is not None:
                with watch.waiting():
                    copy.order()
            watch.lift()
        with self._lock:
            self._open = [entry for entry in self._open if entry not in passed]

    def taken(self, keys: Iterable[Key]) -> tuple[dict[Key, torch.UntypedStorage], list[Copy]]:
        """What earlier captures have copied of these storages since the last step, and the copies to wait for."""
        with self._lock:
            copies = [copy for reference, _ in self._open if (copy := reference()) is not None]
        found: dict[Key, torch.UntypedStorage] = {}
        used: list[Copy] = []
        for key in keys if copies else ():
            for copy in copies:
                copied = copy.unchanged(key)
                if copied is not None:
                    found[key] = copied
                    if copy not in used:
                        used.append(copy)
                    break
        return found, used

    @property
    def is_idle(self) -> bool:
        """Whether no copy is waited for before the next step."""
        return not self._open

    def forget(self) -> None:
        """Called in a forked child, where nothing copies and nobody may change the parent's memory."""
        self._lock = threading.Lock()
        self._open = []


_SHARED = Copies()
os.register_at_fork(after_in_child=_SHARED.forget)


def shared_copies() -> Copies:
    """The copies of this process."""
    return _SHARED


def before_step() -> None:
    """Wait until no overlapped capture reads the training state any more: the optimizer may step then.

    Call it before anything but a `torch.optim.Optimizer` changes what `capture` was told to overlap with
    training; those call it by themselves. Idempotent, on any thread. Where nothing is pending it costs some
    80 ns. On CUDA it makes the current stream wait, and returns at once.
    """
    _SHARED.before_step()


def _before_optimizer_step(*_: Any) -> None:
    _SHARED.before_step()


@dataclass(frozen=True, slots=True)
class Plan:
    """Which of a state's storages are copied now, later, or not at all since they were.

    Attributes:
        taken: copies that an earlier capture has made since the last step.
    """

    taken: Mapping[Key, torch.UntypedStorage]
    _later: Mapping[Key, list[torch.Tensor]]
    _used: list[Copy]
    _copies: Copies

    @classmethod
    def of(
        cls, found: Mapping[Key, list[torch.Tensor]], overlap: Overlap | Iterable[Overlap], copies: Copies
    ) -> Plan:
        """Return the plan for a state, given the tensors over each of its storages.

        Raises:
            TypeError: `overlap` holds something that is no optimizer, module or tensor.
        """
        later: dict[Key, list[torch.Tensor]] = {}
        named, buffers = _named(overlap)
        for tensor in named:
            for key in _keys(tensor):
                if key in found:
                    later.setdefault(key, [*found[key]]).append(tensor)
        for buffer in buffers:  # one that shares a parameter's memory changes it
            for key in _keys(buffer):
                later.pop(key, None)
        # without a version nobody would know of a change
        later = {key: over for key, over in later.items() if not any(map(torch.is_inference, over))}
        taken, used = copies.taken(later)
        return cls(taken, {key: over for key, over in later.items() if key not in taken}, used, copies)

    def start(
        self, pieces: Mapping[Key, Piece], place: Callable[[Key], str], pin: Callable[[], bool], watch: Watch
    ) -> list[Copy]:
        """Copy what is due now, start the rest, and return what a snapshot has to wait for.

        Args:
            pieces: all that is to be copied.
            place: where a storage stands in the state.
            pin: registers the targets' memory with CUDA, where that is possible.
            watch: is told of the rest.
        """
        now = [piece for key, piece in pieces.items() if key not in self._later]
        later = {key: piece for key, piece in pieces.items() if key in self._later}
        started: list[Copy] = []
        on_cuda = {piece.source.device for piece in pieces.values() if piece.source.device.type == "cuda"}
        for device in on_cuda if on_cuda and pin() else ():
            mine = {key: later.pop(key) for key in [*later] if later[key].source.device == device}
            lane = StreamLane(
                CudaStreams(device),
                [piece for piece in now if piece.source.device == device],
                list(mine.values()),
            )
            now = [piece for piece in now if piece.source.device != device]
            started.append(self._copy(mine, place))
            started[-1].start(lane)
        in_thread = {key: later.pop(key) for key in [*later] if later[key].source.device.type == "cpu"}
        copy_at_once([*now, *later.values()])
        if in_thread:
            started.append(self._copy(in_thread, place))
            started[-1].start(ThreadLane([*in_thread.values()], started[-1].judge, self._copies.hold))
        overlapped = [copy for copy in started if copy.copied]
        self._copies.add(overlapped, watch)
        return [*self._used, *started]

    def _copy(self, pieces: Mapping[Key, Piece], place: Callable[[Key], str]) -> Copy:
        copied = {key: piece.target.untyped_storage() for key, piece in pieces.items()}
        witnesses = {key: Witness(self._later[key], piece.source) for key, piece in pieces.items()}
        return Copy(copied, witnesses, place)


def _named(overlap: Overlap | Iterable[Overlap]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """The tensors that `overlap` names, and those among a module's that it does not: its buffers."""
    single = isinstance(overlap, (torch.optim.Optimizer, torch.nn.Module, torch.Tensor))
    named: list[torch.Tensor] = []
    buffers: list[torch.Tensor] = []
    for each in [overlap] if single else overlap:  # type: ignore[union-attr]
        if isinstance(each, torch.optim.Optimizer):
            named.extend(p for group in each.param_groups for p in group["params"])
            named.extend(_tensors_in(each.state.values()))
        elif isinstance(each, torch.nn.Module):
            named.extend(each.parameters())
            buffers.extend(each.buffers())
        elif isinstance(each, torch.Tensor):
            named.append(each)
        else:
            raise TypeError(
                f"capture(overlap=...) takes optimizers, modules and tensors, not {each!r}: what nothing but the "
                f"optimizer's step changes."
            )
    return named, buffers


def _keys(tensor: torch.Tensor) -> Iterable[Key]:
    for part in inner_tensors(tensor):
        if part.device.type != "meta" and is_strided(part):
            yield storage_key(part.untyped_storage())


def _tensors_in(values: Iterable[Any]) -> Iterable[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, Mapping):
            yield from _tensors_in(value.values())
        elif isinstance(value, (list, tuple)):
            yield from _tensors_in(value)
