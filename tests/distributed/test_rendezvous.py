"""The rendezvous: all arrive, the first decides, all depart; and what happens when somebody does not."""

from pathlib import Path

import pytest
from torch._C._distributed_c10d import HashStore

from asynchooks.distributed import Rendezvous
from asynchooks.distributed._store import StoreLost, Telling
from asynchooks.testing import Ranks, run_ranks
from tests.distributed import meetings
from tests.distributed.meetings import SIGKILL, SIGSTOP

pytestmark = pytest.mark.ranks

LATE_S = 6 * meetings.DEADLINE_S  # on a machine that does other things too


@pytest.mark.parametrize("fan_in", [64, 1, 2])
def test_the_first_rank_has_all_results_and_all_have_its_decision(fan_in: int) -> None:
    (payloads, decision), *others = run_ranks(4, meetings.meet, fan_in)

    assert payloads == [bytes([rank]) * (rank + 1) for rank in range(4)]
    assert decision == b"all are here"
    assert others == [(None, decision)] * 3


def test_a_process_alone_decides_at_once() -> None:
    with Rendezvous(None, rank=0, world_size=1, name="alone").round("a meeting") as round_:
        assert round_.arrive(b"mine") == [b"mine"]
        round_.decide(b"done")

        assert round_.decision() == b"done"


@pytest.mark.crash
@pytest.mark.parametrize(  # the first, one at which another arrives, one at which none does
    ("victim", "number"), [(0, SIGSTOP), (1, SIGKILL), (3, SIGSTOP)]
)
def test_a_rank_that_dies_or_hangs_at_work_is_named_on_all_others(victim: int, number: int) -> None:
    with Ranks(4, meetings.stop_at, victim, "working", number, 2) as ranks:
        outcomes = _of_others(ranks, victim, number)

    for text, elapsed_s in outcomes:
        assert text.startswith(f"RankLostError({victim}): a meeting: rank {victim} is lost")
        assert elapsed_s < LATE_S


@pytest.mark.crash
@pytest.mark.parametrize(("victim", "state", "number"), [(1, "departing", SIGKILL), (3, "arrived", SIGSTOP)])
def test_a_rank_that_dies_or_hangs_after_it_has_arrived_is_not_missed(
    victim: int, state: str, number: int
) -> None:
    with Ranks(4, meetings.stop_at, victim, state, number, 2) as ranks:
        outcomes = _of_others(ranks, victim, number)

    assert [text for text, _ in outcomes] == ["done"] * 3


@pytest.mark.crash
def test_what_the_first_rank_has_decided_stands_when_it_dies() -> None:
    with Ranks(3, meetings.stop_at, 0, "decided", SIGKILL, 64) as ranks:
        outcomes = _of_others(ranks, 0, SIGKILL)

    assert [text for text, _ in outcomes] == ["done"] * 2


@pytest.mark.crash
def test_the_first_rank_that_dies_before_it_has_decided_is_named() -> None:
    with Ranks(3, meetings.stop_at, 0, "arrived", SIGKILL, 64) as ranks:
        outcomes = _of_others(ranks, 0, SIGKILL)

    for text, elapsed_s in outcomes:
        assert text.startswith("RankLostError(0)")
        assert elapsed_s < LATE_S


@pytest.mark.parametrize(("victim", "where"), [(2, "working"), (0, "working"), (0, "deciding")])
def test_a_rank_that_raises_is_named_with_its_error_on_all_others(victim: int, where: str) -> None:
    answers = run_ranks(3, meetings.fail_on, victim, where)

    assert answers.pop(victim) == "ValueError(None): the disk is full"
    assert (
        answers
        == [f"RankFailedError({victim}): a meeting: rank {victim} failed: ValueError: the disk is full"] * 2
    )


def test_a_rank_that_still_works_hears_of_a_failure() -> None:
    first, _ = run_ranks(2, meetings.works_on)

    assert first == "RankFailedError(1): a meeting: rank 1 failed: ValueError: the disk is full"


def test_a_rank_that_works_for_long_is_not_lost() -> None:
    assert run_ranks(2, meetings.works_long) == [b"all are here"] * 2


def test_a_rank_that_lives_and_does_not_come_is_lost_after_a_longer_while(tmp_path: Path) -> None:
    first, _ = run_ranks(2, meetings.never_comes, str(tmp_path))

    assert first.startswith("RankLostError(1): a meeting: rank 1 is lost: it lives, but did not come for")


def test_a_wait_can_be_stopped_and_the_others_hear_that_it_was_no_failure() -> None:
    assert run_ranks(2, meetings.stopped) == [
        ("StoppedError(None): cancelled", True),
        ("RankFailedError(0): a meeting: rank 0 failed: cancelled", True),
    ]


