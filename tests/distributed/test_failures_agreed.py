"""A background failure on one rank ends all ranks at the same step, by name; so does the wish to stop."""

from pathlib import Path
from typing import Any

import pytest

from asynchooks import Effects, Hook, background
from asynchooks.errors import AsyncHooksError
from asynchooks.testing import Ranks, run_ranks
from tests.distributed.runs import run_of

pytestmark = pytest.mark.ranks


class Fails(Hook):
    """Its upload fails on one rank, in the background."""

    effects = Effects(writes={"uploads"})

    def __init__(self, *, is_failing: bool, at: int = 2) -> None:
        self.is_failing = is_failing
        self.at = at
        self.iters = 0

    @background
    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> Any:
        self.iters += 1

        async def upload() -> None:
            raise OSError("bucket is gone")

        return upload if self.is_failing and runner.iter == self.at else None


class Stops(Hook):
    """Wants to stop, on one rank."""

    def __init__(self, *, wants: bool) -> None:
        self.wants = wants

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        if self.wants and runner.iter == 1:
            runner.train_loop.stop_training = True


LONG: dict[str, Any] = {"train_cfg": {"by_epoch": False, "max_iters": 12}}


def fails(rank: int, folder: str, at: int) -> tuple[str, str, int]:
    hook = Fails(is_failing=rank == 1, at=at)
    with pytest.raises(AsyncHooksError) as raised:
        run_of(folder, custom_hooks=[hook], **LONG).train()
    return type(raised.value).__name__, str(raised.value), hook.iters


def stops(rank: int, folder: str, by_epoch: bool) -> tuple[int, int]:
    runner = run_of(folder, custom_hooks=[Stops(wants=rank == 1)], **({} if by_epoch else LONG))
    runner.train()
    return runner.epoch, runner.iter


def hangs(rank: int, folder: str) -> str:
    import time

    class Hangs(Hook):
        def after_train_iter(
            self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
        ) -> None:
            if rank == 1 and runner.iter == 1:
                time.sleep(60)  # the test ends it

    with pytest.raises(Exception) as raised:  # torch's or ours, whichever notices first
        run_of(folder, custom_hooks=[Hangs()], env_cfg={"dist_cfg": {"timeout": 2}}, **LONG).train()
    return str(raised.value)


@pytest.mark.parametrize("at", [2, 11])  # amid the training, and at its last iteration
def test_a_failure_behind_one_rank_is_raised_on_all_at_the_same_step(tmp_path: Path, at: int) -> None:
    first, second = run_ranks(2, fails, str(tmp_path), at)

    assert first[0] == "RankFailedError"
    assert "rank 1: BackgroundHookError: Fails.after_train_iter failed" in first[1]
    assert "bucket is gone" in first[1]
    assert second[0] == "BackgroundHookError"
    assert first[2] == second[2]


@pytest.mark.parametrize("by_epoch", [False, True])
def test_one_rank_that_stops_the_training_stops_all_at_the_same_step(tmp_path: Path, by_epoch: bool) -> None:
    first, second = run_ranks(2, stops, str(tmp_path), by_epoch)

    assert first == second
    assert first[0 if by_epoch else 1] in ((1,) if by_epoch else (2, 3, 4))


def test_a_rank_that_hangs_is_an_error_of_the_others_within_the_deadline(tmp_path: Path) -> None:
    with Ranks(2, hangs, str(tmp_path), with_group=False) as ranks:
        with pytest.raises(TimeoutError, match=r"ranks \[1\] have not ended"):
            ranks.outcomes(timeout_s=8)
