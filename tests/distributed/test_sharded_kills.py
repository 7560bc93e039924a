"""A rank dies at each step of a sharded save: readers see the old or the new, whole; the others are told in time."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from asynchooks.testing import Fault, RankOutcome, Ranks
from tests.distributed.sharded_folder import assert_a_later_run_goes_on, steps_seen
from tests.distributed.sharded_saves import DEADLINE_S, HIT, LAST_NAME, SAVES, Saver, die

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


def saves(
    rank: int, folder: str, victim: int, step: str, first_has_store: bool = False
) -> list[tuple[str, float]]:
    """Save twice, and once more with a victim; then go on. What the rank is told of the saves, and after how long."""
    saver = Saver(rank, folder, first_has_store=first_has_store)
    for before in range(1, HIT):
        saver.save(before, keep=None)
    STEPS[step](saver, victim)
    told = [saver.told_of(HIT)]
    if told[0][0].startswith("saved"):
        told.append(saver.told_of(HIT + 1))
    saver.meeting.close()
    return told


def outcomes(
    folder: Path, ranks: int, cases: list[tuple[Any, ...]]
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


@pytest.mark.parametrize("points", [COMMITTED, {**UNCOMMITTED, **PRUNED}], ids=["committed", "before, after"])
def test_the_first_rank_dies_in_the_commit_and_readers_see_the_old_or_the_new(
    tmp_path: Path, points: Steps
) -> None:
    came = outcomes(tmp_path, 2, [(0, step) for step in points])
    for (folder, ends), step in zip(came, points, strict=True):
        assert_told_in_time(ends, 0)
        assert steps_seen(folder) == ([1, 2] if step in UNCOMMITTED else [3] if step in PRUNED else [1, 3])
        assert_a_later_run_goes_on(folder)


def test_the_first_rank_dies_and_the_store_where_they_meet_with_it(tmp_path: Path) -> None:
    cases = {"while it writes": [1, 2], "all arrived": [1, 2], "metadata written": [1, 3]}
    came = outcomes(tmp_path, 2, [(0, step, True) for step in cases])
    for (folder, ends), expected in zip(came, cases.values(), strict=True):
        assert_told_in_time(ends, 0, why="the store through which the ranks meet is gone")
        assert steps_seen(folder) == expected
        assert_a_later_run_goes_on(folder)


def assert_told_in_time(ends: list[RankOutcome], victim: int, why: str = "no sign of life") -> None:
    for each in ends:
        if each.rank == victim:
            assert each.exit_code == -signal.SIGKILL
            continue
        assert each.error is None
        told, seconds = each.result[-1]
        assert told.startswith(f"RankLostError({victim}): step ")
        assert why in told
        assert seconds < 4 * DEADLINE_S
