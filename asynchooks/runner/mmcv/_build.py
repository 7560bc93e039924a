"""Runners from config dicts, and constructors that may change how they are built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asynchooks.registry import RUNNERS, Registry

__all__ = ["RUNNER_BUILDERS", "DefaultRunnerConstructor", "build_runner"]

RUNNER_BUILDERS = Registry("runner constructor", scope="asynchooks")


@RUNNER_BUILDERS.register_module()
class DefaultRunnerConstructor:
    """Builds the runner that a config dict names. A class of one's own may add to what this returns.

    Args:
        runner_cfg: ``dict(type="EpochBasedRunner", max_epochs=12)``.
        default_args: further arguments; those of ``runner_cfg`` win.
    """

    def __init__(self, runner_cfg: Mapping[str, Any], default_args: Mapping[str, Any] | None = None) -> None:
        if not isinstance(runner_cfg, Mapping):
            raise TypeError(
                f"runner_cfg is a dict such as dict(type='EpochBasedRunner', ...), not {runner_cfg!r}."
            )
        self.runner_cfg = runner_cfg
        self.default_args = default_args

    def __call__(self) -> Any:
        """Return the runner."""
        return RUNNERS.build(self.runner_cfg, **(self.default_args or {}))


def build_runner(cfg: Mapping[str, Any], default_args: Mapping[str, Any] | None = None) -> Any:
    """Return the runner that a config dict describes.

    Args:
        cfg: ``dict(type="EpochBasedRunner", max_epochs=12)``; ``constructor`` names a class of RUNNER_BUILDERS.
        default_args: further arguments, such as the model and the optimizer; those of ``cfg`` win.

    Raises:
        UnknownNameError, UnknownOptionError: no such runner, or no such argument.
    """
    if not isinstance(cfg, Mapping):
        raise TypeError(
            f"A runner is configured by a dict such as dict(type=..., max_epochs=...), not {cfg!r}."
        )
    options = dict(cfg)
    constructor = options.pop("constructor", "DefaultRunnerConstructor")
    return RUNNER_BUILDERS.build({"type": constructor, "runner_cfg": options, "default_args": default_args})()
