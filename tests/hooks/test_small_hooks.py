"""Runtime info, the timer, the sampler's seed, the schedulers: what each leaves for the others."""

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler

from asynchooks.execution import Effects, Hook, HookExecutor
from asynchooks.hooks import (
    CheckpointHook,
    DistSamplerSeedHook,
    IterTimerHook,
    LoggerHook,
    ParamSchedulerHook,
    ProgressHook,
    RuntimeInfoHook,
)
from asynchooks.registry import HOOKS
from asynchooks.runner import TrainState

BUILT_IN = {
    RuntimeInfoHook: 10,
    IterTimerHook: 50,
    DistSamplerSeedHook: 50,
    LoggerHook: 60,
    ParamSchedulerHook: 70,
    CheckpointHook: 90,
    ProgressHook: 100,
}


def test_built_in_hooks_are_registered_and_run_in_mmengines_order() -> None:
    hooks = [HOOKS.build({"type": kind.__name__}) for kind in reversed(BUILT_IN)]
    executor = HookExecutor(hooks)

    priorities = [registration.priority for registration in executor.registered]
    assert priorities == sorted(BUILT_IN.values())
    assert {
        type(hook): r.priority for hook, r in zip(executor.hooks, executor.registered, strict=True)
    } == BUILT_IN


def test_every_built_in_hook_says_what_it_touches() -> None:
    effects = {kind.__name__: kind().effects for kind in BUILT_IN}

    assert all(isinstance(each, Effects) for each in effects.values())
    assert effects["CheckpointHook"] == Effects(writes={"checkpoints"})
    assert effects["ParamSchedulerHook"] == Effects()
    assert LoggerHook(sinks=["tensorboard"], out_dir="memory://x").effects == Effects(
        writes={"logs.visualizer", "logs.remote"}
    )


def test_the_hub_knows_the_position_the_rates_the_losses_and_the_metrics(train: Any) -> None:
    metrics = [{"acc": 0.5, "per_class": [1, 2]}]
    state = train(RuntimeInfoHook(), ParamSchedulerHook(), epochs=2, iters=3, metrics=metrics)

    hub = state.message_hub
    assert (hub.get_info("epoch"), hub.get_info("iter")) == (1, 5)
    assert (hub.get_info("max_epochs"), hub.get_info("max_iters")) == (2, 6)
    assert hub.get_scalar("train/lr").current() == pytest.approx(0.01)
    assert len(hub.get_scalar("train/loss")) == 6
    assert hub.get_scalar("val/acc").current() == 0.5
    assert hub.get_info("val/per_class") == [1, 2]


def test_the_stage_is_the_one_around_after_a_validation(make_state: Callable[..., TrainState]) -> None:
    state, hook = make_state(), RuntimeInfoHook()
    stages = []
    for point in ("before_run", "before_train", "before_val", "after_val", "after_train"):
        getattr(hook, point)(state)
        stages.append(state.message_hub.get_info("loop_stage"))
    for point in ("before_run", "before_val", "after_val", "before_test", "after_test"):
        getattr(hook, point)(state)
        stages.append(state.message_hub.get_info("loop_stage"))

    assert stages == [None, "train", "val", "train", None, None, "val", None, "test", None]


@pytest.mark.parametrize(
    ("outputs", "names"),
    [
        (None, set()),
        (torch.tensor(1.0), {"train/loss"}),
        (
            {"loss": torch.tensor([1.0]), "n": 3, "image": torch.zeros(2, 2), "note": "x"},
            {"train/loss", "train/n"},
        ),
    ],
)
def test_what_is_no_scalar_among_the_outputs_is_left_out(
    make_state: Callable[..., TrainState], outputs: Any, names: set[str]
) -> None:
    state = make_state()
    RuntimeInfoHook().after_train_iter(state, batch_idx=0, outputs=outputs)

    assert set(state.message_hub.log_scalars) == names


