"""More of what users of MMEngine and MMDetection write, with our names: each works as written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from asynchooks import HOOKS, Hook
from asynchooks.checkpoint import restore
from asynchooks.registry import MODELS
from asynchooks.runner import Runner


@MODELS.register_module()
class UsageDetector(nn.Module):
    """A backbone with BatchNorm, a head; losses in training, predictions otherwise."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU())
        self.bbox_head = nn.Linear(8, classes)
        self.bbox_head.use_l1 = False  # type: ignore[assignment]
        self.epochs: list[int] = []

    def forward(self, batch: list[Tensor]) -> dict[str, Tensor]:
        scores = self.bbox_head(self.backbone(batch[0]))
        return {
            "loss_cls": nn.functional.cross_entropy(scores, batch[1]),
            "loss_bbox": scores.abs().mean(),
            "acc": (scores.argmax(1) == batch[1]).float().mean(),
        }

    def val_step(self, batch: list[Tensor]) -> Tensor:
        scores: Tensor = self.bbox_head(self.backbone(batch[0]))
        return scores

    test_step = val_step

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)


class Mosaics(Dataset[tuple[Tensor, int]]):
    """Samples, and what MMDetection's data set of several images knows."""

    def __init__(self, size: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.inputs = torch.randn(size, 4, generator=generator)
        self.skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.inputs[index], index % 2

    def update_skip_type_keys(self, keys: tuple[str, ...]) -> None:
        self.skipped = tuple(keys)


def loader(batches: int = 4) -> DataLoader[Any]:
    return DataLoader(Mosaics(batches * 4), batch_size=4)


class Accuracy:
    """MMEngine's protocol; values of one's own, or real ones."""

    def __init__(self, *values: float, name: str = "accuracy") -> None:
        self.name = name
        self.values = list(values)
        self.right = 0

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.right += int((data_samples.argmax(1) == data_batch[1]).sum())

    def evaluate(self, size: int) -> dict[str, float]:
        right, self.right = self.right, 0
        return {self.name: self.values.pop(0) if self.values else right / size}


def runner(work_dir: Path, **options: Any) -> Runner:
    torch.manual_seed(0)
    given: dict[str, Any] = {
        "model": UsageDetector(),
        "work_dir": str(work_dir),
        "train_dataloader": loader(),
        "optim_wrapper": {"type": "OptimWrapper", "optimizer": {"type": "SGD", "lr": 0.05, "momentum": 0.9}},
        "train_cfg": {"by_epoch": True, "max_epochs": 3},
        "log_level": "WARNING",
    }
    return Runner(**(given | options))


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix == ".pth")


def head_of(run: Runner) -> Any:
    return run.model.bbox_head


def the(run: Runner, kind: str) -> Any:
    (hook,) = [hook for hook in run.hooks if type(hook).__name__ == kind]
    return hook


def test_the_tutorials_hooks(tmp_path: Path) -> None:
    run = runner(
        tmp_path,
        default_hooks={
            "runtime_info": {"type": "RuntimeInfoHook"},
            "timer": {"type": "IterTimerHook"},
            "sampler_seed": {"type": "DistSamplerSeedHook"},
            "logger": {"type": "LoggerHook", "interval": 20},
            "param_scheduler": {"type": "ParamSchedulerHook"},
            "checkpoint": {"type": "CheckpointHook", "interval": 5},
        },
        custom_hooks=[
            {"type": "EmptyCacheHook", "after_epoch": True},
            {"type": "SyncBuffersHook"},
            {"type": "CheckInvalidLossHook", "interval": 50, "priority": "ABOVE_NORMAL"},
        ],
    )
    run.train()
    order = [type(hook).__name__ for hook in run.hooks]

    assert order.index("CheckInvalidLossHook") == 1
    assert files(tmp_path) == ["epoch_3.pth"]


