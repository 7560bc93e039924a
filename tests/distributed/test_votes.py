"""Votes: flags that any rank may raise, heard by all at the same vote."""

import time
from pathlib import Path

import pytest

from asynchooks.distributed import (
    Votes,
    any_rank,
    broadcast_object,
    control_group,
    gather_objects,
    tried_by_all,
)
from asynchooks.errors import DistributedError, RankFailedError
from asynchooks.testing import Ranks, run_ranks

pytestmark = pytest.mark.ranks


def votes_of(rank: int) -> list[int]:
    votes = Votes(control_group())
    heard = [votes.cast(1 << rank if step == 2 else 0) for step in range(5)]
    return [*heard, votes.settle()]


def talks(rank: int) -> tuple[object, ...]:
    return broadcast_object(f"of {rank}"), gather_objects(rank), any_rank(rank == 1), any_rank(False)


def tries(rank: int) -> str:
    def attempt() -> int:
        if rank == 1:
            raise ValueError("no such file")
        return rank

    try:
        tried_by_all("read it", attempt)
    except (ValueError, RankFailedError) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def cost_of(rank: int) -> float:
    votes = Votes(control_group())
    costs = []
    for _ in range(200):
        start_s = time.perf_counter()
        votes.cast(0)
        costs.append(time.perf_counter() - start_s)
        time.sleep(0.001)  # the step
    votes.settle()
    return sorted(costs)[100]


def votes_without_one(rank: int, folder: str) -> str:
    votes = Votes(control_group())
    votes.cast(0)
    votes.cast(0)
    if rank == 1:
        Path(folder, "voted").touch()
        time.sleep(60)  # until it is killed
    try:
        for _ in range(3):
            votes.cast(0)
    except DistributedError as error:
        return str(error)
    return "nothing"


def test_all_hear_at_the_next_vote_what_any_rank_raised() -> None:
    assert run_ranks(3, votes_of) == [[0, 0, 0, 0b111, 0, 0]] * 3


def test_a_process_alone_agrees_with_itself_at_once() -> None:
    votes = Votes(None)

    assert (votes.cast(5), votes.settle()) == (5, 0)


def test_small_objects_reach_every_rank() -> None:
    assert run_ranks(2, talks) == [("of 0", [0, 1], True, False)] * 2


def test_what_one_rank_cannot_do_is_an_error_on_all() -> None:
    assert run_ranks(2, tries) == [
        "RankFailedError: rank 1 could not read it: ValueError: no such file",
        "ValueError: no such file",
    ]


@pytest.mark.crash
def test_a_rank_that_died_fails_the_vote_of_the_others(tmp_path: Path) -> None:
    with Ranks(2, votes_without_one, str(tmp_path)) as ranks:
        deadline_s = time.monotonic() + 20
        while not (tmp_path / "voted").exists() and time.monotonic() < deadline_s:
            time.sleep(0.01)  # another process
        ranks.kill(1)
        outcomes = ranks.outcomes(30)

    assert "one of them has ended or hangs" in outcomes[0].result
