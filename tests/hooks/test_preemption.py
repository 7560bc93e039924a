"""A signal ends a training in good order, and it goes on bit-identically."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
import torch

from asynchooks import Effects, Hook, HookExecutor, TrainState
from asynchooks.errors import ConfigError, Preempted
from asynchooks.hooks import CheckpointHook, PreemptionHook

PROGRAM = Path(__file__).with_name("preempted_program.py")


def start(folder: Path, *, workers: int = 0, **options: Any) -> Any:
    command = [sys.executable, str(PROGRAM), str(folder), str(workers), json.dumps(options)]
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def train(process: Any, *, until: int | None = None) -> None:
    """Let the training go on, to the end or to the beginning of an iteration."""
    for line in process.stdout:
        if int(line) == until:
            return
        process.stdin.write("\n")
        process.stdin.flush()


def end_of(process: Any) -> tuple[int, str]:
    """Let what runs go on; return exit code and stderr."""
    _, err = process.communicate("\n" * 20, timeout=60)
    return process.returncode, err


def preempted(
    folder: Path, number: int = signal.SIGTERM, *, whole_group: bool = False, **options: Any
) -> tuple[int, str]:
    process = start(folder, **options)
    train(process, until=3)
    (os.killpg if whole_group else os.kill)(process.pid, number)
    return end_of(process)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("whole")
    assert end_of(start(folder))[0] == 0
    return (folder / "weights.json").read_text()


@pytest.mark.crash
@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_that_was_preempted_amid_an_epoch_goes_on_as_if_it_had_not_been(
    tmp_path: Path, uninterrupted: str, workers: int
) -> None:
    code, err = preempted(tmp_path, whole_group=True, workers=workers)
    assert (code, "killed by signal" in err) == (75, False), err
    assert (tmp_path / "iter_4.pth").exists()
    assert "preempted: SIGTERM, at iteration 4" in err

    assert end_of(start(tmp_path, workers=workers))[0] == 0
    assert (tmp_path / "weights.json").read_text() == uninterrupted


@pytest.mark.crash
def test_the_exit_code_and_the_signal_may_be_others(tmp_path: Path) -> None:
    code, err = preempted(tmp_path, signal.SIGUSR1, exit_code=99, save=False)

    assert code == 99, err
    assert not list(tmp_path.glob("*.pth"))


@pytest.mark.crash
def test_a_second_signal_changes_nothing(tmp_path: Path) -> None:
    process = start(tmp_path)
    train(process, until=3)
    for _ in range(2):
        process.send_signal(signal.SIGTERM)
    code, err = end_of(process)

    assert code == 75, err
    assert (tmp_path / "iter_4.pth").exists()


@pytest.mark.parametrize(
    "options",
    [
        {"signals": ["SIGKILL"]},
        {"signals": ["SIGTERN"]},
        {"grace_period": 0},
        {"exit_code": 0},
        {"exit_code": True},
    ],
)
def test_what_cannot_work_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="PreemptionHook"):
        PreemptionHook(**options)


def test_the_handlers_come_back_after_a_run() -> None:
    before = signal.getsignal(signal.SIGTERM)
    hook = PreemptionHook()
    hook.before_train(None)
    assert signal.getsignal(signal.SIGTERM) != before
    hook.after_run(None)

    assert signal.getsignal(signal.SIGTERM) == before


class HoldsTheLastSave(Hook):
    """Comes before the save of the third iteration, and never ends."""

    effects = Effects(writes={"checkpoints"})

    async def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        if batch_idx == 2:
            await anyio.sleep_forever()


def test_a_checkpoint_that_was_given_up_is_not_told_as_the_last_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hook = PreemptionHook(signals=["SIGUSR1"], grace_period=0.5)
    hooks = [hook, HoldsTheLastSave(), CheckpointHook(interval=2, by_epoch=False)]
    state = TrainState(model=torch.nn.Linear(2, 1), work_dir=tmp_path)
    before = signal.getsignal(signal.SIGUSR1)
    try:
        with pytest.raises(Preempted), HookExecutor(hooks) as executor:
            executor.fire("before_train", state)
            for step in range(4):
                executor.fire("before_train_iter", state, batch_idx=step, data_batch=None)
                if step == 2:
                    executor.drain()
                    signal.raise_signal(signal.SIGUSR1)
                executor.fire("after_train_iter", state, batch_idx=step, data_batch=None, outputs=None)
        hook.close()
    finally:
        signal.signal(signal.SIGUSR1, before)

    assert f"last checkpoint: {tmp_path / 'iter_2.pth'}; given up: CheckpointHook" in caplog.text