@pytest.mark.parametrize("interval", [1, 50])
def test_a_loss_that_is_not_finite_is_seen_where_it_is_looked_at(tmp_path: Path, interval: int) -> None:
    class Broken(UsageDetector):
        def forward(self, batch: list[Tensor]) -> dict[str, Tensor]:
            return {"loss": super().forward(batch)["loss_cls"] * float("nan")}

    run = runner(
        tmp_path, model=Broken(), custom_hooks=[{"type": "CheckInvalidLossHook", "interval": interval}]
    )
    if interval == 1:
        with pytest.raises(Exception, match=r"(?i)nan|finite|infinite"):
            run.train()
    else:
        run.train()

    assert run.iter == (0 if interval == 1 else 12)


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_yolox_and_its_hooks(tmp_path: Path, mode: Any) -> None:
    run = runner(
        tmp_path,
        mode=mode,
        custom_hooks=[
            {"type": "YOLOXModeSwitchHook", "num_last_epochs": 1, "priority": 48},
            {"type": "SyncNormHook", "priority": 48},
            {"type": "EMAHook", "ema_type": "ExpMomentumEMA", "momentum": 0.0001, "priority": 49},
        ],
        val_dataloader=loader(2),
        val_evaluator=Accuracy(),
    )
    run.train()

    assert head_of(run).use_l1 is True
    assert run.train_dataloader.dataset.skipped == ("Mosaic", "RandomAffine", "MixUp")
    assert {"state_dict", "ema_state_dict"} <= set(restore(tmp_path / "epoch_3.pth"))


@pytest.mark.parametrize(
    "ema",
    [
        {"type": "EMAHook"},
        {"type": "EMAHook", "ema_type": "StochasticWeightAverage"},
        {"type": "EMAHook", "ema_type": "ExpMomentumEMA", "gamma": 10},
        {"type": "EMAHook", "ema_type": "MomentumAnnealingEMA", "gamma": 10},
        {"type": "EMAHook", "momentum": 0.1, "begin_epoch": 1, "update_buffers": True},
        {"type": "ExpMomentumEMAHook", "total_iter": 2000},
        {"type": "LinearMomentumEMAHook", "warm_up": 100},
    ],
    ids=lambda cfg: "-".join(map(str, cfg.values())),
)
def test_averaged_weights_serve_validation_and_are_what_is_saved(tmp_path: Path, ema: dict[str, Any]) -> None:
    seen: dict[str, Tensor] = {}

    class Watch(Hook):
        priority = "LOWEST"

        def after_val_iter(
            self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
        ) -> None:
            seen["validated"] = runner.model.bbox_head.weight.detach().clone()

        def after_train_iter(
            self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
        ) -> None:
            seen["trained"] = runner.model.bbox_head.weight.detach().clone()

    run = runner(
        tmp_path,
        custom_hooks=[ema, Watch()],
        val_dataloader=loader(2),
        default_hooks={"checkpoint": {"type": "CheckpointHook", "interval": 3}},
    )
    run.train()
    saved = restore(tmp_path / "epoch_3.pth")["state_dict"]["bbox_head.weight"]

    assert torch.equal(saved, seen["validated"])
    assert not torch.equal(saved, seen["trained"])


@pytest.mark.parametrize(
    ("options", "values", "left"),
    [
        (
            {"save_best": "accuracy", "rule": "less", "published_keys": ["meta", "state_dict"]},
            (0.3, 0.1, 0.2),
            "best_accuracy_epoch_2",
        ),
        ({"save_best": "auto"}, (0.1, 0.3, 0.2), "best_accuracy_epoch_2"),
        (
            {"save_best": "accuracy", "interval": -1, "save_last": False},
            (0.3, 0.2, 0.1),
            "best_accuracy_epoch_1",
        ),
        ({"save_best": "accuracy", "greater_keys": ["accuracy"]}, (0.1, 0.2, 0.3), "best_accuracy_epoch_3"),
    ],
)
def test_the_best_checkpoint(
    tmp_path: Path, options: dict[str, Any], values: tuple[float, ...], left: str
) -> None:
    run = runner(
        tmp_path,
        val_dataloader=loader(1),
        val_evaluator=Accuracy(*values),
        default_hooks={"checkpoint": {"type": "CheckpointHook", "interval": 1, **options}},
    )
    run.train()
    best = [name for name in files(tmp_path) if name.startswith("best")]

    assert f"{left}.pth" in best
    assert len(best) == (2 if "published_keys" in options else 1)


def test_checkpoints_elsewhere_with_options_for_fsspec(tmp_path: Path) -> None:
    run = runner(
        tmp_path / "run",
        default_hooks={
            "checkpoint": {
                "type": "CheckpointHook",
                "interval": 1,
                "out_dir": (tmp_path / "bucket").as_uri(),
                "backend_args": {"auto_mkdir": True},
            }
        },
    )
    run.train()

    assert files(tmp_path / "bucket/run") == ["epoch_1.pth", "epoch_2.pth", "epoch_3.pth"]
    assert files(tmp_path / "run") == []


