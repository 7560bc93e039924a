"""What configurations in MMDetection's and MMYOLO's style say, and a run of them does."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from asynchooks.config import Config
from asynchooks.errors import ConfigError, UnknownNameError, UnknownOptionError
from asynchooks.optim import build_optim_wrapper
from asynchooks.runner import Runner


class Detector(nn.Module):
    """Named as a detector is; the stem is frozen, and the head has a parameter that is neither weight nor bias."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, bias=False))
        self.backbone[0].requires_grad_(requires_grad=False)
        self.bbox_head = nn.Linear(4, 2)
        self.implicit = nn.Parameter(torch.zeros(2))
        self.seen: list[torch.dtype] = []

    def _scores(self, images: Tensor) -> Tensor:
        scores: Tensor = self.bbox_head(self.backbone(images).mean((2, 3)))
        self.seen.append(scores.dtype)
        return scores + self.implicit

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, Tensor]:
        with optim_wrapper.optim_context(self):
            loss = self._scores(data["inputs"]).square().mean()
        optim_wrapper.update_params(loss)
        return {"loss": loss.detach()}

    def val_step(self, data: Any) -> list[float]:
        return self._scores(data["inputs"]).mean(1).tolist()

    test_step = val_step


class Pair(nn.Module):
    """A teacher and its student, of which one predicts."""

    def __init__(self) -> None:
        super().__init__()
        self.teacher, self.student = Detector(), Detector()
        self.semi_test_cfg = {"predict_on": "student", "extra": 1}
        self.predicted: list[str] = []

    def val_step(self, data: Any) -> Any:
        name = self.semi_test_cfg["predict_on"]
        self.predicted.append(str(name))
        return getattr(self, str(name)).val_step(data)


class Images(Dataset[dict[str, Tensor]]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"inputs": torch.full((3, 8, 8), float(index))}


