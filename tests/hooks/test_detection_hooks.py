"""MMDetection's and MMYOLO's hooks are here, under their names, with their arguments and defaults."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from asynchooks.execution import Effects, get_priority
from asynchooks.registry import HOOKS

SKIPPED = ("Mosaic", "RandomAffine", "MixUp")
ARGUMENTS: dict[str, dict[str, Any]] = {
    "mmdet.CheckInvalidLossHook": {"interval": 50},
    "mmdet.MemoryProfilerHook": {"interval": 50},
    "mmdet.NumClassCheckHook": {},
    "mmdet.PipelineSwitchHook": {
        "switch_epoch": inspect.Parameter.empty,
        "switch_pipeline": inspect.Parameter.empty,
    },
    "mmdet.SetEpochInfoHook": {},
    "mmdet.SyncNormHook": {"num_last_epochs": None, "interval": None},  # none in MMDetection 3; 15 and 1 in 2
    "mmdet.SyncRandomSizeHook": {
        "ratio_range": (14, 26),
        "img_scale": (640, 640),
        "interval": 1,
        "device": "cuda",
    },
    "mmdet.YOLOXModeSwitchHook": {
        "num_last_epochs": 15,
        "skip_type_keys": SKIPPED,
        "new_train_pipeline": None,
    },
    "mmyolo.YOLOXModeSwitchHook": {
        "num_last_epochs": 15,
        "skip_type_keys": SKIPPED,
        "new_train_pipeline": None,
    },
    "mmyolo.SwitchToDeployHook": {},
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_hook_has_the_arguments_that_its_users_know(name: str) -> None:
    kind: Any = HOOKS.get(name)
    parameters = inspect.signature(kind).parameters

    assert {each: parameter.default for each, parameter in parameters.items()} == ARGUMENTS[name]
    assert get_priority(kind.priority) == 50


@pytest.mark.parametrize("name", HOOKS.names())
def test_every_hook_says_what_it_touches_and_what_it_does(name: str) -> None:
    kind: Any = HOOKS.get(name)
    said = inspect.getsource(kind)

    assert inspect.getdoc(kind)
    assert isinstance(kind.effects, Effects) or "self.effects" in said
