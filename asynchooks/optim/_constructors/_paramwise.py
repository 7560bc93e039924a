"""Walks over a model and makes one parameter group per parameter, with the options that apply to it.

What both projects' default constructors share. Which rule comes first, and what is left out, is theirs.
"""

from __future__ import annotations

import inspect
import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import GroupNorm, LayerNorm
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from asynchooks.errors import ConfigError
from asynchooks.optim._constructors._options import checked_paramwise, sorted_keys
from asynchooks.optim._unwrap import unwrapped
from asynchooks.registry import OPTIMIZERS

__all__ = ["ParamwiseConstructor"]

logger = logging.getLogger(__name__)

_NORMS = (_BatchNorm, _InstanceNorm, GroupNorm, LayerNorm)
# Deformable convolutions of MMCV or torchvision, known by their names: neither is needed to look for them.
_DEFORMABLE = ("DeformConv2d", "ModulatedDeformConv2d")


class ParamwiseConstructor(ABC):
    """Builds an optimizer whose parameters have groups of their own where options say so.

    A subclass may override `add_params`.

    Args:
        optimizer_cfg: ``dict(type=..., lr=..., ...)``.
        paramwise_cfg: options.
        scope: scope that is asked first for a bare name.
    """

    options: ClassVar[tuple[str, ...]]
    extra_fields = False

    def __init__(
        self, optimizer_cfg: Any, paramwise_cfg: Mapping[str, Any] | None, scope: str | None
    ) -> None:
        name = type(self).__name__
        if not isinstance(optimizer_cfg, Mapping):
            raise ConfigError(
                f"{name} builds an optimizer from a dict such as dict(type='SGD', lr=0.1), not from "
                f"{optimizer_cfg!r}."
            )
        self.optimizer_cfg = dict(optimizer_cfg)
        self.paramwise_cfg = checked_paramwise(
            name, paramwise_cfg, self.options, optimizer_cfg, extra_fields=self.extra_fields
        )
        self.base_lr: Any = optimizer_cfg.get("lr")
        self.base_wd: Any = optimizer_cfg.get("weight_decay")
        self._scope = scope
        self._seen: dict[int, str] = {}
        self._used_keys: set[str] = set()

    def build_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return the optimizer of a model's parameters."""
        model = unwrapped(model)
        kind, options = OPTIMIZERS.resolve(self.optimizer_cfg, scope=self._scope)
        parameters: Any = model.parameters()
        if self.paramwise_cfg:
            self._seen, self._used_keys = {}, set()
            parameters = []
            self.add_params(parameters, model)
            self._report(parameters)
        first = next(iter(inspect.signature(kind).parameters), "params")  # not always "params"
        optimizer: torch.optim.Optimizer = OPTIMIZERS.build({"type": kind, **options}, **{first: parameters})
        return optimizer

    def add_params(
        self,
        params: list[dict[str, Any]],
        module: nn.Module,
        prefix: str = "",
        is_dcn_module: bool | None = None,  # noqa: FBT001 - MMEngine's signature
    ) -> None:
        """Append a group for each parameter of a module, and of the modules in it, to ``params``."""
        for name, param in module.named_parameters(recurse=False):
            full_name = f"{prefix}.{name}" if prefix else name
            if self._is_left_out(full_name, param):
                continue
            group: dict[str, Any] = {"params": [param]}
            if param.requires_grad and not self._add_custom(group, f"{prefix}.{name}"):
                self._add_rules(group, module, prefix, name, is_dcn=bool(is_dcn_module))
            for key, value in group.items():
                if key != "params":
                    logger.info("paramwise: %s: %s=%s", full_name, key, value)
            params.append(group)
        is_dcn = any(base.__name__ in _DEFORMABLE for base in type(module).__mro__)
        for name, child in module.named_children():
            self.add_params(params, child, f"{prefix}.{name}" if prefix else name, is_dcn)

    @abstractmethod
    def _add_rules(
        self, group: dict[str, Any], module: nn.Module, prefix: str, name: str, *, is_dcn: bool
    ) -> None:
        """Add what the general options say of a parameter to its group."""

    def _is_left_out(self, full_name: str, param: nn.Parameter) -> bool:
        """Whether a parameter has a group already.

        Raises:
            ConfigError: it has, and nobody said that this may be.
        """
        first = self._seen.setdefault(id(param), full_name)
        if first == full_name:
            return False
        if not self.paramwise_cfg.get("bypass_duplicate", False):
            raise ConfigError(
                f"{type(self).__name__}: {full_name} is the same parameter as {first}, and an optimizer takes each "
                f"once. Set paramwise_cfg=dict(bypass_duplicate=True) to leave out the second."
            )
        logger.warning("%s is the same parameter as %s and is left out", full_name, first)
        return True

    def _add_custom(self, group: dict[str, Any], dotted: str) -> bool:
        """Add what the first matching custom key says; return whether one matches."""
        custom_keys: Mapping[str, Any] = self.paramwise_cfg.get("custom_keys", {})
        key = next((key for key in sorted_keys(custom_keys) if key in dotted), None)
        if key is None:
            return False
        self._used_keys.add(key)
        options = custom_keys[key]
        if self.base_lr is not None:
            group["lr"] = self.base_lr * options.get("lr_mult", 1.0)
        if self.base_wd is not None:
            group["weight_decay"] = self.base_wd * options.get("decay_mult", 1.0)
        if self.extra_fields:
            group.update(options)
        return True

    def _multiply(self, group: dict[str, Any], key: str, option: str, default: float | None) -> None:
        base = self.base_lr if key == "lr" else self.base_wd
        factor = self.paramwise_cfg.get(option, default)
        if base is not None and factor is not None:
            group[key] = base * factor

    def _report(self, parameters: list[dict[str, Any]]) -> None:
        unused = [key for key in self.paramwise_cfg.get("custom_keys", {}) if key not in self._used_keys]
        if unused and self._seen:
            logger.warning("custom_keys that are part of no parameter's name: %s", ", ".join(unused))
        if not parameters:
            raise ConfigError(f"{type(self).__name__}: the model has no parameter to optimize.")

    @staticmethod
    def _is_norm(module: nn.Module) -> bool:
        return isinstance(module, _NORMS)

    @staticmethod
    def _is_depthwise(module: nn.Module) -> bool:
        return isinstance(module, nn.Conv2d) and module.in_channels == module.groups

    @staticmethod
    def _is_dcn_offset(module: nn.Module, prefix: str, *, is_dcn: bool) -> bool:
        return is_dcn and "conv_offset" in prefix and isinstance(module, nn.Conv2d)
