"""MMEngine's default constructor, which builds an optimizer wrapper."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from asynchooks.errors import ConfigError
from asynchooks.optim._constructors._options import MULTIPLIERS
from asynchooks.optim._constructors._paramwise import ParamwiseConstructor
from asynchooks.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS

__all__ = ["DefaultOptimWrapperConstructor"]

logger = logging.getLogger(__name__)


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class DefaultOptimWrapperConstructor(ParamwiseConstructor):
    """Builds the optimizer wrapper of a model: ``constructor(model)``.

    Without ``paramwise_cfg`` all parameters are in one group. With it each has its own, parameters without
    ``requires_grad`` are left out with one warning, and the options of ``paramwise_cfg`` are:

    - ``custom_keys``: ``{part of a name: dict(lr_mult=..., decay_mult=..., more fields of the group)}``. The longest
      key that is part of a parameter's name counts, the first by the alphabet among equally long ones; no other
      option then does.
    - ``bias_lr_mult``, ``bias_decay_mult``: for biases, except those of norm layers and of a deformable
      convolution's offsets.
    - ``norm_decay_mult``: for norm layers. ``dwconv_decay_mult``: for depth-wise convolutions.
      ``flat_decay_mult``: for other parameters of one dimension. The first of norm, bias, dwconv, flat counts.
    - ``dcn_offset_lr_mult``: for the offset layers of deformable convolutions.
    - ``bypass_duplicate``: leave out a parameter that had a group under another name, instead of an error.

    Args:
        optim_wrapper_cfg: ``dict(type="OptimWrapper", optimizer=dict(type=..., lr=...), ...)``.
        paramwise_cfg: the options.
        scope: scope that is asked first for a bare name.
    """

    options: ClassVar[tuple[str, ...]] = ("custom_keys", *MULTIPLIERS, "flat_decay_mult", "bypass_duplicate")
    extra_fields = True

    def __init__(
        self,
        optim_wrapper_cfg: Mapping[str, Any],
        paramwise_cfg: Mapping[str, Any] | None = None,
        *,
        scope: str | None = None,
    ) -> None:
        if not isinstance(optim_wrapper_cfg, Mapping) or "optimizer" not in optim_wrapper_cfg:
            raise ConfigError(
                f"{type(self).__name__} needs optim_wrapper_cfg=dict(optimizer=dict(type=...)), not "
                f"{optim_wrapper_cfg!r}."
            )
        self.optim_wrapper_cfg = {"type": "OptimWrapper", **optim_wrapper_cfg}
        optimizer_cfg = self.optim_wrapper_cfg.pop("optimizer")
        self._frozen: list[str] = []
        super().__init__(optimizer_cfg, paramwise_cfg, scope)
        OPTIM_WRAPPERS.check(self.optim_wrapper_cfg, scope=scope, provided=("optimizer",))

    def __call__(self, model: nn.Module) -> Any:
        """Return the optimizer wrapper of a model's parameters."""
        self._frozen = []
        optimizer: torch.optim.Optimizer = self.build_optimizer(model)
        if self._frozen:
            logger.warning(
                "parameters without requires_grad are not optimized: %s%s",
                ", ".join(self._frozen[:8]),
                ", ..." if len(self._frozen) > 8 else "",
            )
        return OPTIM_WRAPPERS.build(self.optim_wrapper_cfg, scope=self._scope, optimizer=optimizer)

    def _is_left_out(self, full_name: str, param: nn.Parameter) -> bool:
        if super()._is_left_out(full_name, param):
            return True
        if not param.requires_grad:
            self._frozen.append(full_name)
            return True
        return False

    def _add_rules(
        self, group: dict[str, Any], module: nn.Module, prefix: str, name: str, *, is_dcn: bool
    ) -> None:
        is_norm, is_bias = self._is_norm(module), name == "bias" and not is_dcn
        if is_bias and not is_norm:
            self._multiply(group, "lr", "bias_lr_mult", None)
        if self._is_dcn_offset(module, prefix, is_dcn=is_dcn):
            self._multiply(group, "lr", "dcn_offset_lr_mult", None)
        rules = {
            "norm_decay_mult": is_norm,
            "bias_decay_mult": is_bias,
            "dwconv_decay_mult": self._is_depthwise(module),
            "flat_decay_mult": group["params"][0].ndim == 1 and not is_dcn,
        }
        rule = next((rule for rule, holds in rules.items() if holds and rule in self.paramwise_cfg), None)
        if rule is not None:
            self._multiply(group, "weight_decay", rule, None)
