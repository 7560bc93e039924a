"""Keeps an average of the weights beside the training, and lets it serve validation, test and deployment.

Decides when the average begins, and when it takes the weights' place. How weights are averaged is the averaged
model's (`asynchooks.optim`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from asynchooks.errors import ConfigError, ForeignCheckpointError
from asynchooks.execution import Effects, Hook
from asynchooks.optim import BaseAveragedModel, check_averaged_model, fitted, unwrapped
from asynchooks.registry import HOOKS, MODELS, check_handed_on

__all__ = ["EMAHook"]

logger = logging.getLogger(__name__)

_PREFIX = "module."  # of the copy's keys in an averaged model's state


@HOOKS.register_module()
class EMAHook(Hook):
    """Averages the weights after each training step; validations and tests run with the average.

    In checkpoints, ``state_dict`` holds the average, ready for deployment, and ``ema_state_dict`` the weights that
    training goes on with and the average's step counter. Only a resumed run exchanges them back; ``load_from``
    starts both from the average. Unlike with MMEngine's, an average outlives the end of a training: ``val()`` and
    ``test()`` after it run with it.

    Args:
        ema_type: averaged model, by its name in MODELS: "ExponentialMovingAverage", "StochasticWeightAverage",
            "MomentumAnnealingEMA", "ExpMomentumEMA", or one's own; or a class.
        strict_load: whether a loaded average must have exactly the model's keys.
        begin_iter: iteration, counted from 1, with which averaging begins; the average is the weights until then.
        begin_epoch: the same as an epoch; not both.
        **kwargs: the averaged model's options: ``momentum``, ``interval``, ``gamma``, ``device``,
            ``update_buffers``.

    Raises:
        ConfigError, UnknownNameError, UnknownOptionError: at construction, or in ``before_train`` where averaging
            would begin after the end.
    """

    priority = "NORMAL"
    effects = Effects()

    def __init__(
        self,
        ema_type: Any = "ExponentialMovingAverage",
        strict_load: bool = False,  # noqa: FBT001, FBT002 - MMEngine's signature
        begin_iter: int = 0,
        begin_epoch: int = 0,
        **kwargs: Any,
    ) -> None:
        for name, value in (("begin_iter", begin_iter), ("begin_epoch", begin_epoch)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ConfigError(f"EMAHook: {name} is an int of at least 0, not {value!r}.")
        if begin_iter and begin_epoch:
            raise ConfigError(
                f"EMAHook begins at begin_iter={begin_iter} or at begin_epoch={begin_epoch}, not both."
            )
        check_handed_on(type(self), kwargs)
        self.ema_cfg = {"type": ema_type, **kwargs}
        check_averaged_model(self.ema_cfg)
        self.strict_load = strict_load
        self.begin_iter = begin_iter
        self.begin_epoch = begin_epoch
        self._ema: BaseAveragedModel | None = None
        self._source: nn.Module | None = None
        self._is_swapped = False
        self._is_behind = False  # the average is the weights, and was not copied since they changed

    @property
    def ema_model(self) -> Any:
        """The averaged model; while it serves a validation or test, it holds the training's weights."""
        if self._is_behind and self._ema is not None and self._source is not None:
            self._ema.copy_from(self._source)
            self._is_behind = False
        return self._ema

    def before_run(self, runner: Any) -> None:
        """Copy the model, unless it is averaged already."""
        if self._source is not None and all(m is not self._source for m in runner.model.modules()):
            self._ema = None
        self._prepare(runner)

    def before_train(self, runner: Any) -> None:
        """Check that averaging begins before the end."""
        limits = (
            ("begin_iter", self.begin_iter, runner.max_iters),
            ("begin_epoch", self.begin_epoch, runner.max_epochs),
        )
        for name, begin, end in limits:
            if begin and end is not None and begin > end:
                raise ConfigError(f"EMAHook: {name}={begin} lies after the end of the training, {end}.")
        self._swap(runner, to_average=False)  # an evaluation that failed may have left it

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Average, or note that the average is still the weights."""
        del batch_idx, data_batch, outputs
        self._prepare(runner)
        if self._has_begun(runner):
            self.ema_model.update_parameters(self._source)
        else:
            self._is_behind = True

    def before_val_epoch(self, runner: Any) -> None:
        """Put the average in the weights' place."""
        self._swap(runner, to_average=True)

    def after_val_epoch(self, runner: Any, metrics: Mapping[str, float] | None = None) -> None:
        """Put the weights back."""
        del metrics
        self._swap(runner, to_average=False)

    def before_test_epoch(self, runner: Any) -> None:
        """Put the average in the weights' place."""
        self._swap(runner, to_average=True)

    def after_test_epoch(self, runner: Any, metrics: Mapping[str, float] | None = None) -> None:
        """Put the weights back."""
        del metrics
        self._swap(runner, to_average=False)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Put the average where the weights were, and the weights beside it.

        The content holds live tensors still; what is saved is copied of it afterwards, whole.
        """
        self._prepare(runner)
        checkpoint["ema_state_dict"] = self.ema_model.state_dict()
        if not self._is_swapped:
            _exchange(checkpoint)

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Take up the average: of a resumed run with its own weights, otherwise as the weights to start with."""
        self._prepare(runner)
        self._swap(runner, to_average=False)
        self._is_behind = False
        is_resuming = getattr(runner, "is_resuming", False)
        if is_resuming and "ema_state_dict" in checkpoint:
            _exchange(checkpoint)
            self._load(self._ema, checkpoint["ema_state_dict"])
            return
        if is_resuming:
            logger.warning("the checkpoint holds no ema_state_dict: the average starts with its weights")
        self._load(self.ema_model.module, checkpoint["state_dict"])

    def _prepare(self, runner: Any) -> None:
        if self._ema is None:
            self._source = unwrapped(runner.model)
            self._ema = MODELS.build(self.ema_cfg, model=self._source)
            self._is_swapped = self._is_behind = False

    def _has_begun(self, runner: Any) -> bool:
        if self.begin_epoch:
            return bool(runner.epoch + 1 >= self.begin_epoch)
        return bool(runner.iter + 1 >= self.begin_iter)

    def _swap(self, runner: Any, *, to_average: bool) -> None:
        self._prepare(runner)
        if self._is_swapped is not to_average:
            self.ema_model.swap_with(self._source)
            self._is_swapped = to_average

    def _load(self, model: Any, state: Mapping[str, Any]) -> None:
        try:
            missing, unexpected = model.load_state_dict(
                fitted(state, model.state_dict()), strict=self.strict_load
            )
        except RuntimeError as error:
            raise ForeignCheckpointError(
                f"EMAHook: the checkpoint's average does not fit the model: {error}"
            ) from error
        if missing or unexpected:
            logger.warning(
                "average: missing in the checkpoint: %s; not in the model: %s", missing, unexpected
            )


def _exchange(checkpoint: dict[str, Any]) -> None:
    """Exchange the entries of ``state_dict`` and ``ema_state_dict``: the entries, not the tensors."""
    weights: dict[str, Tensor] = checkpoint["state_dict"]
    average: dict[str, Tensor] = checkpoint["ema_state_dict"]
    for key in [key for key in average if key.startswith(_PREFIX)]:
        name = key.removeprefix(_PREFIX)
        if name in weights:
            average[key], weights[name] = weights[name], average[key]
