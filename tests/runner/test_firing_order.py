from __future__ import annotations

from typing import Any

import pytest
from torch.utils.data import DataLoader

from asynchooks.errors import BackgroundHookError, ConfigError
from asynchooks.execution import Effects, Hook, background
from asynchooks.hooks import CheckpointHook

from .conftest import MakeRunner, Noisy, Recorder

VAL = [
    "before_val",
    "before_val_epoch",
    *["before_val_iter", "after_val_iter"] * 2,
    "after_val_epoch",
    "after_val",
]
ITER = ["before_train_iter", "after_train_iter"]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def loaders() -> dict[str, Any]:
    return {
        "train_dataloader": DataLoader(Noisy(8), batch_size=4),
        "val_dataloader": DataLoader(Noisy(8), batch_size=4),
    }


@pytest.mark.parametrize("mode", ["async", "sync"])
def test_an_epoch_based_training_fires_in_mmengines_order(
    make_runner: MakeRunner, recorder: Recorder, mode: str
) -> None:
    hooks = [recorder, CheckpointHook(interval=1, save_best="loss")]

    make_runner(custom_hooks=hooks, train_cfg={"max_epochs": 1}, mode=mode, **loaders()).train()

    saved = ["before_save_checkpoint"]
    assert [p for p in recorder.points if p != "after_save_checkpoint"] == [
        *["before_run", "before_train", "before_train_epoch", *ITER * 2],
        *[*saved, "after_train_epoch", *VAL[:-2], *saved, *VAL[-2:], "after_train", "after_run"],
    ]
    assert recorder.points.count("after_save_checkpoint") == 2


def test_an_iteration_based_training_fires_in_mmengines_order(
    make_runner: MakeRunner, recorder: Recorder
) -> None:
    hooks = [recorder, CheckpointHook(interval=1, by_epoch=False)]
    train_cfg = {"by_epoch": False, "max_iters": 2, "val_interval": 2}

    make_runner(custom_hooks=hooks, train_cfg=train_cfg, mode="sync", **loaders()).train()

    step = ["before_train_iter", "before_save_checkpoint", "after_train_iter"]
    assert [p for p in recorder.points if p != "after_save_checkpoint"] == [
        *["before_run", "before_train", "before_train_epoch", *step * 2],
        *[*VAL, "after_train_epoch", "after_train", "after_run"],
    ]


def test_counters_go_on_after_the_firing(make_runner: MakeRunner, recorder: Recorder) -> None:
    make_runner(
        custom_hooks=[recorder], val_dataloader=None, train_dataloader=[*DataLoader(Noisy(8), 4)]
    ).train()

    assert [c for c in recorder.counters if c[0].startswith("after_train_")] == [
        ("after_train_iter", 0, 0),
        ("after_train_iter", 0, 1),
        ("after_train_epoch", 0, 2),
        ("after_train_iter", 1, 2),
        ("after_train_iter", 1, 3),
        ("after_train_epoch", 1, 4),
    ]


def test_val_and_test_fire_their_own_points_between_before_run_and_after_run(
    make_runner: MakeRunner, recorder: Recorder
) -> None:
    runner = make_runner(custom_hooks=[recorder], test_dataloader=DataLoader(Noisy(8), 4), **loaders())

    runner.val()
    runner.test()

    test = [point.replace("val", "test") for point in VAL]
    assert recorder.points == ["before_run", *VAL, "after_run", "before_run", *test, "after_run"]


def test_loading_fires_before_the_weights_go_in_and_before_training(
    make_runner: MakeRunner, recorder: Recorder
) -> None:
    saved = make_runner(custom_hooks=[CheckpointHook(interval=1)], **loaders())
    saved.train()

    class Eraser(Hook):
        effects = Effects()

        def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
            for tensor in checkpoint["state_dict"].values():
                tensor.zero_()

    runner = make_runner(
        custom_hooks=[recorder, Eraser()],
        load_from=f"{saved.work_dir}/epoch_2.pth",
        train_cfg={"max_epochs": 1},
    )
    runner.load_checkpoint(f"{saved.work_dir}/epoch_2.pth")

    assert all(not tensor.any() for tensor in runner.model.state_dict().values())
    recorder.points.clear()
    runner.train()
    assert recorder.points[:3] == ["before_run", "after_load_checkpoint", "before_train"]


