"""``restore-check``: loads a checkpoint as a run would, and says what is in it and what the resume passes over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from asynchooks._cli.checkpoints._outcome import Outcome
from asynchooks._cli.checkpoints._places import look_at
from asynchooks._cli.checkpoints._reading import reading
from asynchooks._cli.checkpoints._words import count, print_json, print_line, print_table, size
from asynchooks.checkpoint import restore, restore_latest
from asynchooks.errors import CorruptCheckpointError, ForeignCheckpointError

if TYPE_CHECKING:
    from asynchooks._cli.checkpoints._places import Place
    from asynchooks.checkpoint import CheckpointInfo
    from asynchooks.errors import CheckpointError

__all__ = ["check_restore"]


@dataclass(slots=True)
class _Check:
    """What is found out, step by step.

    Attributes:
        name: the checkpoint that was named, or that the resume takes; None when there is none.
        passed_over: newer ones that do not verify, and why.
        content: what was restored.
        problem: why no run could resume from it.
    """

    place: Place
    name: str | None = None
    info: CheckpointInfo | None = None
    passed_over: list[tuple[CheckpointInfo, str]] = field(default_factory=list)
    content: dict[str, Any] | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class _Tensor:
    """One tensor of the content; of tensors that share memory, only the first has bytes."""

    path: tuple[str, ...]
    dtype: str
    shape: tuple[int, ...]
    nbytes: int


def check_restore(url: str, options: Mapping[str, Any], *, keys: bool, as_json: bool) -> Outcome:
    """Choose as the resume does, restore, and print the outcome."""
    check = _Check(look_at(url, options))
    try:
        if check.place.name is None:
            _restore_latest(check)
        else:
            _restore_named(check, check.place.name)
        _check_content(check)
    except (CorruptCheckpointError, ForeignCheckpointError) as error:
        check.problem = str(error)
    tensors = [] if check.content is None else list(_tensors(check.content))
    if as_json:
        print_json(_facts(check, tensors, keys=keys))
    else:
        _print(check, tensors, keys=keys)
    return Outcome.FINE if check.problem is None else Outcome.PROBLEM


def _restore_latest(check: _Check) -> None:
    """Choose and load as the resume does."""
    place = check.place

    def passed_over(info: CheckpointInfo, error: CheckpointError) -> None:
        check.passed_over.append((info, str(error)))

    with reading(f"restoring what a run would resume from in {place.contents.url}", None) as progress:
        found = restore_latest(
            place.folder, passed_over=passed_over, progress=progress, storage_options=place.options
        )
    if found is None:
        check.problem = f"no checkpoint to resume from in {place.contents.url}: a run would start anew."
        return
    check.info, check.content = found
    check.name = check.info.name


def _restore_named(check: _Check, name: str) -> None:
    place = check.place
    check.name, check.info = name, place.checkpoint
    nbytes = None if check.info is None else check.info.nbytes
    with reading(f"restoring {name}", nbytes) as progress:
        check.content = restore(place.url_of(name), progress=progress, storage_options=place.options)


def _check_content(check: _Check) -> None:
    if check.content is not None and "message_hub" in check.content and "optimizer" not in check.content:
        check.problem = (
            f"{check.name} is a Runner's, without the optimizer's state: it cannot be resumed from; "
            "load_from=... takes its weights."
        )


def _tensors(content: Any, path: tuple[str, ...] = (), seen: set[int] | None = None) -> Iterator[_Tensor]:
    seen = set() if seen is None else seen
    if isinstance(content, torch.Tensor):
        yield _Tensor(
            path, str(content.dtype).removeprefix("torch."), tuple(content.shape), _new_bytes(content, seen)
        )
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield from _tensors(value, (*path, str(key)), seen)
    elif isinstance(content, Sequence) and not isinstance(content, (str, bytes)):
        for index, value in enumerate(content):
            yield from _tensors(value, (*path, str(index)), seen)


def _new_bytes(tensor: torch.Tensor, seen: set[int]) -> int:
    if tensor.layout != torch.strided:
        return tensor.element_size() * tensor.numel()
    storage = tensor.untyped_storage()
    if storage.data_ptr() in seen:
        return 0
    seen.add(storage.data_ptr())
    return storage.nbytes()


def _summary(content: Mapping[str, Any], tensors: Sequence[_Tensor]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for key, value in content.items():
        mine = [tensor for tensor in tensors if tensor.path[0] == str(key)]
        rows.append(
            {
                "key": str(key),
                "type": type(value).__name__,
                "tensors": len(mine),
                "bytes": sum(tensor.nbytes for tensor in mine),
                "dtypes": dict(Counter(tensor.dtype for tensor in mine)),
            }
        )
    return rows


def _print(check: _Check, tensors: Sequence[_Tensor], *, keys: bool) -> None:
    for info, error in check.passed_over:
        print_line(f"passed over: {info.name} (step {info.step}): {error}")
    if check.content is not None:
        if keys:
            print_table(
                ("tensor", "dtype", "shape", "size"),
                [
                    (
                        ".".join(tensor.path),
                        tensor.dtype,
                        str(list(tensor.shape)),
                        size(tensor.nbytes) if tensor.nbytes else "",
                    )
                    for tensor in tensors
                ],
                right=("size",),
            )
            print_line("")
        print_table(
            ("key", "type", "tensors", "size", "dtypes"),
            [
                (
                    row["key"],
                    row["type"],
                    str(row["tensors"] or ""),
                    size(row["bytes"]) if row["tensors"] else "",
                    ", ".join(f"{dtype} x{number}" for dtype, number in row["dtypes"].items()),
                )
                for row in _summary(check.content, tensors)
            ],
            right=("tensors", "size"),
        )
        print_line("")
    print_line(_verdict(check, tensors))


def _verdict(check: _Check, tensors: Sequence[_Tensor]) -> str:
    if check.problem is not None:
        return f"A run could not resume: {check.problem}"
    inside = f"{count(len(tensors), 'tensor')}, {size(sum(tensor.nbytes for tensor in tensors))}"
    if check.info is None:
        return f"{check.name} loads, unverified, since it has no manifest: {inside}. It is named to resume from it."
    at = f"step {check.info.step}" + ("" if check.info.epoch is None else f", epoch {check.info.epoch}")
    if check.place.name is not None:
        return f"A run could resume from {check.name} ({at}): {inside}."
    behind = f" It passes over {count(len(check.passed_over), 'newer one')}." if check.passed_over else ""
    return f'resume="auto" takes {check.name} ({at}): {inside}.{behind}'


def _facts(check: _Check, tensors: Sequence[_Tensor], *, keys: bool) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "url": check.place.contents.url,
        "name": check.name,
        "step": None if check.info is None else check.info.step,
        "epoch": None if check.info is None else check.info.epoch,
        "verified": check.info is not None and check.content is not None,
        "resumable": check.problem is None,
        "problem": check.problem,
        "passed_over": [
            {"name": info.name, "step": info.step, "error": error} for info, error in check.passed_over
        ],
        "content": [] if check.content is None else _summary(check.content, tensors),
    }
    if keys:
        facts["tensors"] = [
            {
                "path": list(tensor.path),
                "dtype": tensor.dtype,
                "shape": list(tensor.shape),
                "bytes": tensor.nbytes,
            }
            for tensor in tensors
        ]
    return facts