def test_what_ranks_bring_may_be_larger_than_the_store_takes_at_once() -> None:
    assert run_ranks(3, meetings.brings_much, 9 * 2**20) == [9 * 2**20] * 3


def test_a_rank_that_leaves_out_a_round_is_named_on_all() -> None:
    first, second = run_ranks(2, meetings.leaves_one_out)

    assert first.startswith("RankFailedError(1): step 1: rank 1 failed: it came to 'step 2' instead")
    assert second.startswith("RankFailedError(1): step 2: rank 1 failed: it came to 'step 2' instead")


def test_a_rank_that_skips_a_round_fails_it_at_once_and_comes_to_the_next() -> None:
    first, second = run_ranks(2, meetings.skips_one)

    assert first == [
        "RankFailedError(1): step 1: rank 1 failed: ValueError: no memory to stage it",
        "done",
    ]
    assert second == ["ValueError(None): no memory to stage it", "done"]


def test_a_rank_that_went_on_to_a_later_round_is_not_waited_for(tmp_path: Path) -> None:
    first, _ = run_ranks(2, meetings.forgets_one, str(tmp_path))

    assert first.startswith("RankLostError(1): round 0: rank 1 is lost: it went on to a later round")


def test_what_is_asked_after_closing_fails_at_once() -> None:
    telling = Telling.on(HashStore(), "closed", patience_s=60.0)
    telling.set("key", b"")
    telling.close()

    with pytest.raises(StoreLost, match="has closed its connection"):
        telling.has("key")


def test_a_number_is_used_once() -> None:
    meeting = Rendezvous(None, rank=0, world_size=1, name="alone")
    number = meeting.reserve()
    meeting.skip("a meeting", ValueError("no memory"), number=number)

    with (
        pytest.raises(ValueError, match="entered or skipped already"),
        meeting.round("a meeting", number=number),
    ):
        pass


def test_a_rank_that_gives_up_when_it_has_arrived_departs(tmp_path: Path) -> None:
    assert run_ranks(2, meetings.gives_up_late, str(tmp_path)) == [
        "departed",
        "StoppedError(None): cancelled",
    ]


def test_a_rank_that_has_closed_is_not_waited_for(tmp_path: Path) -> None:
    first, _ = run_ranks(2, meetings.closes_without_coming, str(tmp_path))

    assert first.startswith("RankLostError(1): a meeting: rank 1 is lost: it has closed its part")


@pytest.mark.crash
@pytest.mark.parametrize("number", [SIGKILL, SIGSTOP])
def test_a_store_whose_process_dies_or_hangs_is_an_error(
    tmp_path: Path, number: int, capfd: pytest.CaptureFixture[str]
) -> None:
    with Ranks(3, meetings.meets_in_a_store_of_the_first, str(tmp_path), number, with_group=False) as ranks:
        outcomes = _of_others(ranks, 0, number)
    capfd.readouterr()  # torch writes of the connection

    for text, elapsed_s in outcomes:
        assert text.startswith("RankLostError(0): a meeting: the store through which the ranks meet is gone")
        assert elapsed_s < LATE_S


def test_rounds_that_failed_leave_nothing_in_the_store() -> None:
    few, many = (
        max(run_ranks(3, meetings.keys_after_failures, 3)),
        max(run_ranks(3, meetings.keys_after_failures, 12)),
    )

    assert many <= few + 3


def test_rounds_leave_nothing_in_the_store() -> None:
    few, many = max(run_ranks(3, meetings.many_rounds, 5)), max(run_ranks(3, meetings.many_rounds, 300))

    assert many <= few + 5


def test_a_name_that_is_opened_again_is_another_place_on_all_ranks() -> None:
    one, other = run_ranks(2, meetings.names_of_two)

    assert one == other
    assert len(set(one)) == 2


def test_two_rendezvous_at_once_do_not_disturb_each_other() -> None:
    assert run_ranks(3, meetings.two_at_once) == [[b"one 19", b"other 19"]] * 3


def _of_others(ranks: Ranks, victim: int, number: int) -> list[tuple[str, float]]:
    """What the others say; a victim that was stopped is killed when they have ended."""
    if number == SIGSTOP:
        others = [rank for rank in range(len(ranks.pids)) if rank != victim]
        ranks.wait(others, timeout_s=30)
        ranks.kill(victim)
    outcomes = ranks.outcomes(30)
    assert [outcome.error for outcome in outcomes if outcome.rank != victim] == [None] * (len(outcomes) - 1)
    return [outcome.result for outcome in outcomes if outcome.rank != victim]