def test_paramwise_cfg_gives_every_parameter_its_own_rate(tmp_path: Path) -> None:
    run = runner(
        tmp_path,
        optim_wrapper={
            "type": "OptimWrapper",
            "optimizer": {"type": "AdamW", "lr": 0.01, "weight_decay": 0.1},
            "paramwise_cfg": {
                "norm_decay_mult": 0.0,
                "bias_lr_mult": 2.0,
                "custom_keys": {"backbone": {"lr_mult": 0.1, "decay_mult": 0.9}},
                "bypass_duplicate": True,
            },
        },
    )
    rates = {round(group["lr"], 6) for group in run.optim_wrapper.param_groups if group["params"]}
    run.train()

    assert rates == {0.001, 0.01, 0.02}


def test_a_training_stops_early_and_says_so(tmp_path: Path) -> None:
    run = runner(
        tmp_path,
        train_cfg={"by_epoch": True, "max_epochs": 50, "val_interval": 1},
        val_dataloader=loader(1),
        val_evaluator=Accuracy(*[0.5] * 50),
        custom_hooks=[{"type": "EarlyStoppingHook", "monitor": "accuracy", "patience": 2}],
    )
    run.train()

    assert run.epoch == 3
    assert files(tmp_path)[-1] == "epoch_3.pth"


def test_a_model_hears_of_the_epoch(tmp_path: Path) -> None:
    run = runner(tmp_path, custom_hooks=[{"type": "SetEpochInfoHook"}])
    run.train()

    assert run.model.epochs == [0, 1, 2]


def test_everything_may_come_from_a_dict(tmp_path: Path) -> None:
    run = Runner.from_cfg(
        {
            "model": {"type": "UsageDetector", "classes": 3},
            "work_dir": str(tmp_path),
            "train_dataloader": {"dataset": loader().dataset, "batch_size": 8, "num_workers": 0},
            "val_dataloader": {"dataset": loader().dataset, "batch_size": 8},
            "val_cfg": {"type": "ValLoop"},
            "val_evaluator": [Accuracy()],
            "train_cfg": {"type": "EpochBasedTrainLoop", "max_epochs": 2},
            "optim_wrapper": {"optimizer": {"type": "SGD", "lr": 0.01}},
            "param_scheduler": ({"type": "MultiStepLR", "milestones": [1]},),
            "visualizer": {
                "type": "Visualizer",
                "vis_backends": [{"type": "LocalVisBackend"}, {"type": "TensorboardVisBackend"}],
            },
            "randomness": {"seed": 1, "deterministic": False, "diff_rank_seed": False},
            "env_cfg": {"cudnn_benchmark": False},
            "launcher": "none",
            "auto_scale_lr": {"enable": False, "base_batch_size": 16},
            "default_scope": "mmengine",
            "log_processor": {"window_size": 5, "by_epoch": True},
            "log_level": "ERROR",
            "load_from": None,
            "resume": False,
        }
    )
    run.train()

    assert list(tmp_path.rglob("events.out.tfevents*"))
    assert run.optim_wrapper.get_lr()["lr"] == [pytest.approx(0.001)]


def test_a_hook_of_ones_own_takes_what_its_points_take(tmp_path: Path) -> None:
    calls: list[str] = []

    @HOOKS.register_module()
    class UsageEveryPoint(Hook):
        priority = "VERY_LOW"

        def before_run(self, runner: Any) -> None:
            calls.append("before_run")

        def _before_epoch(self, runner: Any, mode: str = "train") -> None:
            calls.append(f"before {mode} epoch")

        def _after_iter(
            self,
            runner: Any,
            batch_idx: int,
            data_batch: Any = None,
            outputs: Any = None,
            mode: str = "train",
        ) -> None:
            calls.append(f"after {mode} iter {batch_idx}")
            if self.every_n_inner_iters(batch_idx, 2) or self.end_of_epoch(
                runner.train_dataloader, batch_idx
            ):
                calls.append("due")

        def after_val_epoch(self, runner: Any, metrics: Mapping[str, float] | None = None) -> None:
            calls.append(f"metrics {sorted(metrics or {})}")

        def after_run(self, runner: Any) -> None:
            calls.append("after_run")

    run = runner(
        tmp_path,
        train_dataloader=loader(3),
        train_cfg={"by_epoch": True, "max_epochs": 1},
        custom_hooks=[{"type": "UsageEveryPoint", "priority": "LOWEST"}],
        val_dataloader=loader(1),
        val_evaluator=Accuracy(),
    )
    run.train()

    assert calls == [
        "before_run",
        "before train epoch",
        "after train iter 0",
        "after train iter 1",
        "due",
        "after train iter 2",
        "due",
        "before val epoch",
        "after val iter 0",
        "metrics ['accuracy']",
        "after_run",
    ]
    assert the(run, "UsageEveryPoint").get_triggered_stages()[0] == "before_run"
