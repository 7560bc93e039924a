"""A consistent copy of a nested state, taken at one instant on the training thread.

Decides what is copied and how: every storage once, into staging memory, views and tied tensors rebuilt over the
copy, containers rebuilt, and whatever only pickle understands through pickle. When the bytes are copied, and by
whom, is the overlap's and the lanes' matter. Knows no store and no hook.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TypeAlias, cast

import numpy as np
import torch

from asynchooks.checkpoint._capture._image import Image, prepare
from asynchooks.checkpoint._capture._lanes import Piece
from asynchooks.checkpoint._capture._overlap import NOBODY, Copy, Overlap, Plan, Watch, shared_copies
from asynchooks.checkpoint._capture._pickled import copy_by_pickle
from asynchooks.checkpoint._capture._staging import Staging, shared_staging
from asynchooks.checkpoint._capture._storages import (
    PLAIN_TENSORS,
    is_strided,
    is_wrapper,
    parts_of,
    storage_key,
    survey,
    unstrided_nbytes,
)
from asynchooks.errors import CaptureError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from asynchooks.checkpoint._manifest import Layout

__all__ = ["Snapshot", "capture", "prepare_capture", "state_nbytes"]

_ATOMS: frozenset[type] = frozenset(
    {int, float, bool, str, complex, type(None), torch.Size, torch.dtype, torch.device, torch.layout}
)
_WEIGHTS_ONLY_CONTAINERS: frozenset[type] = frozenset(
    {dict, OrderedDict, Counter, list, tuple, set, bytearray}
)

_Path: TypeAlias = "tuple[_Path, object] | None"  # keys, innermost last, rendered only for an error


class _Attribute(str):
    """A part of a path that is no key but an attribute's name."""

    __slots__ = ()


class Snapshot:
    """A state at one instant. Nothing in it is shared with the training; it may be saved any number of times.

    Some of its bytes may still be on their way (see `capture`): `wait` and `state` wait for them. Its memory goes
    back to the staging memory when neither it nor anything taken from its state is alive.

    Attributes:
        kind: the type of the state.
        nbytes: bytes of tensor and array data in it.
        unsafe: places of what ``torch.load(weights_only=True)`` will refuse, such as ``state['cfg']: Path``.
    """

    layout: ClassVar[Layout] = "single"
    __slots__ = ("_copies", "_state", "image", "kind", "nbytes", "unsafe")

    def __init__(
        self,
        state: Any,
        nbytes: int,
        unsafe: tuple[str, ...],
        image: Image,
        copies: Sequence[Copy] = (),
    ) -> None:
        self._state = state
        self._copies = copies
        self.kind = type(state)
        self.nbytes = nbytes
        self.unsafe = unsafe
        self.image = image

    def wait(self) -> None:
        """Block until all bytes are there. Any thread.

        Raises:
            CaptureError: something changed while it was still being copied; the message says what, and what to do.
        """
        for copy in self._copies:
            copy.wait()

    @property
    def outline(self) -> Any:
        """The state at once: its structure is whole, the bytes of its tensors may still be on their way."""
        return self._state

    @property
    def state(self) -> Any:
        """The same nested structure, its tensors on the CPU; waits, as `wait` does."""
        self.wait()
        return self._state

    def without(self, *keys: str) -> Snapshot:
        """Return a snapshot of the same instant that lacks some top-level keys of a dict; copies nothing."""
        state = {key: value for key, value in self._state.items() if key not in keys}
        unsafe = tuple(
            place for place in self.unsafe if not place.startswith(tuple(f"state[{key!r}]" for key in keys))
        )
        return Snapshot(state, state_nbytes(state), unsafe, self.image, self._copies)


