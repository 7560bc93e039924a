"""A run that failed tells its hooks so, after everything else, and they let go of what they hold."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from asynchooks.checkpoint._owner import OWNER_FILE, Owner
from asynchooks.execution import Effects, Hook
from asynchooks.hooks import CheckpointHook, LoggerHook, ProfilerHook, mmcv
from asynchooks.runner import EpochBasedRunner
from tests.runner.mmcv.conftest import Net as MMCVNet
from tests.runner.mmcv.conftest import Step, loader
from tests.runner.mmcv.test_mmcv_evaluation import evaluation

from .conftest import MakeRunner
from .test_failed_runs import FailOnce


class Fails(Hook):
    """Raises after the second epoch, where hooks have begun and saved."""

    effects = Effects()
    changes_state = False
    priority = "LOWEST"
    convention = "mmcv"

    def after_train_epoch(self, runner: Any) -> None:
        if runner.epoch == 1:
            raise ZeroDivisionError


class Closed(Hook):
    """Notes what there is when it is closed."""

    effects = Effects()
    changes_state = False

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error
        self.notes: list[str] = []

    async def after_train_epoch(self, runner: Any) -> None:
        self.notes.append("background")

    def after_run(self, runner: Any) -> None:
        self.notes.append("after_run")

    def close(self) -> None:
        self.notes.append("closed")
        if self.error is not None:
            raise self.error


def fail(make_runner: MakeRunner, *hooks: Any, **changes: Any) -> ZeroDivisionError:
    runner = make_runner(custom_hooks=[*hooks, Fails()], **changes)
    with pytest.raises(ZeroDivisionError) as caught:
        runner.train()
    return caught.value


def fail_in_mmcvs_manner(work_dir: Path, *hooks: Any) -> None:
    model = MMCVNet()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    runner = EpochBasedRunner(model, optimizer=optimizer, work_dir=work_dir, max_epochs=3)
    for hook in (Step(), *hooks, Fails()):
        runner.register_hook(hook)
    with pytest.raises(ZeroDivisionError):
        runner.run([loader()])


def open_files(folder: Path) -> list[str]:
    links = (Path("/proc/self/fd", name) for name in os.listdir("/proc/self/fd"))  # noqa: PTH208 - while it changes
    found = [os.readlink(link) for link in links if link.is_symlink()]  # noqa: PTH115
    return [path for path in found if path.startswith(str(folder))]


def is_released(folder: Path) -> bool:
    return Owner.from_json((folder / OWNER_FILE).read_bytes()).released


def test_hooks_are_closed_when_everything_in_flight_has_ended(make_runner: MakeRunner) -> None:
    hook = Closed()
    fail(make_runner, hook)

    assert hook.notes == ["background", "background", "closed"]


def test_a_run_that_ends_well_calls_after_run_alone(make_runner: MakeRunner) -> None:
    hook = Closed()
    make_runner(custom_hooks=[hook]).train()

    assert hook.notes == ["background", "background", "after_run"]


def test_an_error_of_a_close_hides_nothing_and_keeps_no_other_from_closing(
    make_runner: MakeRunner, caplog: pytest.LogCaptureFixture
) -> None:
    hooks = Closed(ValueError("of the first")), Closed()
    error = fail(make_runner, *hooks)

    assert error.__notes__[-1] == "Closed.close() failed too: ValueError"
    assert "of the first" in caplog.text
    assert hooks[1].notes[-1] == "closed"


def test_a_ctrl_c_while_hooks_close_is_raised_with_the_error_of_the_run(make_runner: MakeRunner) -> None:
    runner = make_runner(custom_hooks=[Closed(KeyboardInterrupt()), Fails()])
    with pytest.raises(BaseExceptionGroup) as caught:
        runner.train()

    assert [type(each) for each in caught.value.exceptions] == [ZeroDivisionError, KeyboardInterrupt]


def test_a_failed_background_part_closes_hooks_too(make_runner: MakeRunner) -> None:
    class Background(Hook):
        effects = Effects()

        async def after_train_epoch(self, runner: Any) -> None:
            raise ZeroDivisionError

    hook = Closed()
    with pytest.raises(Exception, match="ZeroDivisionError"):
        make_runner(custom_hooks=[hook, Background()]).train()

    assert hook.notes[-1] == "closed"


def test_the_log_of_a_failed_run_is_closed_and_its_copy_up_to_date(
    make_runner: MakeRunner, tmp_path: Path
) -> None:
    logger = LoggerHook(interval=1, out_dir=str(tmp_path / "out"), sync_interval_s=3600.0)
    fail(make_runner, default_hooks={"logger": logger, "checkpoint": None, "timer": None})

    assert not open_files(tmp_path)
    (log,), (copy,) = ((tmp_path / folder / "run").rglob("*.log") for folder in (".", "out"))
    assert "Epoch(train) [2][5/5]" in log.read_text()
    assert copy.read_text() == log.read_text()


def test_another_run_may_have_the_folder_of_one_that_failed(make_runner: MakeRunner, tmp_path: Path) -> None:
    hooks = {"checkpoint": CheckpointHook(interval=1), "logger": None, "timer": None}
    fail(make_runner, default_hooks=hooks)

    assert is_released(tmp_path / "run")


@pytest.mark.parametrize(
    "makes", [lambda: mmcv.CheckpointHook(interval=1), lambda: evaluation(*[0.1] * 3, save_best="acc")]
)
def test_another_run_may_have_the_folder_of_one_that_failed_in_mmcvs_manner(
    tmp_path: Path, makes: Any
) -> None:
    fail_in_mmcvs_manner(tmp_path / "run", makes())

    assert is_released(tmp_path / "run")


def test_a_profiler_is_stopped(make_runner: MakeRunner) -> None:
    runner = make_runner(custom_hooks=[ProfilerHook(), FailOnce("after_train_iter")])
    with pytest.raises(ZeroDivisionError):
        runner.train()

    assert not torch._C._autograd._profiler_enabled()


def test_mmcvs_profiler_is_stopped(tmp_path: Path) -> None:
    fail_in_mmcvs_manner(tmp_path, mmcv.ProfilerHook(profile_iters=3, activities=["cpu"]))

    assert not torch._C._autograd._profiler_enabled()


def test_an_event_file_is_closed(tmp_path: Path) -> None:
    fail_in_mmcvs_manner(tmp_path, mmcv.TensorboardLoggerHook(interval=1))

    assert not open_files(tmp_path)


def test_mlflow_is_told_that_a_run_has_failed(tmp_path: Path, mlflow_store: Path) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{shutil.copy(mlflow_store, tmp_path / 'own.db')}"
    logger = mmcv.MlflowLoggerHook(exp_name="e", log_model=False, interval=1, tracking_uri=uri)
    fail_in_mmcvs_manner(tmp_path / "run", logger)
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("e")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])

    assert run.info.status == "FAILED"


def test_wandb_is_told_that_a_run_has_failed(
    tmp_path: Path, wandb_records: Callable[[Path], list[Any]]
) -> None:
    options = {"mode": "offline", "project": "tests"}
    fail_in_mmcvs_manner(tmp_path, mmcv.WandbLoggerHook(options, interval=1, log_artifact=False))

    (code,) = [r.exit.exit_code for r in wandb_records(tmp_path) if r.WhichOneof("record_type") == "exit"]
    assert code == 1


def test_a_copy_of_mmcvs_logs_is_up_to_date(tmp_path: Path) -> None:
    logger = mmcv.TextLoggerHook(interval=1, out_dir=tmp_path / "out", sync_interval_s=3600.0)
    fail_in_mmcvs_manner(tmp_path / "run", logger)

    (log,), (copy,) = ((tmp_path / folder / "run").rglob("*.log.json") for folder in (".", "out"))
    assert copy.read_text() == log.read_text()
