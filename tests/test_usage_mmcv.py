"""The ways in which users of MMCV 1.x write a run, with our names: each works as written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from asynchooks.errors import AsyncHooksError
from asynchooks.hooks.mmcv import EvalHook, Hook
from asynchooks.optim import build_optimizer
from asynchooks.registry import MMCV_HOOKS
from asynchooks.runner import EpochBasedRunner, IterBasedRunner, build_runner


class Net(nn.Module):
    """A model in MMCV's manner: ``train_step`` returns the loss and what is logged; hooks do the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, batch: list[Tensor], *, return_loss: bool = False, **_: Any) -> list[Tensor]:
        return list(self.linear(batch[0]))

    def train_step(self, data: list[Tensor], optimizer: Any, **_: Any) -> dict[str, Any]:
        loss = nn.functional.cross_entropy(self.linear(data[0]), data[1])
        return {"loss": loss, "log_vars": {"loss": loss.item()}, "num_samples": len(data[0])}

    val_step = train_step


class Pairs(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """Samples that can be evaluated, as MMCV's data sets can."""

    def __init__(self, accuracies: list[float] | None = None) -> None:
        self.inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
        self.accuracies = accuracies or []

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.inputs[index], index % 2

    def evaluate(self, results: list[Any], logger: Any = None, **_: Any) -> dict[str, float]:
        assert len(results) == 8
        return {"acc": self.accuracies.pop(0) if self.accuracies else 0.5}


def loader(*accuracies: float) -> DataLoader[Any]:
    return DataLoader(Pairs(list(accuracies)), batch_size=2)


def runner(kind: Any, work_dir: Path, *, momentum: float = 0.9, **options: Any) -> Any:
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=momentum)
    return kind(model=model, optimizer=optimizer, work_dir=str(work_dir), **options)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix == ".pth")


