"""When MMCV's loggers write, and what they find."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from asynchooks.errors import ConfigError
from asynchooks.execution import Effects, RunnerHook
from asynchooks.hooks.mmcv.loggers import LoggerHook
from asynchooks.registry import MMCV_HOOKS

Run = Callable[..., Any]


class Lines(LoggerHook):
    """A logger as a user of MMCV writes it."""

    effects = Effects(writes={"logs.own"})

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.lines: list[Any] = []

    def log(self, runner: Any) -> Any:
        tags = self.get_loggable_tags(runner)
        self.lines.append((self.get_mode(runner), self.get_epoch(runner), self.get_iter(runner), tags))
        return tags

    def steps(self) -> list[tuple[str, int]]:
        return [(mode, step) for mode, _, step, _ in self.lines]


class Results(RunnerHook):
    """Puts the results of an evaluation into the log buffer, as MMCV's EvalHook does."""

    priority = "LOW"
    effects = Effects()

    def after_train_epoch(self, runner: Any) -> None:
        runner.log_buffer.output.update(mAP=0.5, eval_iter_num=7)
        runner.log_buffer.ready = True


def test_lines_come_every_interval_with_the_averages_of_so_many_iterations(run: Run) -> None:
    logger = Lines(interval=2)
    run(logger, batches=5, max_epochs=2)

    assert logger.steps() == [("train", 2), ("train", 4), ("train", 7), ("train", 9)]
    assert [tags["train/loss"] for *_, tags in logger.lines] == [1.5, 3.5, 6.5, 8.5]
    assert logger.lines[0][3] == {"train/loss": 1.5, "learning_rate": 0.5, "momentum": 0.9}


def test_the_last_iterations_of_an_epoch_are_logged_where_they_are_not_ignored(run: Run) -> None:
    logger = Lines(interval=3, ignore_last=False)
    run(logger, batches=4)

    assert [(step, tags["train/loss"]) for _, _, step, tags in logger.lines] == [(3, 2.0), (4, 3.0)]


def test_iterations_are_counted_through_where_epochs_are_not(run: Run) -> None:
    logger = Lines(interval=3, by_epoch=False)
    run(logger, batches=2, max_iters=7)

    assert logger.steps() == [("train", 3), ("train", 6)]


def test_results_of_an_evaluation_are_logged_alone_after_the_epoch(run: Run) -> None:
    logger = Lines(interval=2)
    run(Results(), logger)

    assert logger.lines[-1] == ("val", 1, 5, {"val/mAP": 0.5, "learning_rate": 0.5, "momentum": 0.9})


def test_a_validation_phase_is_logged_with_all_its_averages(run: Run) -> None:
    logger = Lines(interval=2)
    run(logger, workflow=(("train", 1), ("val", 1)))
    mode, epoch, _, tags = logger.lines[-1]

    assert (mode, epoch, tags["val/acc"]) == ("val", 1, 0.5)


def test_loggers_of_different_intervals_do_not_move_each_other(run: Run) -> None:
    often, seldom = Lines(interval=1), Lines(interval=4)
    run(often, seldom, batches=4)

    assert len(often.lines) == 4
    assert [tags["train/loss"] for *_, tags in seldom.lines] == [2.5]


def test_without_a_timer_a_line_of_the_training_is_one_of_the_training(run: Run) -> None:
    logger = Lines(interval=2)
    run(logger, times=False)

    assert {mode for mode, *_ in logger.lines} == {"train"}


def test_the_last_logger_forgets_the_output(run: Run) -> None:
    first, last = Lines(), Lines()
    runner = run(Results(), first, last)

    assert (first.reset_flag, last.reset_flag) == (False, True)
    assert (runner.log_buffer.output, runner.log_buffer.ready) == ({}, False)


def test_a_log_that_returns_an_async_function_has_it_run_in_the_background(run: Run) -> None:
    written: list[int] = []

    class Later(Lines):
        def log(self, runner: Any) -> Any:
            step = self.get_iter(runner)

            async def write() -> None:
                written.append(step)

            return write

    run(Later(interval=2))

    assert written == [2, 4]


def test_an_evaluation_between_iterations_does_not_mix_with_the_training(run: Run) -> None:
    class EvaluatesTheIterations(RunnerHook):
        priority = "LOW"
        effects = Effects()

        def after_train_iter(self, runner: Any) -> None:  # type: ignore[override]
            if runner.iter == 3:
                runner.flush_log()
                runner.log_buffer.output["mAP"] = 0.5
                runner.log_buffer.ready = True

    logger = Lines(interval=4, by_epoch=False)
    run(EvaluatesTheIterations(), logger, max_iters=5)

    assert [(mode, step, max(tags)) for mode, _, step, tags in logger.lines] == [
        ("train", 4, "train/loss"),
        ("val", 4, "val/mAP"),
    ]


@pytest.mark.parametrize(
    ("value", "scalar"),
    [
        (1, True),
        (np.float32(1), True),
        (np.array(1.0), True),
        (torch.tensor(1.0), True),
        (torch.ones(1), True),
        (torch.ones(2), False),
        (np.ones(1), False),
        ("1", False),
    ],
)
def test_a_scalar_is_one_number_also_a_tensor_without_dimensions(value: Any, scalar: bool) -> None:
    assert LoggerHook.is_scalar(value) is scalar


def test_tags_of_texts_and_scalars_are_chosen(run: Run) -> None:
    class Asks(Lines):
        def log(self, runner: Any) -> Any:
            runner.log_buffer.output.update(text="hello", loss=1.0)
            self.lines.append(
                [
                    self.get_loggable_tags(runner, allow_text=True, add_mode=False, tags_to_skip=("loss",)),
                    self.get_loggable_tags(runner, allow_scalar=False),
                ]
            )

    logger = Asks(interval=4)
    run(logger)
    rates = {"learning_rate": 0.5, "momentum": 0.9}

    assert logger.lines == [[{"text": "hello", "time": 2.0, "data_time": 0.25, **rates}, rates]]


@pytest.mark.parametrize(("interval", "error"), [(0, ConfigError), (1.5, TypeError), (True, TypeError)])
def test_an_interval_is_a_positive_int(interval: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="interval="):
        Lines(interval=interval)


def test_all_loggers_are_in_the_registry_of_mmcv() -> None:
    names = {"Text", "Tensorboard", "Wandb", "Mlflow", "Pavi", "Neptune", "Dvclive", "Segmind", "ClearML"}

    assert {f"{name}LoggerHook" for name in names} | {"MMDetWandbHook"} <= set(MMCV_HOOKS.names())