class Mean:
    """A metric in MMEngine's protocol."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.values += data_samples

    def evaluate(self, size: int) -> dict[str, float]:
        values, self.values = self.values, []
        return {"coco/bbox_mAP": sum(values) / size}


TEXT = """
default_scope = 'mmdet'
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=None,
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='GroundingVisualizationHook'))
env_cfg = dict(cudnn_benchmark=False)
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='DetLocalVisualizer', vis_backends=vis_backends, name='visualizer')
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=True)
interval = 5
val_evaluator_novel = dict(type='NovelMetric')
train_cfg = dict(type='IterBasedTrainLoop', max_iters=interval, val_interval=interval / 2.5)
val_cfg = dict(type='ValLoop', fp16=True)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.02, momentum=0.9))
param_scheduler = [dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=3)]
auto_scale_lr = dict(enable=False, base_batch_size=16)
load_from = None
resume = False
"""


@pytest.fixture
def cfg(tmp_path: Path) -> Config:
    (tmp_path / "detector.py").write_text(TEXT)
    cfg = Config.fromfile(tmp_path / "detector.py")
    loader = DataLoader(Images(), batch_size=2)
    parts = {"model": Detector(), "train_dataloader": loader, "val_dataloader": loader}
    for name, part in {**parts, "val_evaluator": Mean(), "work_dir": str(tmp_path)}.items():
        cfg[name] = part
    return cfg


def test_a_configuration_in_mmdetections_style_trains_and_validates(cfg: Config) -> None:
    runner = Runner.from_cfg(cfg)
    runner.train()

    assert (runner.iter, runner.train_loop.val_interval) == (5, 2)  # 5 / 2.5 is a float, and a whole number
    assert runner.optim_wrapper.get_lr()["lr"] == [pytest.approx(0.02)]


def test_a_variable_named_after_an_argument_is_its_authors(cfg: Config) -> None:
    cfg.val_evaluator_abs = {"type": "AbsMetric"}
    Runner.from_cfg(cfg)

    cfg.val_evaluater = {"type": "AbsMetric"}
    with pytest.raises(UnknownOptionError, match="Did you mean 'val_evaluator'"):
        Runner.from_cfg(cfg)


def test_an_interval_that_is_no_whole_number_is_refused(cfg: Config) -> None:
    cfg.train_cfg.val_interval = 2.5

    with pytest.raises(ConfigError, match=r"val_interval is an int of at least 1, not 2\.5"):
        Runner.from_cfg(cfg)


@pytest.mark.parametrize(("fp16", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_a_validation_runs_in_half_precision_where_fp16_is_set(
    cfg: Config, fp16: bool, dtype: torch.dtype
) -> None:
    cfg.val_cfg.fp16 = fp16
    runner = Runner.from_cfg(cfg)
    runner.val()

    assert runner.model.seen == [dtype, dtype]  # autocast's dtype on the CPU


def test_a_teacher_and_its_student_are_validated_in_turn(cfg: Config) -> None:
    cfg.model, cfg.val_cfg = Pair(), {"type": "TeacherStudentValLoop"}
    runner = Runner.from_cfg(cfg)
    metrics = runner.val()

    assert list(metrics) == ["teacher/coco/bbox_mAP", "student/coco/bbox_mAP"]
    assert metrics["teacher/coco/bbox_mAP"] != metrics["student/coco/bbox_mAP"]
    assert runner.model.predicted == ["teacher"] * 2 + ["student"] * 2
    assert runner.model.semi_test_cfg == {"predict_on": "student", "extra": 1}


def test_a_teacher_that_is_missing_is_named(cfg: Config) -> None:
    cfg.val_cfg = {"type": "TeacherStudentValLoop"}

    with pytest.raises(ConfigError, match="Detector has no teacher"):
        Runner.from_cfg(cfg).val()


def test_a_hook_of_a_project_that_is_not_there_is_told_apart_from_a_misspelled_one(cfg: Config) -> None:
    cfg.custom_hooks = [{"type": "otherproject.StopDistillHook"}]
    with pytest.raises(UnknownNameError, match="Nothing is registered for 'otherproject': import the module"):
        Runner.from_cfg(cfg)

    cfg.custom_hooks = [{"type": "mmdet.YOLOXModeSwichHook"}]
    with pytest.raises(UnknownNameError, match="Did you mean 'YOLOXModeSwitchHook'"):
        Runner.from_cfg(cfg)


def yolo(
    kind: str = "YOLOv5OptimizerConstructor", paramwise_cfg: Any = None, **changes: Any
) -> dict[str, Any]:
    optimizer = {"type": "SGD", "lr": 0.01, "momentum": 0.9, "weight_decay": 0.0005, **changes}
    cfg = {"constructor": kind, "optimizer": optimizer}
    return cfg if paramwise_cfg is None else {**cfg, "paramwise_cfg": paramwise_cfg}


@pytest.mark.parametrize("kind", ["YOLOv5OptimizerConstructor", "mmyolo.YOLOv7OptimWrapperConstructor"])
@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_yolos_constructors_make_groups_of_weights_norms_and_biases(kind: str, optimizer: str) -> None:
    model = Detector()
    cfg = yolo(kind, type=optimizer)
    if optimizer == "AdamW":
        del cfg["optimizer"]["momentum"]
    groups = build_optim_wrapper(model, cfg).optimizer.param_groups
    names = {id(param): name for name, param in model.named_parameters()}

    assert [[names[id(param)] for param in group["params"]] for group in groups] == [
        ["backbone.0.weight", "backbone.2.weight", "bbox_head.weight"],
        ["implicit", "backbone.1.weight"],
        ["backbone.0.bias", "backbone.1.bias", "bbox_head.bias"],
    ]
    assert [group["weight_decay"] for group in groups] == [0.0005, 0.0, 0.0]


@pytest.mark.parametrize(
    ("batch_size", "base", "factor"), [(64, None, 1), (16, None, 1), (24, None, 72 / 64), (128, 32, 4)]
)
def test_yolos_weight_decay_grows_with_the_batch(batch_size: int, base: int | None, factor: float) -> None:
    options = None if base is None else {"base_total_batch_size": base}
    wrapper = build_optim_wrapper(Detector(), yolo(paramwise_cfg=options, batch_size_per_gpu=batch_size))

    assert wrapper.param_groups[0]["weight_decay"] == pytest.approx(0.0005 * factor)


@pytest.mark.parametrize(
    ("cfg", "words"),
    [
        (yolo(paramwise_cfg={"norm_decay_mult": 0.0}), "has no option 'norm_decay_mult'"),
        (yolo(paramwise_cfg={}), "base_total_batch_size=..."),
        (yolo(batch_size_per_gpu=0), "batch_size_per_gpu is an int of at least 1, not 0"),
        ({"constructor": "YOLOv5OptimizerConstructor"}, "needs optim_wrapper_cfg"),
    ],
)
def test_wrong_arguments_of_yolos_constructors_are_refused(cfg: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build_optim_wrapper(Detector(), cfg)


def test_layer_decay_takes_the_options_of_its_base_and_says_that_they_do_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def layer_id(name: str, num_layers: int) -> int:
        return num_layers + 1 if name.startswith("bbox_head") else 0

    options = {"decay_rate": 0.5, "num_layers": 2, "layer_id": layer_id, "norm_decay_mult": 0}
    cfg = yolo("LearningRateDecayOptimizerConstructor", options)
    with caplog.at_level(logging.WARNING):
        groups = build_optim_wrapper(Detector(), cfg).optimizer.param_groups

    assert "without effect: norm_decay_mult" in caplog.text
    assert {group["group_name"]: group["lr"] for group in groups} == {
        "layer_0_decay": 0.01 * 0.5**3,
        "layer_0_no_decay": 0.01 * 0.5**3,
        "layer_3_decay": 0.01,
        "layer_3_no_decay": 0.01,
    }
