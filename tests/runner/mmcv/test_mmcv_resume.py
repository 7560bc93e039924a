"""A resumed run in MMCV's manner goes on as the one that was not interrupted."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from asynchooks.errors import ForeignCheckpointError
from asynchooks.execution import Effects, RunnerHook
from asynchooks.hooks.mmcv import (
    CheckpointHook,
    EvalHook,
    GradientCumulativeFp16OptimizerHook,
    GradientCumulativeOptimizerHook,
    OptimizerHook,
)

from .conftest import MakeRun, Net, Numbers, Recorder, loader, weights

WORKFLOWS = {
    "train": [("train", 1)],
    "train, val": [("train", 2), ("val", 1)],
    "val first": [("val", 1), ("train", 3)],
}


@pytest.mark.parametrize("workflow", WORKFLOWS.values(), ids=list(WORKFLOWS))
@pytest.mark.parametrize(
    ("limit", "options", "resumed"),
    [
        ({"max_epochs": 5}, {"by_epoch": True}, "epoch_2.pth"),
        ({"max_epochs": 5}, {"by_epoch": True}, "epoch_3.pth"),
        ({"max_epochs": 5}, {"by_epoch": False}, "iter_5.pth"),  # in the middle of an epoch
        ({"max_iters": 11}, {"by_epoch": False}, "iter_4.pth"),
        ({"max_iters": 11}, {"by_epoch": False}, "iter_6.pth"),
    ],
)
def test_a_resumed_run_ends_with_the_same_weights(
    make_run: MakeRun, tmp_path: Path, workflow: Any, limit: Any, options: Any, resumed: str
) -> None:
    def go(checkpoint: str | None, folder: str) -> tuple[Any, list[str]]:
        recorder = Recorder()
        hooks = (OptimizerHook(grad_clip={"max_norm": 1.0}), CheckpointHook(interval=1, **options), recorder)
        runner = make_run(*hooks, trains=False, work_dir=tmp_path / folder / "run", **limit)
        if checkpoint is not None:
            torch.manual_seed(99)
            runner.resume(checkpoint)
        runner.run([loader(12, shuffle=True) for _ in workflow], workflow)
        return runner, recorder.points

    whole, points = go(None, "whole")
    path = tmp_path / "whole" / "run" / resumed
    again, rest = go(str(path), "again")

    assert torch.equal(weights(again), weights(whole))
    assert (again.epoch, again.iter, again.inner_iter) == (whole.epoch, whole.iter, whole.inner_iter)
    iterations = [point for point in points if point.endswith("iter")]
    assert [point for point in rest if point.endswith("iter")] == iterations[
        -sum("iter" in p for p in rest) :
    ]


def test_an_evaluation_does_not_change_the_training(make_run: MakeRun) -> None:
    found = []
    for hooks in ((), (EvalHook(loader(4, shuffle=True), interval=1),)):
        for hook in hooks:
            hook.dataloader.dataset.metrics = [{"acc": 1.0}] * 9
        runner = make_run(*hooks, max_epochs=3)
        runner.run([loader(shuffle=True)])
        found.append(weights(runner))

    assert torch.equal(*found)


@pytest.mark.parametrize("resumed", [2, 3, 4])
def test_gradients_that_wait_for_their_step_are_resumed(
    make_run: MakeRun, tmp_path: Path, resumed: int, caplog: pytest.LogCaptureFixture
) -> None:
    def make(folder: str) -> Any:
        hooks = (
            GradientCumulativeOptimizerHook(cumulative_iters=3),
            CheckpointHook(interval=1, by_epoch=False),
        )
        return make_run(*hooks, trains=False, work_dir=tmp_path / folder / "run", max_iters=8)

    whole = make("whole")
    whole.run([loader(shuffle=True)])
    again = make("again")
    again.resume(tmp_path / "whole" / "run" / f"iter_{resumed}.pth")
    again.run([loader(shuffle=True)])

    assert torch.equal(weights(again), weights(whole))
    assert "not known" not in caplog.text


def test_a_hook_may_resume_the_run_at_its_beginning(make_run: MakeRun, tmp_path: Path) -> None:
    class Resume(RunnerHook):  # as MMCV's EMAHook(resume_from=...) does
        effects = Effects()

        def before_run(self, runner: Any) -> None:
            runner.resume(tmp_path / "whole" / "run" / "iter_4.pth")

    def make(folder: str, *others: Any) -> Any:
        hooks = (
            GradientCumulativeFp16OptimizerHook(cumulative_iters=3, loss_scale="dynamic", dtype="bfloat16"),
            CheckpointHook(interval=1, by_epoch=False),
        )
        work_dir = tmp_path / folder / "run"
        return make_run(*hooks, *others, trains=False, work_dir=work_dir, max_epochs=3)

    whole, again = make("whole"), make("again", Resume())
    whole.run([loader(12, shuffle=True)])
    again.run([loader(12, shuffle=True)])

    assert torch.equal(weights(again), weights(whole))


def test_latest_is_what_a_run_may_resume_from(make_run: MakeRun, tmp_path: Path) -> None:
    make_run(CheckpointHook(interval=1)).run([loader()])
    runner = make_run(max_epochs=3)
    runner.resume(tmp_path / "run" / "latest.pth")

    assert (runner.epoch, runner.iter) == (2, 4)
    assert runner.meta is not None
    assert runner.meta["hook_msgs"]["last_ckpt"].endswith("epoch_2.pth")


def test_a_checkpoint_of_mmcvs_own_is_resumed_by_its_counters(make_run: MakeRun, tmp_path: Path) -> None:
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.25, momentum=0.9)
    path = tmp_path / "mmcv.pth"
    meta = {"epoch": 3, "iter": 6, "hook_msgs": {"best_score": 0.5}}
    torch.save({"meta": meta, "state_dict": net.state_dict(), "optimizer": optimizer.state_dict()}, path)
    runner = make_run(max_epochs=5)
    runner.resume(path)

    assert (runner.epoch, runner.iter, runner.current_lr()) == (3, 6, [0.25])
    assert runner.message_hub.get_info("best_score") == 0.5
    runner.run([loader()])
    assert (runner.epoch, runner.iter) == (5, 10)


@pytest.mark.parametrize(
    ("saved", "batch_size", "iterations"),
    [("iter_3.pth", 4, 6), ("epoch_2.pth", 2, 4 + 4), ("iter_3.pth", 2, 3 + 3 + 4)],
    ids=["same", "between epochs", "within"],
)
def test_a_run_with_epochs_of_another_length_knows_how_many_iterations_it_has(
    make_run: MakeRun, tmp_path: Path, saved: str, batch_size: int, iterations: int
) -> None:
    make_run(CheckpointHook(interval=1, by_epoch=saved.startswith("epoch"))).run([loader()])
    known = []

    class Watch(RunnerHook):
        effects = Effects()

        def before_run(self, runner: Any) -> None:
            known.append(runner.max_iters)

        def before_train_epoch(self, runner: Any) -> None:
            known.append(runner.max_iters)

    resumed = make_run(Watch(), max_epochs=3)
    resumed.resume(tmp_path / "run" / saved)
    resumed.run([DataLoader(Numbers(8), batch_size=batch_size)])

    assert resumed.iter == iterations
    assert set(known) == {iterations}


def test_an_iteration_based_run_goes_on_in_its_pass_by_the_counters(
    make_run: MakeRun, tmp_path: Path
) -> None:
    path = tmp_path / "mmcv.pth"
    torch.save({"meta": {"epoch": 2, "iter": 5}, "state_dict": Net().state_dict()}, path)
    runner = make_run(max_iters=7)
    runner.resume(path)
    runner.run([loader()])

    assert (runner.iter, runner.data_loader.epoch) == (7, 3)


def test_the_optimizer_may_stay_as_it_is(make_run: MakeRun, tmp_path: Path) -> None:
    make_run(CheckpointHook(interval=1)).run([loader()])
    net = Net()
    runner = make_run(model=net, optimizer=torch.optim.SGD(net.parameters(), lr=7.0))
    runner.resume(tmp_path / "run" / "epoch_1.pth", resume_optimizer=False)

    assert runner.current_lr() == [7.0]
    adam = make_run(model=net, optimizer=torch.optim.Adam(net.layers[0].parameters()))
    with pytest.raises(ForeignCheckpointError, match=r"optimizer state in .* does not fit"):
        adam.resume(tmp_path / "run" / "epoch_1.pth")


def test_another_workflow_starts_its_round_anew(make_run: MakeRun, tmp_path: Path) -> None:
    make_run(CheckpointHook(interval=1)).run([loader(), loader()], [("train", 2), ("val", 1)])
    recorder = Recorder()
    runner = make_run(recorder, max_epochs=3)
    runner.resume(tmp_path / "run" / "epoch_1.pth")
    runner.run([loader()])

    assert [p for p in recorder.points if "epoch" in p] == ["before_train_epoch", "after_train_epoch"] * 2


def test_a_run_that_is_done_trains_no_more(make_run: MakeRun, tmp_path: Path) -> None:
    make_run(CheckpointHook(interval=1)).run([loader()])
    recorder = Recorder()
    runner = make_run(recorder)
    runner.resume(tmp_path / "run" / "epoch_2.pth")
    runner.run([loader()])

    assert recorder.points == ["before_run", "after_run"]


def test_the_best_score_is_resumed(
    make_run: MakeRun, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def evaluation(*scores: float) -> EvalHook:
        data = Numbers(4, tuple({"acc": score} for score in scores))
        return EvalHook(torch.utils.data.DataLoader(data, batch_size=4), save_best="acc")

    caplog.set_level(logging.INFO)
    make_run(CheckpointHook(interval=1), evaluation(0.9, 0.1), max_epochs=2).run([loader()])
    shutil.copytree(tmp_path / "run", tmp_path / "kept")
    runner = make_run(CheckpointHook(interval=1), evaluation(0.1, 0.5, 0.95), max_epochs=4)
    runner.resume(tmp_path / "run" / "epoch_2.pth")
    runner.run([loader()])

    assert sorted(p.name for p in (tmp_path / "kept").glob("best*.pth")) == ["best_acc_epoch_1.pth"]
    assert sorted(p.name for p in (tmp_path / "run").glob("best*.pth")) == ["best_acc_epoch_4.pth"]
