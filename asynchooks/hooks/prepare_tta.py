"""Test-time augmentation: a wrapper around the model, while it is tested."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asynchooks.errors import ConfigError
from asynchooks.execution import Effects, Hook
from asynchooks.registry import HOOKS, MODELS

__all__ = ["PrepareTTAHook"]


@HOOKS.register_module()
class PrepareTTAHook(Hook):
    """Puts a model that augments around ``runner.model`` before a test, and takes it off afterwards.

    Args:
        tta_cfg: dict for the registry MODELS; the class gets the run's model as ``module``. It is not changed.
        scope: scope whose registry is asked first for a bare name.

    Raises:
        ConfigError, UnknownNameError, UnknownOptionError: it describes no model.
    """

    effects = Effects()

    def __init__(self, tta_cfg: Mapping[str, Any], *, scope: str | None = None) -> None:
        if not isinstance(tta_cfg, Mapping):
            raise ConfigError(f"PrepareTTAHook(tta_cfg={tta_cfg!r}): give a dict(type=...) of a model.")
        MODELS.check({**tta_cfg, "module": None}, scope=scope)
        self.tta_cfg = tta_cfg
        self.scope = scope
        self._inner: Any = None
        self._wrapper: Any = None

    def before_run(self, runner: Any) -> None:
        """Give the run the model back that a failed test has left wrapped: it may be trained now."""
        self.after_test(runner)

    def before_test(self, runner: Any) -> None:
        """Wrap the run's model."""
        if self._wrapper is None or runner.model is not self._wrapper:  # it still is after a test that failed
            self._inner = runner.model
            self._wrapper = MODELS.build({**self.tta_cfg, "module": runner.model}, scope=self.scope)
        runner.model = self._wrapper

    def after_test(self, runner: Any) -> None:
        """Give the run its model back, so that it can be tested or trained again."""
        if runner.model is self._wrapper:
            runner.model = self._inner
        self._inner = self._wrapper = None
