"""A runner that tests with test-time augmentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from asynchooks.errors import ConfigError
from asynchooks.hooks.prepare_tta import PrepareTTAHook
from asynchooks.registry import RUNNERS
from asynchooks.runner._runner import Runner

__all__ = ["build_runner_with_tta"]


def build_runner_with_tta(cfg: Mapping[str, Any]) -> Any:
    """Return a runner whose test data go through ``tta_pipeline`` and whose tested model is wrapped by ``tta_model``.

    Args:
        cfg: a configuration of a runner (``runner_type`` names another class than `Runner`) that has these two; it
            is not changed.

    Raises:
        ConfigError: one of them is missing, or there is no test data set whose pipeline could be another one.
    """
    missing = [name for name in ("tta_model", "tta_pipeline") if name not in cfg]
    if missing:
        raise ConfigError(f"Test-time augmentation needs {' and '.join(missing)} in the configuration.")
    options = {name: value for name, value in cfg.items() if name not in ("runner_type", "tta_pipeline")}
    options["test_dataloader"] = _with_pipeline(cfg.get("test_dataloader"), cfg["tta_pipeline"])
    kind = cast("Any", RUNNERS.get(cfg["runner_type"]) if "runner_type" in cfg else Runner)
    runner = kind.from_cfg(options)
    runner.register_hook(PrepareTTAHook(cfg["tta_model"], scope=cfg.get("default_scope")))
    return runner


def _with_pipeline(loader: Any, pipeline: Any) -> dict[str, Any]:
    dataset = loader.get("dataset") if isinstance(loader, Mapping) else None
    if not isinstance(loader, Mapping) or not isinstance(dataset, Mapping):
        raise ConfigError(
            f"Test-time augmentation changes the pipeline of test_dataloader['dataset'], so both are dicts; "
            f"test_dataloader is {loader!r}."
        )
    return {**loader, "dataset": {**dataset, "pipeline": pipeline}}
