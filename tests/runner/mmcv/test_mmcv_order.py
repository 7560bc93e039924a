"""The order in which MMCV's runners reach their points, for every kind of workflow."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from asynchooks.execution import Effects, Hook, RunnerHook, background

from .conftest import MakeRun, Recorder, Step, loader

EPOCH = ["before_train_epoch", *["before_train_iter", "after_train_iter"] * 2, "after_train_epoch"]
VALIDATION = ["before_val_epoch", *["before_val_iter", "after_val_iter"] * 2, "after_val_epoch"]
TRAIN = ["before_train_iter", "after_train_iter"]
VAL = ["before_val_iter", "after_val_iter"]


@pytest.mark.parametrize(
    ("workflow", "expected"),
    [
        ([("train", 1)], EPOCH * 3),
        ([("train", 2), ("val", 1)], [*EPOCH * 2, *VALIDATION, *EPOCH, *VALIDATION]),
        ([("train", 1), ("val", 2)], [*EPOCH, *VALIDATION * 2] * 3),
        ([("val", 1), ("train", 5)], [*VALIDATION, *EPOCH * 3]),
    ],
)
def test_an_epoch_based_run_goes_through_its_phases(make_run: MakeRun, workflow: Any, expected: Any) -> None:
    recorder = Recorder()
    make_run(recorder, max_epochs=3).run([loader() for _ in workflow], workflow)

    assert recorder.points == ["before_run", *expected, "after_run"]


@pytest.mark.parametrize(
    ("workflow", "expected"),
    [
        ([("train", 1)], TRAIN * 5),
        ([("train", 2), ("val", 1)], [*TRAIN * 2, *VAL, *TRAIN * 2, *VAL, *TRAIN, *VAL]),
    ],
)
def test_an_iteration_based_run_goes_through_its_phases(
    make_run: MakeRun, workflow: Any, expected: Any
) -> None:
    recorder = Recorder()
    make_run(recorder, max_iters=5).run([loader() for _ in workflow], workflow)

    assert recorder.points == [
        "before_run",
        "before_train_epoch",
        *expected,
        "after_train_epoch",
        "after_run",
    ]


def test_only_training_counts(make_run: MakeRun) -> None:
    runner = make_run(max_epochs=2)
    runner.run([loader(), loader()], [("train", 1), ("val", 3)])

    assert (runner.epoch, runner.iter, runner.max_iters, runner.mode) == (2, 4, 4, "val")


def test_the_epoch_of_an_iteration_based_run_is_the_loaders(make_run: MakeRun) -> None:
    seen: list[tuple[int, int, int]] = []

    class Reader(Hook):
        effects = Effects()

        def after_train_iter(self, runner: Any) -> None:  # type: ignore[override]
            seen.append((runner.epoch, runner.iter, runner.inner_iter))

    make_run(Reader(), max_iters=5).run([loader(), loader()], [("train", 3), ("val", 1)])

    # As in MMCV, a pass counts when the batch after its last one has been drawn.
    assert seen == [(0, 0, 0), (0, 1, 1), (0, 2, 2), (1, 3, 0), (1, 4, 1)]


def test_generic_methods_serve_the_points_that_are_not_overridden(make_run: MakeRun) -> None:
    calls: list[str] = []

    class Generic(RunnerHook):
        effects = Effects()

        def before_epoch(self, runner: Any) -> None:
            calls.append(f"before {runner.mode} epoch")

        def after_iter(self, runner: Any) -> None:
            calls.append(f"after {runner.mode} iter")

        def after_val_iter(self, runner: Any) -> None:  # type: ignore[override]
            calls.append("own")
            super().after_val_iter(runner)

    make_run(Generic(), max_epochs=1).run([loader(), loader(4)], [("train", 1), ("val", 1)])

    assert calls == [
        "before train epoch",
        *["after train iter"] * 2,
        "before val epoch",
        "own",
        "after val iter",
    ]


def test_before_and_after_epoch_stand_around_an_iteration_based_run(make_run: MakeRun) -> None:
    calls: list[tuple[str, int]] = []

    class Generic(RunnerHook):
        effects = Effects()

        def before_epoch(self, runner: Any) -> None:
            calls.append(("before", runner.iter))

        def after_epoch(self, runner: Any) -> None:
            calls.append(("after", runner.iter))

    make_run(Generic(), max_iters=5).run([loader()])

    assert calls == [("before", 0), ("after", 5)]


def test_hooks_of_both_conventions_run_by_priority(make_run: MakeRun) -> None:
    calls: list[Any] = []

    class Both(Hook):
        effects = Effects()

        def after_train_iter(
            self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
        ) -> None:
            calls.append(("both", batch_idx, data_batch is runner.data_batch, outputs is runner.outputs))

    class Alone(Hook):  # of the general base: the runner knows what its methods take
        effects = Effects()
        priority = "VERY_LOW"

        def after_train_iter(self, runner: Any) -> None:  # type: ignore[override]
            calls.append(("alone", runner.inner_iter))

        def before_epoch(self, runner: Any) -> None:
            calls.append("epoch")

    make_run(Alone(), Both(), max_epochs=1).run([loader()])

    assert calls == ["epoch", ("both", 0, True, True), ("alone", 0), ("both", 1, True, True), ("alone", 1)]


def test_background_methods_take_the_runner_alone_too(make_run: MakeRun) -> None:
    written: list[Any] = []

    class Background(RunnerHook):
        effects = Effects(writes={"numbers"})

        @background
        def after_iter(self, runner: Any) -> Any:
            number = runner.iter

            async def write() -> None:
                written.append(number)

            return write

        async def after_epoch(self, runner: Any) -> None:
            written.append(("epoch", runner.iter))

    make_run(Background(), max_epochs=2).run([loader()])

    assert written == [0, 1, ("epoch", 2), 2, 3, ("epoch", 4)]


def test_one_hook_serves_two_runners(make_run: MakeRun) -> None:
    recorder = Recorder()
    for _ in range(2):
        make_run(recorder, max_epochs=1).run([loader()])

    assert recorder.points == ["before_run", *EPOCH, "after_run"] * 2


def test_a_hook_may_end_the_training(make_run: MakeRun) -> None:
    class Stop(RunnerHook):
        effects = Effects()

        def after_train_epoch(self, runner: Any) -> None:
            runner.train_loop.stop_training = True

    runner = make_run(Stop(), max_epochs=5)
    runner.run([loader()])

    assert runner.epoch == 1


def test_a_method_of_a_runners_own_is_a_mode(make_run: MakeRun) -> None:
    runner = make_run(max_epochs=2)
    seen: list[int] = []
    runner.survey = lambda data_loader, **_: seen.append(len(data_loader))  # type: ignore[attr-defined]

    runner.run([loader(), loader(4)], [("train", 1), ("survey", 1)])

    assert seen == [1, 1]


def test_points_may_be_fired_by_hand_inside_of_a_run(make_run: MakeRun) -> None:
    recorder, calls = Recorder(), []

    class Caller(Step):
        def after_train_epoch(self, runner: Any) -> None:
            runner.call_hook("after_train_iter")
            runner.call_hook("before_epoch")

    class Epoch(RunnerHook):
        def before_epoch(self, runner: Any) -> None:
            calls.append(runner.iter)

    runner = make_run(recorder, Caller(), Epoch(), trains=False, max_epochs=1)
    runner.model.train_step = lambda data, optimizer: {"loss": torch.ones((), requires_grad=True)}  # type: ignore[assignment]
    runner.run([loader(4)])

    assert recorder.points.count("after_train_iter") == 2
    assert calls == [0, 1]