def capture(
    state: Any,
    *,
    overlap: Overlap | Iterable[Overlap] = (),
    watch: Watch = NOBODY,
    staging: Staging | None = None,
) -> Snapshot:
    """Copy a nested state. Called on the training thread; blocks for the copy, but for what overlaps.

    What `overlap` names is copied while training goes on, until `before_step`, which every torch optimizer calls
    before it steps. All else is copied when this returns (on CUDA: before what the current stream does next). A
    second capture before that step takes what the first has copied of it.

    Tensors that share storage share it in the copy, so views and tied weights come back tied. Tensors on a
    device are copied to the CPU. Objects that are neither tensors nor plain containers are copied by pickling
    them. The first capture makes the memory that it needs; later ones use it again, which is many times faster.

    Args:
        state: tensors, arrays and Python objects in any containers.
        overlap: what nothing changes but the optimizer's step: optimizers (their parameters and the tensors of
            their state), modules (their parameters, never their buffers), tensors. By default nothing.
        watch: is told of waits for the overlapped copy, and when there is nothing to wait for any more.
        staging: where the memory comes from; one pool for the whole process by default.

    Raises:
        CaptureError: names the place in the state that cannot be captured, and why; or there is no memory.
        TypeError: `overlap` holds something else.
    """
    try:
        return _capture(state, overlap, watch, staging or shared_staging())
    except BaseException:
        watch.lift()
        raise


def _capture(state: Any, overlap: Overlap | Iterable[Overlap], watch: Watch, staging: Staging) -> Snapshot:
    found = survey(state)
    plan = Plan.of(found.tensors, overlap, shared_copies())
    fresh = {key: storage for key, storage in found.storages.items() if key not in plan.taken}
    image = Image.of([storage.nbytes() for storage in fresh.values()], staging)
    slots = {key: slot.storage for key, slot in zip(fresh, image.slots, strict=True)}
    copying = _Copying({**slots, **plan.taken}, plan.taken)
    try:
        with torch.no_grad():
            copied = copying.copy(state, None)
    except RecursionError as error:
        raise CaptureError(
            "the state is nested too deeply to be captured (Python's recursion limit)."
        ) from error
    copies = plan.start(
        copying.pieces, partial(_place, copying.paths), partial(staging.pin, image.memory), watch
    )
    return Snapshot(copied, copying.nbytes, tuple(copying.unsafe), image, copies)


def prepare_capture(state: Any, *, staging: Staging | None = None) -> Callable[[], None] | None:
    """Size up a state, so that its first capture finds warm memory as later ones do. Training thread; copies nothing.

    Returns a function that makes the memory: on any thread, without the GIL, in a tenth of a second per GB and
    more. None where the state is so small that there is nothing to prepare.
    """
    sizes = [storage.nbytes() for storage in survey(state).storages.values()]
    return prepare(sizes, staging or shared_staging())


def state_nbytes(state: Any, *, overlap: Overlap | Iterable[Overlap] = ()) -> int:
    """Bytes that `capture` will copy: every storage and array once. Cheap, copies nothing.

    What an earlier capture has copied of `overlap`, and this one would take, is not counted; nor what hides
    inside an object that only pickle can take apart.
    """
    found = survey(state)
    taken = Plan.of(found.tensors, overlap, shared_copies()).taken
    return found.other_nbytes + sum(s.nbytes() for key, s in found.storages.items() if key not in taken)


