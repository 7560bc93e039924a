"""A rank dies at each step of a sharded save: readers see the old or the new, whole; the others are told in time."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load

from asynchooks.checkpoint import (
    Checkpointer,
    KeepLast,
    Planning,
    capture_shards,
    inspect_folder,
    list_checkpoints,
    plan_shards,
    read_pointer,
    restore,
    restore_latest,
    sweep,
    verify,
)
from asynchooks.testing import Fault, RankOutcome, Ranks
from tests.distributed.sharded_saves import DEADLINE_S, HIT, LAST_NAME, SAVES, Saver, die, state

pytestmark = [
    pytest.mark.ranks,
    pytest.mark.crash,
    pytest.mark.filterwarnings(
        "ignore:torch.distributed is disabled:UserWarning"
    ),  # plain DCP, in one process
]

DATA = f"{LAST_NAME}/__{{rank}}_0.*"
NEXT = f"{LAST_NAME}.manifest.next.json"

Steps = dict[str, Callable[[Saver, int], None]]


def at_call(operation: Any, name: str, *, after_bytes: int = 0) -> Callable[[Saver, int], None]:
    """Kill the victim at a call of the store that it makes itself."""

    def arm(saver: Saver, victim: int) -> None:
        if saver.rank == victim:
            saver.faults.append(Fault(die, operation, name.format(rank=victim), after_bytes=after_bytes))

    return arm


def at_span(kind: str) -> Callable[[Saver, int], None]:
    """Kill the victim when it has done a part of the save."""

    def arm(saver: Saver, victim: int) -> None:
        if saver.rank == victim:
            saver.ends.kind = kind

    return arm


BEFORE: Steps = {
    "before it writes": at_call("put", DATA),
    "while it writes": at_call("put", DATA, after_bytes=1),
    "written, not arrived": at_span("persist"),
}
UNCOMMITTED: Steps = {
    "all arrived": at_call("put", NEXT),
    "announced": at_call("put", f"{LAST_NAME}/.metadata"),
}
COMMITTED: Steps = {
    "metadata written": at_call("put", f"{LAST_NAME}.manifest.json"),
    "manifest written": at_call("delete", NEXT),
    "next manifest deleted": at_call("delete", f"{LAST_NAME}/__0_0.*"),
    "replaced data deleted": at_call("put", "last_checkpoint"),
    "pointed": at_call("delete", f"{SAVES[1]}.manifest.json"),
}
PRUNED: Steps = {
    "pruned, not decided": at_span("prune"),
}
STEPS = {**BEFORE, **UNCOMMITTED, **COMMITTED, **PRUNED}


def saves(rank: int, folder: str, victim: int, step: str) -> list[tuple[str, float]]:
    """Save twice, and once more with a victim; then go on. What the rank is told of the saves, and after how long."""
    saver = Saver(rank, folder)
    for before in range(1, HIT):
        saver.save(before, keep=None)
    STEPS[step](saver, victim)
    told = [saver.told_of(HIT)]
    if told[0][0].startswith("saved"):
        told.append(saver.told_of(HIT + 1))
    saver.meeting.close()
    return told


def outcomes(
    folder: Path, ranks: int, cases: list[tuple[int, str]]
) -> Iterator[tuple[Path, list[RankOutcome]]]:
    """How the ranks end in each case, and where they saved; the cases run at once: what they do is wait."""
    with ExitStack() as stack:
        folders = [folder / str(number) for number in range(len(cases))]
        running = [
            stack.enter_context(Ranks(ranks, saves, str(each), *case))
            for each, case in zip(folders, cases, strict=True)
        ]
        yield from zip(folders, [each.outcomes() for each in running], strict=True)


@pytest.mark.parametrize(("ranks", "victim"), [(2, 0), (3, 1)])
def test_a_rank_dies_before_it_arrives_and_the_old_checkpoint_stays(
    tmp_path: Path, ranks: int, victim: int
) -> None:
    for folder, ends in outcomes(tmp_path, ranks, [(victim, step) for step in BEFORE]):
        assert_told_in_time(ends, victim)
        assert steps_seen(folder) == [1, 2]
        assert_a_later_run_goes_on(folder)


@pytest.mark.parametrize(("points", "expected"), [(UNCOMMITTED, [1, 2]), (COMMITTED, [1, 3]), (PRUNED, [3])])
def test_the_first_rank_dies_in_the_commit_and_readers_see_the_old_or_the_new(
    tmp_path: Path, points: Steps, expected: list[int]
) -> None:
    for folder, ends in outcomes(tmp_path, 2, [(0, step) for step in points]):
        assert_told_in_time(ends, 0)
        assert steps_seen(folder) == expected
        assert_a_later_run_goes_on(folder)


# ---- what holds afterwards ----


def assert_told_in_time(ends: list[RankOutcome], victim: int) -> None:
    for each in ends:
        if each.rank == victim:
            assert each.exit_code == -signal.SIGKILL
            continue
        assert each.error is None
        told, seconds = each.result[-1]
        assert told.startswith(f"RankLostError({victim}): step ")
        assert f"rank {victim} is lost" in told
        assert seconds < 4 * DEADLINE_S


def steps_seen(folder: Path) -> list[int]:
    """What all readers agree on: each checkpoint is whole, and the newest is what a run would resume from."""
    infos = list_checkpoints(folder)
    for info in infos:
        verify(info.url)
        assert_is_state_of(restore(info.url), info.step)
        plain = {
            "state_dict": {name: torch.empty_like(tensor) for name, tensor in state(0)["state_dict"].items()}
        }
        dcp_load(plain, checkpoint_id=info.url, no_dist=True)
        assert_is_state_of(plain, info.step)
    found = restore_latest(folder)
    assert found is not None
    assert found[0] == infos[-1]
    assert_is_state_of(found[1], infos[-1].step)
    return [info.step for info in infos]


def assert_is_state_of(content: dict[str, Any], step: int) -> None:
    expected = state(step)["state_dict"]
    assert content["state_dict"].keys() == expected.keys()
    assert all(torch.equal(content["state_dict"][name], tensor) for name, tensor in expected.items())


def assert_a_later_run_goes_on(folder: Path) -> None:
    """It saves at the same name and beside it, and a sweep leaves what is committed and nothing else."""
    checkpointer = Checkpointer(folder, run_id="run")
    for step, name in ((5, LAST_NAME), (6, "iter_6")):
        snapshot = capture_shards(plan_shards(state(step), Planning()))
        checkpointer.save_sync(snapshot, name=name, step=step, pointer="last", keep=KeepLast(2))
    checkpointer.release_sync()
    sweep(folder, older_than_s=-60)
    assert steps_seen(folder) == [5, 6]
    assert inspect_folder(folder).others == ()
    assert read_pointer(folder) == str(folder / "iter_6")
    names = {LAST_NAME, "iter_6"}
    assert {path.name for path in folder.iterdir() if path.is_dir()} == names
    assert all(len(list((folder / name).iterdir())) == 2 for name in names)
