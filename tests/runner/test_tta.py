"""Test-time augmentation: a wrapper around the model while it is tested, and other test data."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from asynchooks.errors import ConfigError
from asynchooks.hooks import PrepareTTAHook
from asynchooks.registry import DATASETS, METRICS, MODELS, RUNNERS
from asynchooks.runner import Runner, build_runner_with_tta


@MODELS.register_module()
class ToyForTTA(nn.Module):
    """Predicts its input."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def test_step(self, data: Tensor) -> list[float]:
        return [float(each) for each in data * self.scale]


@MODELS.register_module()
class ToyTTAModel(nn.Module):
    """Predicts the mean of its model's predictions for a sample and its mirror image."""

    def __init__(self, module: nn.Module, weight: float = 0.5) -> None:
        super().__init__()
        self.module = module
        self.weight = weight

    def test_step(self, data: Tensor) -> list[float]:
        predictions: Any = zip(self.module.test_step(data), self.module.test_step(-data), strict=True)  # type: ignore[operator]
        return [self.weight * (one + abs(other)) for one, other in predictions]


@DATASETS.register_module()
class ToyForTTAData:
    """Numbers that a pipeline makes."""

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> float:
        return float(self.pipeline[0])


@METRICS.register_module()
class ToySum:
    """The sum of the predictions."""

    def __init__(self) -> None:
        self.total = 0.0

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.total += sum(data_samples)

    def evaluate(self, size: int) -> dict[str, float]:
        total, self.total = self.total, 0.0
        return {"sum": total}


@pytest.fixture
def cfg(tmp_path: Path) -> dict[str, Any]:
    return {
        "model": {"type": "ToyForTTA"},
        "work_dir": str(tmp_path),
        "test_dataloader": {"dataset": {"type": "ToyForTTAData", "pipeline": [1]}, "batch_size": 2},
        "test_cfg": {},
        "test_evaluator": {"type": "ToySum"},
        "default_hooks": {"logger": None},
        "tta_model": {"type": "ToyTTAModel"},
        "tta_pipeline": [3],
    }


def test_the_test_runs_on_the_wrapper_and_the_other_pipeline(cfg: dict[str, Any]) -> None:
    before = copy.deepcopy(cfg)
    runner = build_runner_with_tta(cfg)

    assert runner.test() == {"sum": 6.0}
    assert cfg == before


def test_the_run_has_its_own_model_back_after_the_test(cfg: dict[str, Any]) -> None:
    runner = build_runner_with_tta(cfg)
    model = runner.model
    results = [runner.test(), runner.test()]

    assert runner.model is model
    assert results[0] == results[1]


def test_a_test_that_fails_wraps_the_model_once(cfg: dict[str, Any]) -> None:
    runner = build_runner_with_tta(cfg)
    model = runner.model
    runner.test_loop.evaluators.clear()
    runner.test_loop.evaluators.append(None)
    with pytest.raises(AttributeError):
        runner.test()
    hook = next(hook for hook in runner.hooks if type(hook) is PrepareTTAHook)
    hook.before_test(runner)

    assert runner.model.module is model


def test_another_runner_may_be_named(cfg: dict[str, Any]) -> None:
    @RUNNERS.register_module(force=True)
    class OwnRunnerForTTA(Runner):
        """A runner of one's own."""

    runner = build_runner_with_tta({**cfg, "runner_type": "OwnRunnerForTTA"})

    assert type(runner) is OwnRunnerForTTA


@pytest.mark.parametrize("name", ["tta_model", "tta_pipeline"])
def test_what_is_missing_is_named(cfg: dict[str, Any], name: str) -> None:
    del cfg[name]
    with pytest.raises(ConfigError, match=f"needs {name}"):
        build_runner_with_tta(cfg)


def test_a_test_data_set_that_is_built_already_has_its_pipeline(cfg: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="both are dicts"):
        build_runner_with_tta({**cfg, "test_dataloader": [torch.ones(2)]})


def test_a_wrong_model_is_said_at_construction() -> None:
    with pytest.raises(KeyError, match="Did you mean 'ToyTTAModel'"):
        PrepareTTAHook({"type": "ToyTTAMode"})
    with pytest.raises(TypeError, match="Did you mean 'weight'"):
        PrepareTTAHook({"type": "ToyTTAModel", "weigth": 1.0})
