"""Merges the branches of a network that is trained with several and run with one, before it is tested."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from asynchooks.execution import Effects, Hook
from asynchooks.registry import HOOKS

__all__ = ["SwitchToDeployHook"]


@HOOKS.register_module()
class SwitchToDeployHook(Hook):
    """Calls ``switch_to_deploy()`` of the modules that have it, such as RepVGG's blocks, before a test.

    What is inside of such a module is left to it. The model stays so: it is not to be trained afterwards.
    """

    effects = Effects()

    def before_test_epoch(self, runner: Any) -> None:
        """Switch the model over."""
        modules = list(_outermost(runner.model))
        for module in modules:
            module.switch_to_deploy()
        if modules:
            runner.logger.info("SwitchToDeployHook: %d modules are in deploy mode.", len(modules))
        else:
            kind = type(runner.model).__name__
            runner.logger.warning("SwitchToDeployHook: no module of %s has switch_to_deploy().", kind)


def _outermost(module: nn.Module) -> Iterator[Any]:
    if callable(getattr(module, "switch_to_deploy", None)):
        yield module
        return
    for child in module.children():
        yield from _outermost(child)