class _Copying:
    """One walk over a state. What was met is kept alive, so that no address is met twice by chance.

    Args:
        targets: where the copies of storages are, by what identifies the source.
        taken: which of them are copied already.

    Attributes:
        pieces: what is to be copied after the walk, which makes everything that holds the bytes.
        paths: where each storage stands in the state.
    """

    def __init__(self, targets: Mapping[object, torch.UntypedStorage], taken: Collection[object]) -> None:
        self.nbytes = 0
        self.unsafe: list[str] = []
        self.pieces: dict[object, Piece] = {}
        self._targets = targets
        self._taken = taken
        self.paths: dict[object, _Path] = {}
        self._copies: dict[int, tuple[Any, Any]] = {}
        self._storages: dict[object, tuple[torch.UntypedStorage, torch.dtype]] = {}

    def copy(self, value: Any, path: _Path) -> Any:
        kind = type(value)
        if kind in _ATOMS:
            return value
        known = self._copies.get(id(value))
        if known is not None:
            return known[1]
        copied = self._copy_new(value, kind, path)
        self._copies[id(value)] = (value, copied)
        return copied

    def _copy_new(self, value: Any, kind: type, path: _Path) -> Any:  # noqa: C901, PLR0911 - one line per kind
        if isinstance(value, torch.Tensor):
            return self._copy_tensor(value, path)
        if kind in (dict, OrderedDict, Counter, defaultdict):
            return self._copy_dict(value, path)
        if kind is list:
            copied: list[Any] = []
            self._copies[id(value)] = (value, copied)  # before the items: a list may hold itself
            copied.extend(self._copy_items(value, path))
            return copied
        if kind is tuple or (isinstance(value, tuple) and hasattr(kind, "_make")):
            self._note_unsafe(kind, path)
            items = self._copy_items(value, path)
            return tuple(items) if kind is tuple else kind._make(items)
        if kind in (set, frozenset):
            self._note_unsafe(kind, path)
            return kind(self._copy_items(value, path))
        if kind is bytes:
            if not value:
                self._note_unsafe(kind, path)  # protocol 2 pickles b"" as a call of `bytes`
            return value
        if kind is bytearray:
            return bytearray(value)
        if kind is np.ndarray and not value.dtype.hasobject:
            self._note_unsafe(kind, path)
            self.nbytes += value.nbytes
            return value.copy(order="K")
        if isinstance(value, (torch.UntypedStorage, torch.TypedStorage)):
            return self._copy_storage_object(value, path)
        return self._copy_by_pickle(value, path)

    def _copy_items(self, values: Iterable[Any], path: _Path) -> list[Any]:
        return [
            value if type(value) in _ATOMS else self.copy(value, (path, index))
            for index, value in enumerate(values)
        ]

    def _copy_dict(self, value: Any, path: _Path) -> Any:
        kind = type(value)
        self._note_unsafe(kind, path)
        copied = defaultdict(value.default_factory) if kind is defaultdict else kind()
        self._copies[id(value)] = (value, copied)
        for key, item in value.items():
            place = (path, key)
            copied[key if type(key) in _ATOMS else self.copy(key, place)] = (
                item if type(item) in _ATOMS else self.copy(item, place)
            )
        if kind is OrderedDict and value.__dict__:  # a module's state_dict carries `_metadata` there
            copied.__dict__.update(self.copy(value.__dict__, path))
        return copied

    def _copy_tensor(self, value: torch.Tensor, path: _Path) -> torch.Tensor:
        if value.device.type == "meta":
            _refuse(path, "a meta tensor, which has no data; materialize the module before training")
        try:
            copied = self._copy_data(value, path)
        except (RuntimeError, NotImplementedError) as error:
            _refuse(path, f"a {type(value).__name__} that torch cannot copy ({error})", error)
        kind = type(value)
        if kind is torch.Tensor:
            pass
        elif isinstance(value, torch.nn.Parameter):
            copied = torch.nn.Parameter(copied, requires_grad=value.requires_grad)
        elif not is_wrapper(value):
            copied = copied.as_subclass(kind)
        if kind not in PLAIN_TENSORS:
            self._note_unsafe(kind, path)
        if value.__dict__ and not is_wrapper(value):
            copied.__dict__.update(self.copy(value.__dict__, path))
        if value.requires_grad and not copied.requires_grad:
            copied.requires_grad_(True)
        return copied

    def _copy_data(self, value: torch.Tensor, path: _Path) -> torch.Tensor:
        if is_wrapper(value):
            tensors, others, context = parts_of(value)
            inner = {name: self.copy(part, (path, _Attribute(name))) for name, part in tensors.items()}
            rebuild = cast("Any", type(value)).__tensor_unflatten__
            return cast("torch.Tensor", rebuild({**inner, **others}, context, value.size(), value.stride()))
        if not is_strided(value):
            self.nbytes += unstrided_nbytes(value)
            return value.detach().clone().cpu()
        source = value.untyped_storage()
        storage, new = self._copy_storage(source, value.dtype, path)
        if value.numel() and not storage.nbytes():
            _refuse(path, "a tensor whose storage was freed; gather the parameters first")
        copied = torch.empty(0, dtype=value.dtype).set_(
            storage, value.storage_offset(), value.size(), value.stride()
        )
        is_all = value.nbytes == storage.nbytes() and value.is_contiguous()
        if (
            new is not None
            and is_all
            and type(value) in PLAIN_TENSORS
            and not value.is_conj()
            and not value.is_neg()
        ):
            # detached: `.data = other` on the tensor itself must not turn a later copy to other memory
            self._will_copy(new, copied, value.detach())
        elif new is not None:
            self._will_copy(new, _bytes_of(storage), _bytes_of(source))
        if value.is_conj():
            copied = copied.conj()
        return torch._neg_view(copied) if value.is_neg() else copied  # noqa: SLF001 - torch has no public way

    def _will_copy(self, key: object, target: torch.Tensor, source: torch.Tensor) -> None:
        if target.nbytes:
            self.pieces[key] = Piece(target, source)

    def _copy_storage(
        self, storage: torch.UntypedStorage, dtype: torch.dtype, path: _Path
    ) -> tuple[torch.UntypedStorage, object | None]:
        """The copy of a storage, and the storage's key if its bytes are still to be copied."""
        key = storage_key(storage)
        known = self._storages.get(key)
        if known is not None:
            if known[1] != dtype:
                _refuse(
                    path,
                    f"memory that the state also holds as {known[1]}; torch.save takes one dtype: clone it",
                )
            return known[0], None
        copied = self._targets.get(key)
        if copied is None:
            copied = torch.UntypedStorage(storage.nbytes())  # type: ignore[no-untyped-call]
        self.nbytes += storage.nbytes()
        self._storages[key] = (copied, dtype)
        self.paths[key] = path
        return copied, None if key in self._taken else key

    def _copy_storage_object(self, value: torch.UntypedStorage | torch.TypedStorage, path: _Path) -> Any:
        source, dtype = (
            (value._untyped_storage, value.dtype)  # noqa: SLF001 - `untyped()` warns
            if isinstance(value, torch.TypedStorage)
            else (value, torch.uint8)
        )
        copied, new = self._copy_storage(source, dtype, path)
        if new is not None:
            self._will_copy(new, _bytes_of(copied), _bytes_of(source))
        if isinstance(value, torch.UntypedStorage):
            return copied
        return torch.TypedStorage(wrap_storage=copied, dtype=dtype, _internal=True)  # type: ignore[no-untyped-call]

    def _copy_by_pickle(self, value: Any, path: _Path) -> Any:
        self._note_unsafe(type(value), path)
        try:
            return copy_by_pickle(value, partial(self.copy, path=path))
        except (CaptureError, RecursionError):
            raise
        except Exception as error:  # noqa: BLE001 - it runs the object's own code, which raises what it likes
            _refuse(path, f"a {type(value).__qualname__} that pickle cannot take ({error})", error)

    def _note_unsafe(self, kind: type, path: _Path) -> None:
        if kind in _WEIGHTS_ONLY_CONTAINERS or kind in torch.serialization.get_safe_globals():
            return
        if len(self.unsafe) < 8:
            self.unsafe.append(f"{_render(path)}: {kind.__qualname__}")


def _bytes_of(storage: torch.UntypedStorage) -> torch.Tensor:
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)


def _refuse(path: _Path, what: str, cause: BaseException | None = None) -> NoReturn:
    raise CaptureError(f"cannot capture {_render(path)}: {what}.") from cause


def _place(paths: Mapping[object, _Path], key: object) -> str:
    return _render(paths.get(key))


def _render(path: _Path) -> str:
    parts: list[str] = []
    while path is not None:
        path, part = path
        parts.append(f".{part}" if isinstance(part, _Attribute) else f"[{part!r}]")
    return "state" + "".join(reversed(parts))
