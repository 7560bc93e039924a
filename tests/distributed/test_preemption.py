"""A signal to any rank has all ranks save at the same iteration and leave; a killed rank is started again."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from asynchooks import Hook, HookExecutor, TrainState
from asynchooks.checkpoint import list_checkpoints, verify
from asynchooks.errors import Preempted
from asynchooks.hooks import CheckpointHook, PreemptionHook
from asynchooks.testing import Ranks, run_ranks
from tests.distributed import elastic_program
from tests.distributed.runs import run_of, weights

pytestmark = [pytest.mark.ranks, pytest.mark.crash]

SAVING: dict[str, Any] = {
    "default_hooks": {"logger": None, "checkpoint": {"type": "CheckpointHook", "interval": 1}},
    "resume": "auto",
}


class Signals(Hook):
    """Sends this rank SIGTERM, at an iteration."""

    def __init__(self, times: int) -> None:
        self.times = times

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        if runner.iter == 1:
            for _ in range(self.times):
                os.kill(os.getpid(), signal.SIGTERM)


def trains(rank: int, folder: str, strategy: str, times: tuple[int, int]) -> Any:
    hooks = [{"type": "PreemptionHook"}, Signals(times[rank])]
    runner = run_of(folder, custom_hooks=hooks, strategy={"type": strategy}, **SAVING)
    runner.train()
    return weights(runner.model), runner.iter


@pytest.mark.parametrize(
    ("strategy", "name", "times"),
    [
        *(("DDP", "iter_3.pth", times) for times in [(0, 1), (1, 0), (1, 1), (2, 3)]),
        *(("FSDP2", "iter_3", times) for times in [(0, 1), (2, 3)]),
    ],
)
def test_a_signal_to_any_rank_ends_all_with_one_checkpoint_and_it_goes_on_alike(
    tmp_path: Path, strategy: str, name: str, times: tuple[int, int]
) -> None:
    folder = tmp_path / "run"
    with Ranks(2, trains, str(folder), strategy, times) as ranks:
        assert [outcome.exit_code for outcome in ranks.outcomes()] == [75, 75]
    (saved,) = list_checkpoints(folder)
    assert saved.name == name  # signalled in the second, known in the third
    verify(saved.url)

    whole = run_ranks(2, trains, str(tmp_path / "whole"), strategy, (0, 0))
    assert run_ranks(2, trains, str(folder), strategy, (0, 0)) == whole


def trains_in_a_loop_of_its_own(rank: int, folder: str, signalled_at: tuple[int, int]) -> int:
    model = torch.nn.Linear(4, 1)
    state = TrainState(model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1), work_dir=folder)
    hooks = [PreemptionHook(), CheckpointHook(interval=100, by_epoch=False)]
    with pytest.raises(Preempted) as raised, HookExecutor(hooks) as executor:
        executor.fire("before_train", state)
        for step in range(20):
            executor.fire("before_train_iter", state, batch_idx=step, data_batch=None)
            if step == signalled_at[rank]:
                os.kill(os.getpid(), signal.SIGTERM)
            dist.all_reduce(torch.ones(1))  # hangs where a rank has left alone
            executor.fire("after_train_iter", state, batch_idx=step, data_batch=None, outputs=None)
    assert raised.value.code == 75
    return state.iter


@pytest.mark.parametrize("signalled_at", [(5, 6), (99, 5)])
def test_ranks_in_a_loop_of_their_own_leave_at_the_same_iteration(
    tmp_path: Path, signalled_at: tuple[int, int]
) -> None:
    assert run_ranks(2, trains_in_a_loop_of_its_own, str(tmp_path), signalled_at) == [7, 7]

    assert [saved.name for saved in list_checkpoints(tmp_path)] == ["iter_7.pth"]


def test_torchrun_starts_a_killed_rank_again_and_the_run_goes_on_from_its_newest_checkpoint(
    tmp_path: Path,
) -> None:
    program = Path(__file__).with_name("elastic_program.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["--max-restarts", "2", str(program), str(tmp_path / "killed")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr[-3000:]
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "was_killed").touch()  # so that nobody is

    run_ranks(2, trains_elastically, tmp_path / "whole", with_group=False)

    assert (tmp_path / "killed" / "was_killed").exists()
    killed, whole = (torch.load(tmp_path / name / "weights.pt") for name in ("killed", "whole"))
    assert killed == whole


def trains_elastically(rank: int, folder: Path) -> None:
    elastic_program.main(folder)
