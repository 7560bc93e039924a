"""The shipped ranks: real processes with a group."""

import os
import signal
import time

import pytest
import torch
import torch.distributed as dist

from asynchooks.testing import Ranks, run_ranks


def summed(rank: int, factor: int) -> float:
    value = torch.tensor([float(rank * factor)])
    dist.all_reduce(value)
    return float(value)


def fails_on_one(rank: int) -> None:
    if rank == 1:
        raise ValueError("an error of rank one")


def waits(rank: int) -> None:
    signal.pause()


def leaves(rank: int) -> None:
    raise SystemExit(75)


def test_every_rank_takes_part_and_answers() -> None:
    assert run_ranks(3, summed, 2) == [6.0, 6.0, 6.0]


def test_a_rank_that_raises_is_named_with_its_error() -> None:
    with pytest.raises(RuntimeError, match=r"rank 1 (?s:.*)an error of rank one"):
        run_ranks(2, fails_on_one)


def test_a_killed_rank_has_the_signal_as_its_exit_code() -> None:
    with Ranks(2, waits) as ranks:
        ranks.kill(0)
        ranks.kill(1, signal.SIGTERM)
        assert [outcome.exit_code for outcome in ranks.outcomes()] == [-signal.SIGKILL, -signal.SIGTERM]


def test_ranks_that_do_not_end_are_named() -> None:
    with Ranks(1, waits) as ranks:
        with pytest.raises(TimeoutError, match="ranks \\[0\\]"):
            ranks.outcomes(timeout_s=0.1)


def test_an_exit_code_is_kept() -> None:
    with Ranks(2, leaves) as ranks:
        assert [outcome.exit_code for outcome in ranks.outcomes()] == [75, 75]


def test_leaving_ends_the_ranks() -> None:
    with Ranks(1, waits) as ranks:
        (pid,) = ranks.pids
    deadline = time.monotonic() + 10
    with pytest.raises(ProcessLookupError):
        while time.monotonic() < deadline:
            os.kill(pid, 0)