@pytest.mark.parametrize(
    ("train_cfg", "validated"),
    [
        ({"max_epochs": 5, "val_interval": 2}, [2, 4, 5]),
        ({"max_epochs": 5, "val_interval": 1, "val_begin": 4}, [4, 5]),
        ({"max_epochs": 7, "val_interval": 3, "dynamic_intervals": [(5, 1)]}, [3, 4, 5, 6, 7]),
        ({"by_epoch": False, "max_iters": 5, "val_interval": 3}, [3, 5]),
        ({"by_epoch": False, "max_iters": 5, "val_interval": 100}, [5]),
    ],
)
def test_validation_is_due_at_its_interval_and_always_at_the_end(
    make_runner: MakeRunner, recorder: Recorder, train_cfg: dict[str, Any], validated: list[int]
) -> None:
    runner = make_runner(custom_hooks=[recorder], train_cfg=train_cfg, **loaders())

    runner.train()

    counter = 1 if runner.by_epoch else 2
    assert [c[counter] for c in recorder.counters if c[0] == "before_val"] == validated


@pytest.mark.parametrize("train_cfg", [{"max_epochs": 9}, {"by_epoch": False, "max_iters": 9}])
def test_stop_training_ends_at_the_next_boundary(make_runner: MakeRunner, train_cfg: dict[str, Any]) -> None:
    class Stopper(Hook):
        effects = Effects()

        def after_train_iter(
            self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
        ) -> None:
            runner.train_loop.stop_training = True

    runner = make_runner(custom_hooks=[Stopper()], train_cfg=train_cfg, **loaders())

    runner.train()

    assert runner.iter == (2 if runner.by_epoch else 1)


def test_after_run_is_not_reached_when_training_fails_and_what_is_in_flight_still_finishes(
    make_runner: MakeRunner, recorder: Recorder
) -> None:
    done = []

    class Saver(Hook):
        effects = Effects()

        @background
        def before_train(self, runner: Any) -> Any:
            async def part() -> None:
                done.append(runner.iter)

            return part

    class Failing(Hook):
        effects = Effects()

        def after_train_iter(
            self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
        ) -> None:
            raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        make_runner(custom_hooks=[recorder, Saver(), Failing()]).train()

    assert done
    assert recorder.points[-1] == "before_train_iter"


def test_a_background_failure_ends_the_training_with_its_name(make_runner: MakeRunner) -> None:
    class Failing(Hook):
        effects = Effects()

        @background
        def after_train_epoch(self, runner: Any) -> Any:
            async def part() -> None:
                raise OSError("the disk is gone")

            return part

    with pytest.raises(BackgroundHookError, match=r"Failing\.after_train_epoch"):
        make_runner(custom_hooks=[Failing()]).train()


def test_custom_points_are_fired_by_call_hook(make_runner: MakeRunner) -> None:
    seen = []

    class Custom(Hook):
        effects = Effects()

        def on_anything(self, runner: Any, value: int) -> None:
            seen.append(value)

        def after_train_iter(
            self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
        ) -> None:
            runner.call_hook("on_anything", value=runner.iter)

    make_runner(custom_hooks=[Custom()], train_cfg={"max_epochs": 1}).train()

    assert seen == [0, 1, 2, 3, 4]


def test_run_says_what_to_call(make_runner: MakeRunner) -> None:
    with pytest.raises(ConfigError, match=r"train\(\), val\(\) or test\(\)"):
        make_runner().run()
