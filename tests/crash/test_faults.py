"""Whole runs meet real faults: each outcome is observed, obeys the invariants, and stands in the contract's table."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from asynchooks.checkpoint import CheckpointInfo, list_checkpoints, open_store, sweep
from asynchooks.checkpoint._owner import OWNER_FILE
from asynchooks.testing import FaultyLink, S3Server

from . import disk
from .conftest import Ended, Trainer
from .fault_table import FaultTable, Row
from .faults import FAULTS, FOLDER, HIT, Fault
from .program import running
from .reference import Reference
from .system_calls import compiled, find_compiler
from .trainer import SIZE, state_bytes

pytestmark = pytest.mark.crash

ITERS = 10
SMALL_SIZE = 150  # a checkpoint of 270 kB
WITHIN_S = 40
PLAIN: dict[str, Any] = {"val_dataloader": None}


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainer]:
    """Trainings whose system calls can be made to fail, where there is a C compiler."""
    folder = tmp_path_factory.mktemp("faulty")
    environment = compiled(folder / "system_calls.so") if find_compiler() else {}
    with running("trainer", folder / "errors", environment) as program:
        yield Trainer(program)


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Reference]:
    return {
        size: Reference.of_run(tmp_path_factory.mktemp("reference"), ITERS, size=size, **PLAIN)
        for size in (SMALL_SIZE, SIZE)
    }


@dataclass
class Place:
    """Where a run saves, and the way there that is not faulty."""

    url: str
    options: Mapping[str, str]
    faulty_options: Mapping[str, str]
    mounted: disk.BlockDisk | Path | None = None

    def heal(self, how: str | None) -> None:
        """Put right what the fault has broken."""
        if isinstance(self.mounted, disk.BlockDisk):
            self.mounted.come_back()
        elif how is not None:
            getattr(disk, how)(self.mounted)

    def committed(self) -> list[CheckpointInfo]:
        return list_checkpoints(f"{self.url}/run", storage_options=self.options)

    def files(self) -> set[str]:
        return set(open_store(f"{self.url}/run", self.options).entries())


@contextmanager
def place_for(fault: Fault, folder: Path, request: pytest.FixtureRequest) -> Iterator[Place]:
    with ExitStack() as stack:
        if fault.store == "S3":
            server: S3Server = request.getfixturevalue("s3_server")
            link = stack.enter_context(FaultyLink.to(server.endpoint_url, *fault.link))
            options = {**server.storage_options, "endpoint_url": link.endpoint_url}
            yield Place(f"{server.make_bucket('faults')}/{uuid.uuid4().hex}", server.storage_options, options)
        elif fault.store == "block disk":
            mounted = stack.enter_context(disk.block_disk(folder / "disk", folder / "image"))
            yield Place(str(mounted.folder), {}, {}, mounted)
        else:
            room = stack.enter_context(disk.memory_disk(folder / "disk", 5 * state_bytes(SMALL_SIZE)))
            yield Place(str(room), {}, {}, room)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.s3] * (FAULTS[name].store == "S3")) for name in FAULTS]
)
def test_fault(
    name: str,
    trainer: Trainer,
    references: dict[int, Reference],
    memory_folder: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    fault_table: FaultTable,
) -> None:
    fault = FAULTS[name]
    if fault.needs_calls and find_compiler() is None:
        pytest.skip("there is no C compiler")
    size = SIZE if fault.store == "S3" else SMALL_SIZE
    reference = references[size]
    with place_for(fault, memory_folder, request) as place:
        started = time.monotonic()
        ended = trainer.train(
            tmp_path / "run",
            place.url,
            place.faulty_options,
            ITERS,
            acts=[(at, does, filled(arguments, place.url)) for at, does, arguments in fault.acts],
            size=size,
            checkpoint=saving(on_error=fault.on_error, deadline_s=fault.deadline_s),
            **PLAIN,
        )
        assert time.monotonic() - started < WITHIN_S
        place.heal(fault.heal)
        told = check_told(ended, place, trainer.errors)
        newest = check_committed(place, reference, ended)
        left = place.files() - files_of(place.committed())
        resumed = trainer.train(
            tmp_path / "run", place.url, place.options, ITERS, size=size, checkpoint=saving(), **PLAIN
        )
        check_resumed(resumed, place, reference, newest, trainer.errors)

    row = Row(
        store=fault.store,
        fault=name,
        the_run=told,
        newest_then=f"{newest} of {ITERS}",
        next_start=f"goes on from {newest}" if newest < ITERS else "has nothing to do",
        left_for_sweep=", ".join(sorted(map(kind, left))) or "nothing",
    )
    assert fault_table.rows.setdefault(name, row) == row


def saving(**options: Any) -> dict[str, Any]:
    return {"save_best": None, **options}


def filled(arguments: Mapping[str, Any], folder: str) -> dict[str, Any]:
    return {key: folder if value == FOLDER else value for key, value in arguments.items()}


def check_told(ended: Ended, place: Place, errors: str) -> str:
    """The run ended in time; what went wrong is told with place, step, attempts and what to do. In words."""
    warnings: list[str] = ended.all_of("warned")
    for text in [*warnings, *(error["text"] for error in ended.all_of("error"))]:
        assert re.search(r"CheckpointHook\.after_train_iter failed", text), errors
        assert re.search(r"step \d+: (could not \w+|saving) ", text), text
        assert place.url in text
        assert re.search(r"\d attempts?\)\. [A-Z].*\.|gave up waiting\. Check", text), text
        assert place.options.get("secret", "no secret") not in text
    if ended.status:
        (error,) = ended.all_of("error")
        return f"stops: `{error['kind']}`"
    kinds = sorted({found for text in warnings for found in re.findall(r"Storage\w+Error", text)})
    if warnings:
        return f"goes on, and warns {len(warnings)} time{'s' * (len(warnings) > 1)}: `{', '.join(kinds)}`"
    return "goes on, feels nothing"


def check_committed(place: Place, reference: Reference, ended: Ended) -> int:
    """All that is committed is what an undisturbed run had, and no less than the run was told; the newest step."""
    committed = place.committed()
    for info in committed:
        reference.check(info, place.options)
    newest = max(info.step for info in committed)
    assert newest >= max(ended.all_of("saved"))
    assert newest >= HIT - 2
    return newest


def check_resumed(resumed: Ended, place: Place, reference: Reference, newest: int, errors: str) -> None:
    """The next start goes on from the newest, and ends as an undisturbed run does; nothing else is left."""
    assert resumed.status == 0, errors
    assert resumed.all_of("started") == ([newest] if newest < ITERS else resumed.all_of("started"))
    sweep(f"{place.url}/run", older_than_s=-60, storage_options=place.options)
    committed = place.committed()
    assert [info.step for info in committed] == [ITERS - 2, ITERS]
    for info in committed:
        reference.check(info, place.options)
    assert sorted(place.files()) == reference.files


def files_of(committed: list[CheckpointInfo]) -> set[str]:
    names = {info.name for info in committed}
    return names | {f"{name}.manifest.json" for name in names} | {"last_checkpoint", OWNER_FILE}


def kind(name: str) -> str:
    for ending, words in (
        (".manifest.next.json", "next manifest"),
        (".pth", "data"),
        (".tmp", "temporary file"),
    ):
        if name.endswith(ending):
            return words
    return name


def test_the_table_has_a_row_for_each_fault_and_no_other(fault_table: FaultTable) -> None:
    assert list(fault_table.rows) == list(FAULTS), "run pytest --write-fault-table tests/crash/test_faults.py"
