"""Averages that a model carries itself, as buffers ``ema_<name>``: MMCV's and MMDetection 2's way.

`ShadowWeights` knows the tensors; `ShadowPoints`, which hooks mix in, knows when they take the weights' place.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from asynchooks.errors import ConfigError
from asynchooks.optim._shards import local_part
from asynchooks.optim._unwrap import unwrapped

__all__ = ["ShadowPoints", "ShadowWeights", "linear_momentum"]


class ShadowWeights:
    """A moving average of a model's weights, in buffers of the model.

    Args:
        model: the model; it gets the buffers, unless it has them already.
        with_buffers: whether its buffers are averaged too; those that are no floating-point numbers are copied.

    Attributes:
        is_shown: whether the average stands where the weights belong, and the weights in the buffers.

    Raises:
        ConfigError: two names would have the same buffer.
    """

    def __init__(self, model: nn.Module, *, with_buffers: bool) -> None:
        self.model = model
        self.is_shown = False
        self._is_behind = False
        self._names = _buffer_names(model, with_buffers=with_buffers)
        present = dict(model.named_buffers())
        for name, source in self._sources().items():
            if self._names[name] not in present:
                model.register_buffer(self._names[name], source.detach().clone())

    @torch.no_grad()
    def update(self, momentum: float) -> None:
        """Let the weights enter the average: ``(1 - momentum) * average + momentum * weight``."""
        self._catch_up()
        pairs = list(self._pairs())
        floats = [pair for pair in pairs if pair[0].is_floating_point()]
        averages = [average for average, _ in floats]
        torch._foreach_mul_(averages, 1 - momentum)
        torch._foreach_add_(averages, [source for _, source in floats], alpha=momentum)
        for average, source in pairs:
            if not average.is_floating_point():
                average.copy_(source)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the average and the weights, in place."""
        self._catch_up()
        for average, source in self._pairs():
            kept = average.clone()
            average.copy_(source)
            source.copy_(kept)
        self.is_shown = not self.is_shown

    def settle(self, state_dict: dict[str, Any]) -> None:
        """Have the average under the weights' names in the entries of a state that is saved."""
        if not self.is_shown:
            self._catch_up()
            for name, buffer in self._names.items():
                state_dict[name], state_dict[buffer] = state_dict[buffer], state_dict[name]
            for name, first in self._aliases().items():
                if name in state_dict:
                    state_dict[name] = state_dict[first]

    def take_up(self, state_dict: dict[str, Any], *, is_resuming: bool) -> None:
        """Fit a state that was read, and is loaded next: one to continue from, or one to start with."""
        self.is_shown = is_resuming and all(buffer in state_dict for buffer in self._names.values())
        self._is_behind = not self.is_shown
        if self._is_behind:
            state_dict.update({b: state_dict[name] for name, b in self._names.items() if name in state_dict})

    def _catch_up(self) -> None:
        if self._is_behind:
            self._is_behind = False
            with torch.no_grad():
                for average, source in self._pairs():
                    average.copy_(source)

    def _aliases(self) -> dict[str, str]:
        """Return the further names of tied parameters, each with the first one."""
        firsts: dict[int, str] = {}
        named = self.model.named_parameters(remove_duplicate=False)
        return {name: first for name, p in named if (first := firsts.setdefault(id(p), name)) != name}

    def _pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        buffers = self.model._buffers  # noqa: SLF001 - of the model itself, not of its modules
        for name, source in self._sources().items():
            average = buffers[self._names[name]]
            if average is not None:
                yield local_part(average), local_part(source)

    def _sources(self) -> dict[str, Tensor]:
        tensors = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}
        return {name: tensors[name] for name in self._names}


