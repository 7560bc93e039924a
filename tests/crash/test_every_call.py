"""Real disks fail at every single system call of a save: once, from then on, or by a loss of power."""

from __future__ import annotations

import errno
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .disk import BlockDisk, block_disk
from .folder import Folder
from .program import Program, running
from .saver import FAILED, SCENARIOS, Scenario
from .system_calls import FOR_EVER, POWER_CUT, compiled, plain

pytestmark = pytest.mark.crash

ROWS = 1000
ROWS_PAST_THE_CACHE = 1_200_000  # a file of this size is written with O_DIRECT


@pytest.fixture(scope="module")
def saver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """Savers whose system calls can be made to fail."""
    folder = tmp_path_factory.mktemp("saver")
    with running("saver", folder / "errors", compiled(folder / "system_calls.so")) as program:
        yield program


@dataclass(frozen=True)
class Outcome:
    """What one save came to."""

    folder: Folder
    status: int
    calls: list[str]
    error: str


def save_with(
    saver: Program,
    parent: Path,
    name: str,
    skips: Iterable[int],
    action: int,
    times: int,
    rows: int = ROWS,
) -> list[Outcome]:
    """Save into fresh folders, at once; in each, from the call of number `skip` on, `times` calls fail."""
    folders = {skip: Folder(str(parent / uuid.uuid4().hex)) for skip in skips}
    orders = [
        {
            "scenario": name,
            "url": folder.url,
            "options": {},
            "rows": rows,
            "calls": {"skip": skip, "action": action, "times": times},
        }
        for skip, folder in folders.items()
    ]
    return [
        outcome_of(folder, answer) for folder, answer in zip(folders.values(), saver.ask(orders), strict=True)
    ]


def outcome_of(folder: Folder, answer: Mapping[str, Any]) -> Outcome:
    told = answer["points"]
    error = next((each.removeprefix(FAILED) for each in told if each.startswith(FAILED)), "")
    calls = [plain(each, folder.url) for each in told if not each.startswith(FAILED)]
    return Outcome(folder, answer["status"], calls, error)


def calls_of(saver: Program, parent: Path, name: str, rows: int = ROWS) -> list[str]:
    """The calls of a save that is left in peace."""
    (outcome,) = save_with(saver, parent, name, [10**6], action=0, times=0, rows=rows)
    assert outcome.status == 0, saver.errors
    return outcome.calls


def steps(scenario: Scenario, *, is_committed: bool) -> set[int | None]:
    """What may be the newest checkpoint."""
    before = scenario.before[-1].step if scenario.before else None
    return {scenario.saved.step} if is_committed else {before, scenario.saved.step}


SCENARIO_NAMES = ["new", "replace", "prune"]


@pytest.mark.parametrize("name", SCENARIO_NAMES)
def test_an_io_error_of_one_call_is_not_felt(saver: Program, memory_folder: Path, name: str) -> None:
    scenario = SCENARIOS[name].with_rows(ROWS)
    calls = calls_of(saver, memory_folder, name)
    outcomes = save_with(saver, memory_folder, name, range(len(calls)), errno.EIO, times=1)

    for call, outcome in zip(calls, outcomes, strict=True):
        assert outcome.status == 0, f"{call}: {outcome.error}{saver.errors}"
        assert outcome.calls != calls, f"{call}: it was tried again"
        outcome.folder.check(scenario, steps(scenario, is_committed=True))
        outcome.folder.go_on(scenario, steps(scenario, is_committed=True))


@pytest.mark.parametrize("name", SCENARIO_NAMES)
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS], ids=["full", "read-only"])
def test_a_disk_that_fails_from_one_call_on_is_an_error_and_keeps_what_is_there(
    saver: Program, memory_folder: Path, name: str, error: int
) -> None:
    scenario = SCENARIOS[name].with_rows(ROWS)
    calls = calls_of(saver, memory_folder, name)
    outcomes = save_with(saver, memory_folder, name, range(len(calls)), error, times=FOR_EVER)

    for call, outcome in zip(calls, outcomes, strict=True):
        assert outcome.status == 3, f"{call}: {saver.errors}"
        assert re.match(
            r"Storage(Full|Denied)Error: (step 20: |(?=could not claim))could not \w+ /.*1 attempt",
            outcome.error,
        )
        assert os.strerror(error) in outcome.error
        is_committed = "is committed" in outcome.error
        outcome.folder.check(scenario, steps(scenario, is_committed=is_committed))
        outcome.folder.go_on(scenario, steps(scenario, is_committed=is_committed))


@pytest.fixture
def disk(memory_folder: Path) -> Iterator[BlockDisk]:
    """A disk whose power can be cut again and again."""
    with block_disk(memory_folder / "mounted", memory_folder / "image") as disk:
        yield disk


@pytest.mark.parametrize(("name", "rows"), [("new", ROWS), ("replace", ROWS_PAST_THE_CACHE), ("prune", ROWS)])
def test_a_loss_of_power_at_any_call_keeps_what_is_committed(
    saver: Program, disk: BlockDisk, name: str, rows: int
) -> None:
    scenario = SCENARIOS[name].with_rows(rows)
    calls = calls_of(saver, disk.folder, name, rows)
    manifest_is_durable = calls.index(f"rename {scenario.saved.name}.manifest.json") + 3
    for number in range(len(calls) + 1):
        (outcome,) = save_with(saver, disk.folder, name, [number], POWER_CUT, times=1, rows=rows)
        if number == len(calls):
            assert outcome.status == 0
            disk.cut_power()
        disk.come_back()

        assert outcome.calls == calls[: number + 1]
        newest = steps(scenario, is_committed=number >= manifest_is_durable)
        outcome.folder.check(scenario, newest)
        outcome.folder.go_on(scenario, newest)
        shutil.rmtree(outcome.folder.url)
