"""Votes: flags that any rank may raise, heard by all at the same vote."""

import os
import signal
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


def votes_beside_one_that_hangs(rank: int) -> tuple[str, float]:
    votes = Votes(control_group(), timeout_s=0.5)
    votes.cast(0)
    votes.settle()
    if rank == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    votes.cast(0)
    start_s = time.monotonic()
    try:
        votes.settle()
    except DistributedError as error:
        return str(error), time.monotonic() - start_s
    return "nothing", 0.0


def leaves_with_a_vote(rank: int, destroys: bool) -> None:
    """Rank 0 casts one more than rank 1; both end."""
    votes = Votes(control_group())
    votes.cast(0)
    votes.settle()
    if rank == 0:
        votes.cast(0)
    if not destroys:
        raise SystemExit(0)


def talks_to_one_that_died(rank: int) -> str:
    gather_objects(rank)
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        return str(gather_objects(rank))
    except DistributedError as error:
        return str(error)


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


@pytest.mark.crash
def test_a_rank_that_hangs_fails_the_vote_of_the_others_after_its_timeout() -> None:
    with Ranks(2, votes_beside_one_that_hangs) as ranks:
        ranks.wait([0], timeout_s=20)
        ranks.kill(1)
        outcome, _ = ranks.outcomes(20)
    text, elapsed_s = outcome.result

    assert "one of them has ended or hangs" in text
    assert elapsed_s < 5
    assert outcome.exit_code == 0


@pytest.mark.parametrize("destroys", [True, False])
def test_a_process_ends_quietly_with_a_vote_under_way(
    destroys: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    with Ranks(2, leaves_with_a_vote, destroys) as ranks:
        outcomes = ranks.outcomes(10)

    assert [outcome.exit_code for outcome in outcomes] == [0, 0]
    assert capfd.readouterr().err == ""


@pytest.mark.crash
def test_small_objects_cannot_reach_a_rank_that_died() -> None:
    with Ranks(2, talks_to_one_that_died) as ranks:
        outcome, _ = ranks.outcomes(20)

    assert "one of them has ended or hangs" in outcome.result