class Rates(Hook):  # type: ignore[misc]  # found at run time
    """Notes rates and momenta as iterations run with them."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.momenta: list[float] = []

    def before_train_iter(self, runner: Any) -> None:
        self.rates += runner.current_lr()
        self.momenta += runner.current_momentum()


def test_all_training_hooks(tmp_path: Path) -> None:
    run = runner(EpochBasedRunner, tmp_path, max_epochs=3)
    run.register_training_hooks(
        lr_config={"policy": "step", "step": [2, 3]},
        optimizer_config={"grad_clip": {"max_norm": 35, "norm_type": 2}},
        checkpoint_config={"interval": 5, "max_keep_ckpts": 5},
        log_config={
            "interval": 2,
            "hooks": [{"type": "TextLoggerHook"}, {"type": "TensorboardLoggerHook"}],
        },
        custom_hooks_config=[{"type": "EmptyCacheHook", "after_epoch": True, "priority": "VERY_LOW"}],
    )
    rates = Rates()
    run.register_hook(rates)
    run.run([loader()], [("train", 1)])

    assert rates.rates == pytest.approx([0.1] * 8 + [0.01] * 4)
    assert files(tmp_path) == ["epoch_3.pth", "latest.pth"]
    assert list((tmp_path / "tf_logs").iterdir())


def test_a_workflow_of_training_and_validation(tmp_path: Path) -> None:
    modes: list[str] = []

    class Modes(Hook):  # type: ignore[misc]  # found at run time
        def before_epoch(self, runner: Any) -> None:
            modes.append(runner.mode)

    run = runner(EpochBasedRunner, tmp_path, max_epochs=4)
    run.register_training_hooks(
        lr_config={"policy": "fixed"}, optimizer_config={}, checkpoint_config=None, log_config=None
    )
    run.register_hook(Modes())
    run.run([loader(), loader()], [("train", 2), ("val", 1)])

    assert modes == ["train", "train", "val", "train", "train", "val"]
    assert (run.epoch, run.iter) == (4, 16)


def test_evaluation_keeps_the_best(tmp_path: Path) -> None:
    run = runner(EpochBasedRunner, tmp_path, max_epochs=20)
    run.register_training_hooks(lr_config={"policy": "fixed"}, optimizer_config={"grad_clip": None})
    run.register_hook(EvalHook(loader(0.1, 0.9, 0.5, 0.6), interval=5, start=5, save_best="acc"))
    run.run([loader()], [("train", 1)])

    assert files(tmp_path) == ["best_acc_epoch_10.pth"]


@pytest.mark.parametrize(
    ("lr_config", "first", "last"),
    [
        (
            {"policy": "step", "step": [2], "warmup": "linear", "warmup_iters": 4, "warmup_ratio": 0.1},
            0.01,
            0.01,
        ),
        (
            {
                "policy": "CosineAnnealing",
                "min_lr": 0,
                "warmup": "constant",
                "warmup_iters": 2,
                "warmup_ratio": 0.5,
            },
            0.05,
            0.025,
        ),
        ({"policy": "poly", "power": 1, "min_lr": 0.01, "by_epoch": False}, 0.1, 0.0175),
        ({"policy": "exp", "gamma": 0.5}, 0.1, 0.025),
        ({"policy": "inv", "gamma": 1, "power": 1}, 0.1, 0.1 / 3),
        ({"policy": "cyclic", "target_ratio": (10, 0.1), "by_epoch": False}, 0.1, None),
        ({"policy": "OneCycle", "max_lr": 0.5}, 0.02, None),
        ({"policy": "LinearAnnealing", "min_lr_ratio": 0.1}, 0.1, 0.04),
        ({"policy": "FlatCosineAnnealing", "min_lr": 0.01, "start_percent": 0.34}, 0.1, None),
        ({"policy": "CosineRestart", "periods": [2, 1], "restart_weights": [1, 0.5], "min_lr": 0}, 0.1, 0.05),
    ],
    ids=lambda value: value["policy"] if isinstance(value, dict) else "",
)
def test_policies_of_the_learning_rate(
    tmp_path: Path, lr_config: dict[str, Any], first: float, last: float | None
) -> None:
    run = runner(EpochBasedRunner, tmp_path, max_epochs=3)
    run.register_training_hooks(lr_config=lr_config, optimizer_config={})
    rates = Rates()
    run.register_hook(rates, priority="LOWEST")
    run.run([loader()], [("train", 1)])

    assert rates.rates[0] == pytest.approx(first)
    assert last is None or rates.rates[-1] == pytest.approx(last)
    assert len(rates.rates) == 12
    assert len(set(rates.rates)) > 1


def test_a_momentum_that_moves_against_the_rate(tmp_path: Path) -> None:
    run = runner(IterBasedRunner, tmp_path, momentum=0.95, max_iters=10)
    run.register_training_hooks(
        lr_config={"policy": "cyclic", "target_ratio": (10, 1e-4), "cyclic_times": 1, "step_ratio_up": 0.4},
        optimizer_config={},
        momentum_config={
            "policy": "cyclic",
            "target_ratio": (0.85 / 0.95, 1),
            "cyclic_times": 1,
            "step_ratio_up": 0.4,
        },
    )
    seen = Rates()
    run.register_hook(seen, priority="LOWEST")
    run.run([loader()], [("train", 1)])

    assert min(seen.momenta) == pytest.approx(0.85)
    assert seen.rates.index(max(seen.rates)) == seen.momenta.index(min(seen.momenta)) == 4


@pytest.mark.parametrize("cumulative_iters", [1, 4])
def test_optimizer_hooks_by_their_names(tmp_path: Path, cumulative_iters: int) -> None:
    run = runner(IterBasedRunner, tmp_path, max_iters=8)
    run.register_training_hooks(
        lr_config={"policy": "fixed"},
        optimizer_config={
            "type": "GradientCumulativeOptimizerHook",
            "cumulative_iters": cumulative_iters,
            "grad_clip": {"max_norm": 1},
        },
        checkpoint_config={"interval": 4, "by_epoch": False},
    )
    run.run([loader()], [("train", 1)])

    assert files(tmp_path) == ["iter_4.pth", "iter_8.pth", "latest.pth"]


def test_a_runner_and_an_optimizer_from_configurations(tmp_path: Path) -> None:
    model = Net()
    optimizer = build_optimizer(
        model,
        {
            "type": "SGD",
            "lr": 0.1,
            "paramwise_cfg": {"bias_lr_mult": 2.0, "custom_keys": {"linear.weight": {"lr_mult": 0.1}}},
        },
    )
    run = build_runner(
        {"type": "EpochBasedRunner", "max_epochs": 1},
        default_args={"model": model, "optimizer": optimizer, "work_dir": str(tmp_path)},
    )

    assert type(run) is EpochBasedRunner
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.01, 0.2])


def test_a_hook_of_ones_own(tmp_path: Path) -> None:
    @MMCV_HOOKS.register_module()
    class UsageCountingHook(Hook):  # type: ignore[misc]  # found at run time
        def __init__(self, every: int) -> None:
            self.every = every
            self.count = 0

        def after_train_iter(self, runner: Any) -> None:
            assert torch.isfinite(runner.outputs["loss"])
            if self.every_n_iters(runner, self.every) or self.is_last_iter(runner):
                self.count += 1

    run = runner(EpochBasedRunner, tmp_path, max_epochs=2)
    run.register_training_hooks(
        lr_config={"policy": "fixed"},
        optimizer_config={},
        custom_hooks_config=[{"type": "UsageCountingHook", "every": 3, "priority": "LOW"}],
    )
    run.run([loader()], [("train", 1)])

    assert [hook.count for hook in run.hooks if type(hook).__name__ == "UsageCountingHook"] == [3]


@pytest.mark.parametrize(
    ("configs", "right_form"),
    [
        ({"lr_config": {"policy": "stepp", "step": [2]}}, "Step"),
        ({"lr_config": {"policy": "step", "steps": [2]}}, "step"),
        ({"lr_config": {"policy": "step", "step": [2], "warmup": "lineer", "warmup_iters": 1}}, "linear"),
        ({"lr_config": {"step": [2]}}, "policy"),
        ({"optimizer_config": {"grad_clips": None}}, "grad_clip"),
        ({"checkpoint_config": {"intervall": 5}}, "interval"),
        ({"log_config": {"interval": 5, "hooks": [{"type": "TextLogerHook"}]}}, "TextLoggerHook"),
        ({"custom_hooks_config": [{"type": "EmptyCachHook"}]}, "EmptyCacheHook"),
        ({"momentum_config": {"policy": "cyclic", "target_ratios": (1, 1)}}, "target_ratio"),
    ],
)
def test_a_slip_names_the_right_form_when_it_is_registered(
    tmp_path: Path, configs: dict[str, Any], right_form: str
) -> None:
    run = runner(EpochBasedRunner, tmp_path, max_epochs=1)
    given = {"lr_config": {"policy": "fixed"}, "optimizer_config": {}, **configs}

    with pytest.raises((AsyncHooksError, TypeError), match=right_form):
        run.register_training_hooks(**given)
