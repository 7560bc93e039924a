"""EvalHook: when it evaluates, what it hands on, and which checkpoint is the best."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from asynchooks.checkpoint import list_checkpoints, restore
from asynchooks.errors import BackgroundHookError, ConfigError, UnknownNameError, UnknownOptionError
from asynchooks.execution import Effects, RunnerHook
from asynchooks.hooks.mmcv import CheckpointHook, DistEvalHook, EvalHook
from asynchooks.testing import late_copies

from .conftest import MakeRun, Numbers, loader, names


def evaluation(*scores: Any, kind: Any = EvalHook, size: int = 4, **options: Any) -> Any:
    data = Numbers(size, tuple(s if isinstance(s, dict) else {"acc": s} for s in scores))
    return kind(DataLoader(data, batch_size=3), **options)


class When(Numbers):
    """Notes where the run stands when it is evaluated."""

    def __init__(self) -> None:
        super().__init__(4)
        self.runner: Any = None
        self.seen: list[tuple[int, int]] = []

    def evaluate(self, results: Any, logger: Any = None, **options: Any) -> dict[str, Any]:
        self.seen.append((self.runner.epoch, self.runner.iter))
        return {}


@pytest.mark.parametrize(
    ("options", "resumed", "expected"),
    [  # as MMCV 1.7.2 does
        ({}, 0, [0, 1, 2, 3, 4, 5]),
        ({"interval": 2}, 0, [1, 3, 5]),
        ({"start": 3}, 0, [2, 3, 4, 5]),
        ({"start": 3, "interval": 2}, 0, [2, 4]),
        ({"start": 0}, 0, ["before 0", 0, 1, 2, 3, 4, 5]),
        ({"start": 1, "interval": 2}, 0, [0, 2, 4]),
        ({"start": 2}, 3, ["before 3", 3, 4, 5]),
        ({"start": 2, "interval": 2}, 3, ["before 3", 3, 5]),
        ({"start": 2, "interval": 2}, 2, [3, 5]),
        ({"start": 5}, 3, [4, 5]),
        ({"interval": 2}, 3, [3, 5]),
        ({"interval": 1, "dynamic_intervals": [(2, 2), (5, 1)]}, 0, [0, 1, 3, 4, 5]),
    ],
)
@pytest.mark.parametrize("by_epoch", [True, False])
def test_when_an_evaluation_runs(
    make_run: MakeRun, options: Any, resumed: int, expected: list[Any], by_epoch: bool
) -> None:
    data = When()
    hook = EvalHook(DataLoader(data, batch_size=4), by_epoch=by_epoch, **options)
    data.runner = runner = make_run(hook, **({"max_epochs": 6} if by_epoch else {"max_iters": 6}))
    runner.load_counters(resumed if by_epoch else 0, resumed)
    runner.run([loader(4)])

    places = [epoch if by_epoch else iteration for epoch, iteration in data.seen]
    assert places == [int(str(each).removeprefix("before ")) for each in expected]


@pytest.mark.parametrize(("by_epoch", "kind"), [(True, "epoch"), (False, "iter")])
@pytest.mark.parametrize(
    ("scores", "rule", "best"),
    [
        ([0.1, 0.9, 0.3, 0.9], None, 2),
        ([0.1, 0.9, 0.3, 0.95], "greater", 4),
        ([0.4, 0.9, 0.3, 0.5], "less", 3),
        ([1.0, 0.5, 0.0, 0.5], "less", 3),
        ([-1.0, 0.0, -0.5, -0.5], "greater", 2),
    ],
)
def test_the_best_checkpoint_is_kept(
    make_run: MakeRun, tmp_path: Path, scores: Any, rule: Any, best: int, by_epoch: bool, kind: str
) -> None:
    hook = evaluation(*scores, save_best="acc", rule=rule, by_epoch=by_epoch)
    runner = make_run(hook, **({"max_epochs": 4} if by_epoch else {"max_iters": 4}))
    runner.run([loader(4)])

    name = f"best_acc_{kind}_{best}.pth"
    assert names(tmp_path / "run") == [name]
    assert runner.meta is not None
    messages = runner.meta["hook_msgs"]
    assert (messages["best_score"], Path(messages["best_ckpt"]).name) == (scores[best - 1], name)
    content = restore(str(tmp_path / "run" / name))
    assert content["meta"][kind] == best
    assert "optimizer" in content


def test_the_best_is_saved_beside_those_of_the_interval(make_run: MakeRun, tmp_path: Path) -> None:
    hook = evaluation(
        {"a": 1, "acc": 0.5}, {"a": 3, "acc": 0.1}, {"a": 2, "acc": 0.9}, save_best="auto", rule="greater"
    )
    make_run(CheckpointHook(interval=3), hook, max_epochs=3).run([loader()])

    assert names(tmp_path / "run") == ["best_a_epoch_2.pth", "epoch_3.pth"]
    infos = {info.name: info for info in list_checkpoints(str(tmp_path / "run"))}
    assert infos["best_a_epoch_2.pth"].metrics == {"a": 3, "acc": 0.1}


def test_an_old_best_stays_until_the_new_one_is_whole(make_run: MakeRun, tmp_path: Path) -> None:
    class Blocking(RunnerHook):
        effects = Effects()

        def before_train_epoch(self, runner: Any) -> None:
            if runner.epoch == 1:  # a folder stands where the next best is to go
                runner.executor.drain()
                (tmp_path / "run" / "best_acc_epoch_2.pth").mkdir()

    runner = make_run(Blocking(), evaluation(0.1, 0.2, save_best="acc"))
    with pytest.raises((BackgroundHookError, ExceptionGroup)):
        runner.run([loader()])

    assert (tmp_path / "run" / "best_acc_epoch_1.pth").is_file()


def test_an_empty_result_is_said_and_saves_nothing(
    make_run: MakeRun, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_run(evaluation({}, {}, save_best="acc")).run([loader()])

    assert names(tmp_path / "run") == []
    assert "no metrics" in caplog.text


def test_metrics_go_to_the_log_buffer(make_run: MakeRun) -> None:
    logged: list[Any] = []

    class Logger(RunnerHook):
        priority = "VERY_LOW"
        effects = Effects()

        def after_train_epoch(self, runner: Any) -> None:
            logged.append((dict(runner.log_buffer.output), runner.log_buffer.ready))
            runner.log_buffer.clear_output()

    make_run(Logger(), evaluation(0.5, 0.6, interval=1)).run([loader()])

    assert logged == [({"eval_iter_num": 2, "acc": 0.5}, True), ({"eval_iter_num": 2, "acc": 0.6}, True)]


def test_loggers_write_what_is_due_before_an_evaluation_of_iterations(make_run: MakeRun) -> None:
    calls: list[Any] = []

    class Logger(RunnerHook):
        priority = "VERY_LOW"
        effects = Effects()

        def flush_log(self, runner: Any) -> None:
            runner.log_buffer.average()
            calls.append(sorted(runner.log_buffer.output))

        def after_train_iter(self, runner: Any) -> None:  # type: ignore[override]
            calls.append(sorted(runner.log_buffer.output))
            runner.log_buffer.clear()

    make_run(Logger(), evaluation(0.5, interval=2, by_epoch=False), max_iters=2).run([loader()])

    assert calls == [[], ["loss"], ["acc", "eval_iter_num"]]


def test_the_model_is_evaluated_without_gradients_and_trained_on(make_run: MakeRun) -> None:
    seen: list[tuple[bool, bool]] = []

    class Frozen(RunnerHook):
        effects = Effects()

        def after_train_iter(self, runner: Any) -> None:  # type: ignore[override]
            runner.model.layers[1].eval()
            seen.append((runner.model.training, runner.model.layers[1].training))

    def test_fn(model: nn.Module, dataloader: Any) -> list[Any]:
        seen.append((model.training, torch.is_grad_enabled()))
        return [1]

    hook = evaluation(0.5, 0.6, by_epoch=False, test_fn=test_fn, metric=["bbox"])
    make_run(Frozen(), hook, max_iters=2).run([loader()])

    assert seen == [(True, False), (False, True)] * 2
    assert hook.dataloader.dataset.results == [(1, {"metric": ["bbox"]})] * 2
    assert hook.latest_results == [1]


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"interval": 0}, ValueError, r"interval\)=0"),
        ({"interval": 1.5}, TypeError, r"interval"),
        ({"start": -1}, ValueError, r"start\)=-1"),
        ({"by_epoch": 1}, TypeError, r"True or False"),
        ({"save_best": ["acc"]}, TypeError, r"save_best"),
        ({"save_best": "acc", "rule": "more"}, KeyError, r"a rule is 'greater', 'less' or None"),
        ({"save_best": "wonder"}, ConfigError, r"whether more or less is better"),
        ({"rule": "less"}, ConfigError, r"a rule needs the metric"),
        ({"intervall": 2}, UnknownOptionError, r"Did you mean 'interval'"),
        ({"dynamic_intervals": [(3, 1), (2, 1)]}, ConfigError, r"the numbers increase"),
    ],
)
def test_a_wrong_argument_is_refused_at_construction(options: Any, error: Any, match: str) -> None:
    with pytest.raises(error, match=match):
        evaluation(**options)


def test_a_loader_without_a_data_set_is_refused() -> None:
    with pytest.raises(TypeError, match="DataLoader whose data set has evaluate"):
        EvalHook([1])


def test_a_metric_that_there_is_not_is_named(make_run: MakeRun) -> None:
    with pytest.raises(UnknownNameError, match="no such metric"):
        make_run(evaluation(0.5, save_best="mAP")).run([loader()])


def test_the_best_checkpoint_is_said(make_run: MakeRun, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    make_run(evaluation(0.5, save_best="acc"), max_epochs=1).run([loader()])

    assert "the best score is 0.5000, at epoch 1" in caplog.text


def test_the_distributed_hook_works_alone_too(make_run: MakeRun, tmp_path: Path) -> None:
    hook = evaluation(0.5, 0.7, kind=DistEvalHook, size=5, save_best="acc", tmpdir="x", gpu_collect=True)
    make_run(hook).run([loader()])

    assert names(tmp_path / "run") == ["best_acc_epoch_2.pth"]
    assert hook.dataloader.dataset.results == [(5, {})] * 2


@pytest.mark.parametrize("evaluates", [True, False])
def test_a_copy_under_way_waits_for_an_evaluation_that_is_due_alone(
    make_run: MakeRun, tmp_path: Path, *, evaluates: bool
) -> None:
    class Forward(RunnerHook):  # what runs before the step, with a copy under way
        effects = Effects()
        changes_state = False
        priority = "LOWEST"
        waited: bool | None = None

        def before_train_iter(self, runner: Any) -> None:  # type: ignore[override]
            if runner.iter == 2:
                self.waited = not runner.executor._flight.barriers.standing

    def shift(model: nn.Module, data_loader: Any) -> list[Tensor]:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1.0)
        return []

    ends = []
    for overlap in (True, False):
        forward = Forward()
        hooks = [
            CheckpointHook(
                interval=2, by_epoch=False, save_last=False, overlap=overlap, out_dir=tmp_path / str(overlap)
            ),
            evaluation({}, {}, interval=2 if evaluates else 9, by_epoch=False, test_fn=shift),
            forward,
        ]
        with late_copies():
            make_run(*hooks, max_iters=3).run([loader()])
        ends.append(restore(tmp_path / str(overlap) / "run" / "iter_2.pth")["state_dict"])
        assert not overlap or forward.waited is evaluates
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[1])
