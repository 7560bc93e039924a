"""Every rank has the whole model; gradients are averaged in backward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from asynchooks.errors import ConfigError, did_you_mean
from asynchooks.registry import STRATEGIES
from asynchooks.runner._strategy._reduction import Reduction, share_from_first

__all__ = ["DDP", "adopt"]


@STRATEGIES.register_module(name=["DDP", "DDPStrategy", "MMDistributedDataParallel"])
class DDP:
    """Data-parallel training with torch's `DistributedDataParallel`, on the model itself.

    The model keeps its class, its names and its own ``train_step``, which must call the model (``self(...)``): what
    goes past its forward exchanges no gradients.

    Args:
        find_unused_parameters: whether parameters may get no gradient in an iteration.
        broadcast_buffers: whether the first rank's buffers (BatchNorm's statistics, say) replace the others' before
            each training forward. MMEngine's default is not to; then what a checkpoint holds is the first rank's.
        static_graph: whether every iteration uses the same parameters in the same way.
        bucket_cap_mb: size of the buckets in which gradients are exchanged, in MiB.
        gradient_as_bucket_view: whether gradients are views of those buckets, which saves a copy.
        modules: names of the submodules that exchange gradients each on its own, for a model whose ``train_step``
            calls them and not the model: ``["generator", "discriminator"]``.
        sync_bn: "torch" converts BatchNorm layers to torch's `SyncBatchNorm`.
        model_wrapper: the options above as MMEngine's dict.
    """

    def __init__(
        self,
        *,
        find_unused_parameters: bool = False,
        broadcast_buffers: bool = True,
        static_graph: bool = False,
        bucket_cap_mb: float | None = None,
        gradient_as_bucket_view: bool = False,
        modules: Sequence[str] | None = None,
        sync_bn: str | None = None,
        model_wrapper: Mapping[str, Any] | None = None,
    ) -> None:
        if sync_bn not in (None, "torch"):
            raise ConfigError(f"sync_bn is 'torch' or None, not {sync_bn!r}.")
        options: dict[str, Any] = {
            "find_unused_parameters": find_unused_parameters,
            "broadcast_buffers": broadcast_buffers,
            "static_graph": static_graph,
            "bucket_cap_mb": bucket_cap_mb,
            "gradient_as_bucket_view": gradient_as_bucket_view,
        }
        for name, value in (model_wrapper or {}).items():
            if name not in ("type", *options):
                raise ConfigError(
                    f"model_wrapper takes no {name!r}.{did_you_mean(name, options)} It takes: {', '.join(options)}."
                )
            options[name] = value
        options.pop("type", None)
        self._broadcast_buffers = options.pop("broadcast_buffers")
        self._options = {name: value for name, value in options.items() if value is not None}
        self._modules = modules
        self._sync_bn = sync_bn

    def wrap(self, model: nn.Module) -> nn.Module:
        """Have a model's ranks start with the first one's weights and average their gradients. A collective."""
        if self._sync_bn is not None:
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        share_from_first(model)
        named = dict(model.named_modules())
        chosen = [named.get(name) or _no_module(model, name) for name in self._modules or [""]]
        reductions = [each for each in map(self._reduction, chosen) if each is not None]
        _offer(model, reductions)
        return model

    def _reduction(self, module: nn.Module) -> Reduction | None:
        parameters = [p for p in module.parameters() if p.requires_grad]
        if not parameters:
            return None
        ddp = DistributedDataParallel(nn.ParameterList(parameters), **self._options)
        return Reduction(module, ddp, broadcast_buffers=self._broadcast_buffers)


def adopt(model: DistributedDataParallel) -> None:
    """Let a model that the user has wrapped take part with its own ``train_step``, where it has one."""
    inner = model.module
    if hasattr(inner, "train_step"):
        _offer(inner, [Reduction(inner, model, broadcast_buffers=False)])


def _offer(model: nn.Module, reductions: Sequence[Reduction]) -> None:
    """Give a model the method that FSDP2's have, by which a step says whether its gradients are exchanged."""
    if reductions:
        model.__dict__["set_requires_gradient_sync"] = _Switch(reductions)


class _Switch:
    def __init__(self, reductions: Sequence[Reduction]) -> None:
        self._reductions = reductions

    @property
    def is_passed_by(self) -> bool:
        """Whether no forward has taken part so far."""
        return not any(reduction.forwards for reduction in self._reductions)

    def __call__(self, requires_gradient_sync: bool) -> None:  # noqa: FBT001 - torch's name
        for reduction in self._reductions:
            reduction.set_requires_gradient_sync(requires_gradient_sync)


def _no_module(model: nn.Module, name: str) -> nn.Module:
    known = [each for each, _ in model.named_modules() if each]
    raise ConfigError(
        f"strategy: modules names {name!r}, and {type(model).__name__} has no such module."
        f"{did_you_mean(name, known)}"
    )