def test_the_timer_writes_times_and_what_is_left(train: Any) -> None:
    seen: list[float] = []

    class Reader(Hook):
        effects = Effects()
        priority = "LOW"

        def after_train_iter(self, runner: Any, *_: Any, **__: Any) -> None:
            seen.append(runner.message_hub.get_info("eta"))

    state = train(IterTimerHook(), Reader(), epochs=2, iters=2, metrics=[{"acc": 1.0}])

    hub = state.message_hub
    assert {"train/time", "train/data_time", "val/time", "val/data_time"} <= set(hub.log_scalars)
    assert len(hub.get_scalar("train/time")) == 4
    assert seen[-1] == 0.0
    assert all(left > 0 for left in seen[:-1])


def test_without_a_limit_there_is_no_estimate(make_state: Callable[..., TrainState]) -> None:
    state, hook = make_state(), IterTimerHook()
    state._max_epochs = None
    hook.before_train_iter(state, batch_idx=0)
    hook.after_train_iter(state, batch_idx=0)

    assert state.message_hub.get_info("eta") is None
    assert len(state.message_hub.get_scalar("train/time")) == 1


def distributed_sampler() -> DistributedSampler[int]:
    return DistributedSampler(range(8), num_replicas=2, rank=0)  # type: ignore[arg-type]


@pytest.mark.parametrize("nested", [False, True])
def test_each_epoch_seeds_the_sampler(make_state: Callable[..., TrainState], *, nested: bool) -> None:
    sampler = distributed_sampler()
    state = make_state()
    if nested:
        batches = BatchSampler(sampler, 2, drop_last=False)
        state.train_dataloader = DataLoader(range(8), batch_sampler=batches)  # type: ignore[arg-type]
    else:
        state.train_dataloader = DataLoader(range(8), sampler=sampler)  # type: ignore[arg-type]
    state._epoch = 3
    DistSamplerSeedHook().before_train_epoch(state)

    assert sampler.epoch == 3


def test_a_loader_without_a_seed_is_left_alone(make_state: Callable[..., TrainState]) -> None:
    loaders: list[Any] = [None, range(3), DataLoader(range(3))]  # type: ignore[arg-type]
    for loader in loaders:
        state = make_state()
        state.train_dataloader = loader
        DistSamplerSeedHook().before_train_epoch(state)


class Stepping:
    """A scheduler that counts its steps."""

    def __init__(self, **attributes: Any) -> None:
        self.steps: list[Any] = []
        vars(self).update(attributes)

    def step(self, metrics: Mapping[str, float] | None = None) -> None:
        self.steps.append(metrics)


@pytest.fixture
def schedulers() -> SimpleNamespace:
    return SimpleNamespace(
        by_iter=Stepping(by_epoch=False),
        by_epoch=Stepping(by_epoch=True),
        plain=Stepping(),
        plateau=Stepping(by_epoch=True, need_val_args=True),
    )


def test_each_scheduler_steps_after_what_it_counts(schedulers: SimpleNamespace) -> None:
    hook = ParamSchedulerHook()
    runner = SimpleNamespace(param_schedulers=list(vars(schedulers).values()))
    for _ in range(3):
        hook.after_train_iter(runner, batch_idx=0)
    hook.after_train_epoch(runner)
    hook.after_val_epoch(runner, metrics={"loss": 1.0})
    hook.after_val_epoch(runner, metrics=None)

    counts = {name: len(scheduler.steps) for name, scheduler in vars(schedulers).items()}
    assert counts == {"by_iter": 3, "by_epoch": 1, "plain": 1, "plateau": 1}
    assert schedulers.plateau.steps == [{"loss": 1.0}]


def test_several_optimizers_have_a_list_of_schedulers_each(schedulers: SimpleNamespace) -> None:
    groups = {"a": [schedulers.by_epoch], "b": [schedulers.plain]}
    ParamSchedulerHook().after_train_epoch(SimpleNamespace(param_schedulers=groups))

    assert len(schedulers.by_epoch.steps) == len(schedulers.plain.steps) == 1


def test_no_scheduler_is_fine_and_a_wrong_container_is_not() -> None:
    hook = ParamSchedulerHook()
    hook.after_train_epoch(SimpleNamespace(param_schedulers=None))
    with pytest.raises(TypeError, match="list of schedulers"):
        hook.after_train_epoch(SimpleNamespace(param_schedulers=Stepping()))
