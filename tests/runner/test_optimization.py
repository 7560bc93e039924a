"""Runs with several optimizers, mixed precision, parameter groups and scaled learning rates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from asynchooks.errors import ConfigError, UnknownOptionError
from asynchooks.execution import Effects, Hook
from asynchooks.hooks import CheckpointHook
from asynchooks.optim import OptimWrapper, OptimWrapperDict
from asynchooks.runner import Runner
from asynchooks.testing import late_copies

from .conftest import MakeRunner, Net, Noisy


class Gan(nn.Module):
    """Two parts with an optimizer each; the critic steps on every second batch."""

    def __init__(self) -> None:
        super().__init__()
        self.generator, self.critic = nn.Linear(4, 4), nn.Linear(4, 1)

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, Tensor]:
        inputs = data[0]
        fake = self.generator(inputs)
        loss = self.critic(fake).square().mean()
        optim_wrapper["generator"].update_params(loss)
        gap = (self.critic(inputs) - self.critic(fake.detach()) - 1).square().mean()
        optim_wrapper["critic"].update_params(gap)
        return {"loss": loss.detach(), "gap": gap.detach()}


class End(Hook):
    """At the end no step comes any more for which a late copy would be made; this may change state, so it waits."""

    effects = Effects()

    def after_train(self, runner: Any) -> None:
        pass


def wrappers(model: Gan) -> OptimWrapperDict:
    return OptimWrapperDict(
        generator=OptimWrapper(
            torch.optim.AdamW(model.generator.parameters(), lr=0.1), clip_grad={"max_norm": 1}
        ),
        critic=OptimWrapper(torch.optim.SGD(model.critic.parameters(), lr=0.05), accumulative_counts=3),
    )


def gan(make_runner: MakeRunner, **options: Any) -> Runner:
    torch.manual_seed(4)
    model = Gan()
    return make_runner(model=model, optim_wrapper=wrappers(model), val_dataloader=None, **options)


def assert_same(one: Any, other: Any) -> None:
    if isinstance(one, Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert_same(value, other[key])
    elif isinstance(one, list | tuple):
        for mine, theirs in zip(one, other, strict=True):
            assert_same(mine, theirs)
    else:
        assert one == other


@pytest.mark.parametrize("step", [1, 4, 5])
def test_a_run_with_several_optimizers_continues_bit_by_bit(
    make_runner: MakeRunner, tmp_path: Path, step: int
) -> None:
    schedule = {"generator": {"type": "ExponentialLR", "gamma": 0.9, "by_epoch": False}}
    save = CheckpointHook(interval=1, by_epoch=False, out_dir=tmp_path)
    whole = gan(make_runner, custom_hooks=[save, End()], param_scheduler=schedule)
    with late_copies():
        whole.train()

    resumed = gan(make_runner, resume=tmp_path / "run" / f"iter_{step}.pth", param_scheduler=schedule)
    resumed.train()

    assert_same(resumed.model.state_dict(), whole.model.state_dict())
    assert_same(resumed.optim_wrapper.state_dict(), whole.optim_wrapper.state_dict())
    assert whole.message_hub.get_scalar("train/generator.lr").current() < 0.1
    assert whole.message_hub.get_scalar("train/grad_norm").current() > 0


def test_a_plain_model_with_several_optimizers_is_told_what_it_needs(make_runner: MakeRunner) -> None:
    model = Net()
    one = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))

    runner = make_runner(model=model, optim_wrapper={"all": one})

    with pytest.raises(ConfigError, match=r"optim_wrapper\['all'\].*own train_step"):
        runner.train()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_run_in_mixed_precision_continues_bit_by_bit(
    make_runner: MakeRunner, tmp_path: Path, dtype: str
) -> None:
    options = {
        "optim_wrapper": {
            "type": "AmpOptimWrapper",
            "dtype": dtype,
            "loss_scale": {"init_scale": 64.0, "growth_interval": 2},
            "optimizer": {"type": "AdamW", "lr": 0.1},
            "accumulative_counts": 2,
            "clip_grad": {"max_norm": 1.0},
        }
    }
    save = CheckpointHook(interval=1, by_epoch=False, out_dir=tmp_path)
    whole = make_runner(custom_hooks=[save], **options)
    whole.train()

    for step in (3, 6):
        resumed = make_runner(resume=tmp_path / "run" / f"iter_{step}.pth", **options)
        resumed.train()
        assert_same(resumed.model.state_dict(), whole.model.state_dict())
        assert_same(resumed.optim_wrapper.state_dict(), whole.optim_wrapper.state_dict())
    assert whole.optim_wrapper.loss_scaler.get_scale() > 64.0


def test_groups_of_their_own_are_trained_logged_and_continued(
    make_runner: MakeRunner, tmp_path: Path
) -> None:
    options = {
        "optim_wrapper": {
            "optimizer": {"type": "SGD", "lr": 0.1, "weight_decay": 0.01},
            "paramwise_cfg": {"norm_decay_mult": 0.0, "custom_keys": {"layers.4": {"lr_mult": 0.5}}},
        },
        "param_scheduler": {"type": "StepLR", "step_size": 1, "gamma": 0.1},
    }
    save = CheckpointHook(interval=1, out_dir=tmp_path)
    whole = make_runner(custom_hooks=[save], **options)
    whole.train()

    resumed = make_runner(resume=tmp_path / "run" / "epoch_1.pth", **options)
    resumed.train()

    assert_same(resumed.model.state_dict(), whole.model.state_dict())
    assert whole.message_hub.get_scalar("train/base_lr").current() == pytest.approx(0.01)
    assert resumed.optim_wrapper.get_lr() == whole.optim_wrapper.get_lr()
    assert whole.optim_wrapper.get_lr()["lr"][-1] == pytest.approx(0.0005)


@pytest.mark.parametrize("as_dict", [False, True])
def test_learning_rates_are_scaled_with_the_batch_size(make_runner: MakeRunner, *, as_dict: bool) -> None:
    loader: Any = {"dataset": Noisy(), "batch_size": 4} if as_dict else DataLoader(Noisy(), batch_size=4)

    runner = make_runner(
        train_dataloader=loader,
        auto_scale_lr={"base_batch_size": 16, "enable": True},
        param_scheduler={"type": "ConstantLR", "factor": 0.5},
    )

    assert runner.optim_wrapper.get_lr() == {"lr": [0.1 / 4 / 2]}


@pytest.mark.parametrize(
    "auto_scale_lr", [None, {"base_batch_size": 16}, {"base_batch_size": 16, "enable": False}]
)
def test_learning_rates_stay_unless_scaling_is_switched_on(
    make_runner: MakeRunner, auto_scale_lr: Any
) -> None:
    assert make_runner(auto_scale_lr=auto_scale_lr).optim_wrapper.get_lr() == {"lr": [0.1]}


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"auto_scale_lr": {"base_batchsize": 16}}, UnknownOptionError, "Did you mean 'base_batch_size'"),
        (
            {"auto_scale_lr": {"enable": True}},
            ConfigError,
            "base_batch_size is an int of at least 1, not None",
        ),
        ({"auto_scale_lr": {"base_batch_size": 16, "enable": 1}}, ConfigError, "enable is True or False"),
        ({"auto_scale_lr": 16}, ConfigError, r"auto_scale_lr is a dict\(base_batch_size"),
        (
            {"auto_scale_lr": {"base_batch_size": 8, "enable": True}, "train_dataloader": [1, 2]},
            ConfigError,
            "needs the batch_size of train_dataloader, which is None",
        ),
    ],
)
def test_wrong_scaling_is_refused_at_construction(
    make_runner: MakeRunner, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        make_runner(**options)


def test_schedules_that_remember_unscaled_rates_are_refused(make_runner: MakeRunner) -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    built = torch.optim.lr_scheduler.StepLR(optimizer, 1)

    with pytest.raises(ConfigError, match="a built scheduler remembers those from before"):
        make_runner(
            model=model,
            optim_wrapper=optimizer,
            param_scheduler=[built],
            auto_scale_lr={"base_batch_size": 8, "enable": True},
        )