class ShadowPoints:
    """The points at which such an average is updated, takes the weights' place and gives it back.

    Evaluations and saved weights are the average's, in loops that count epochs and in those that count iterations;
    training steps are the weights'. After a training the average stays in their place. A hook with it may change
    weights before an iteration too, so a copy that is under way is waited for there.
    """

    skip_buffers: bool
    checkpoint: Any = None  # MMCV's `resume_from`
    _shadow: ShadowWeights | None = None
    _updated: int | None = None  # the iteration whose weights are in the average

    def get_momentum(self, runner: Any) -> float:
        """Return the weight of the new value in this iteration."""
        raise NotImplementedError

    def _is_due(self, runner: Any) -> bool:
        raise NotImplementedError

    def before_run(self, runner: Any) -> None:
        """Give the model its buffers, and continue from ``resume_from``."""
        shadow = self._shadow
        if shadow is not None and all(module is not shadow.model for module in runner.model.modules()):
            self._shadow = None  # of another run's model
        self._prepare(runner)
        self._updated = None
        checkpoint, self.checkpoint = self.checkpoint, None
        if checkpoint is not None:
            runner.resume(checkpoint)

    def before_train_epoch(self, runner: Any) -> None:
        """Put the weights back."""
        self._show(runner, average=False)

    def before_train_iter(self, runner: Any, batch_idx: int = 0, data_batch: Any = None) -> None:
        """Put the weights back."""
        del batch_idx, data_batch
        self._show(runner, average=False)

    def after_train_iter(
        self, runner: Any, batch_idx: int = 0, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Update the average; where a hook evaluates at this point, put it in the weights' place."""
        del batch_idx, data_batch, outputs
        self._update(runner)
        if any(_evaluates_now(hook, runner) for hook in getattr(runner, "hooks", ())):
            self._show(runner, average=True)

    def after_train_epoch(self, runner: Any) -> None:
        """Put the average in the weights' place."""
        self._show(runner, average=True)

    def before_val_epoch(self, runner: Any) -> None:
        """Put the average in the weights' place."""
        self._show(runner, average=True)

    def before_val_iter(self, runner: Any, batch_idx: int = 0, data_batch: Any = None) -> None:
        """Put the average in the weights' place, where a loop has validation iterations alone."""
        del batch_idx, data_batch
        self._show(runner, average=True)

    def before_test_epoch(self, runner: Any) -> None:
        """Put the average in the weights' place."""
        self._show(runner, average=True)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Save the average as the weights, and the weights in the buffers."""
        position = checkpoint.get("resume", {}).get("position") or {}
        if position.get("iter") == runner.iter + 1:
            self._update(runner)  # this iteration's save comes before the hook's own turn
        self._prepare(runner).settle(checkpoint["state_dict"])

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Take up the weights and the average of a resumed run; start both from the weights of any other."""
        is_resuming = bool(getattr(runner, "is_resuming", False))
        self._updated = None
        self._prepare(runner).take_up(checkpoint["state_dict"], is_resuming=is_resuming)

    def _update(self, runner: Any) -> None:
        if self._updated != runner.iter:
            self._updated = runner.iter
            if self._is_due(runner):
                self._prepare(runner).update(self.get_momentum(runner))

    def _prepare(self, runner: Any) -> ShadowWeights:
        if self._shadow is None:
            self._shadow = ShadowWeights(unwrapped(runner.model), with_buffers=not self.skip_buffers)
        return self._shadow

    def _show(self, runner: Any, *, average: bool) -> None:
        shadow = self._prepare(runner)
        if shadow.is_shown is not average:
            shadow.swap()


def _buffer_names(model: nn.Module, *, with_buffers: bool) -> dict[str, str]:
    """Return the buffer of each name; a parameter that has two names counts once."""
    parameters = dict(model.named_parameters())
    everything = [*parameters, *(name for name, _ in model.named_buffers())]
    kept = model.state_dict().keys()
    own = {_buffer_name(name) for name in everything}
    chosen = everything if with_buffers else parameters
    names = {name: _buffer_name(name) for name in chosen if name in kept and name not in own}
    by_buffer = {buffer: name for name, buffer in names.items()}
    for name, buffer in names.items():
        if by_buffer[buffer] != name:
            raise ConfigError(
                f"The averages of {name} and {by_buffer[buffer]} would both be called {buffer}; rename one of them, "
                f"or use EMAHook, which keeps a copy of the model."
            )
    return names


def _buffer_name(name: str) -> str:
    return f"ema_{name.replace('.', '_')}"


def _evaluates_now(hook: Any, runner: Any) -> bool:
    """Whether a hook of MMCV's kind evaluates after this iteration."""
    is_due = getattr(hook, "_should_evaluate", None)
    return callable(is_due) and not getattr(hook, "by_epoch", True) and bool(is_due(runner))


def linear_momentum(momentum: float, interval: int, warm_up: int, iteration: int) -> float:
    """Return ``min(momentum ** interval, (1 + iteration) / (warm_up + iteration))``, as MMCV and MMDetection do.

    Args:
        momentum: the last momentum.
        interval: iterations between updates. (The power makes the average slower, not faster, with a longer
            interval; it is kept, since configurations count on its numbers.)
        warm_up: larger values start slower; 0 has none.
        iteration: iterations before this one.
    """
    last: float = momentum**interval
    start = warm_up + iteration
    return last if start == 0 else min(last, (1 + iteration) / start)
