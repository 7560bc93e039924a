"""What a hook is, and how the shape of a method says where it runs.

``def`` blocks; ``@background def`` captures on the training thread and may return a zero-argument async
function for the background; ``async def`` runs in the background whole. Decides nothing about order.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

from asynchooks.errors import HookDefinitionError
from asynchooks.execution._convention import MMCV_GENERIC, adapted
from asynchooks.execution._points import GENERIC_METHODS, POINTS
from asynchooks.execution._priority import PriorityLike

if TYPE_CHECKING:
    from asynchooks.execution._effects import Effects

__all__ = [
    "BackgroundPart",
    "DataBatch",
    "Hook",
    "OnError",
    "Shape",
    "WhenBusy",
    "background",
    "overridden_method",
    "shape_of",
]

BackgroundPart: TypeAlias = Callable[[], Awaitable[None]]
DataBatch: TypeAlias = Any
OnError: TypeAlias = Literal["raise", "warn"]
WhenBusy: TypeAlias = Literal["wait", "skip", "coalesce"]
Shape: TypeAlias = Literal["blocking", "capture", "async", "worker"]

_MARK = "__asynchooks_background__"
_Method = TypeVar("_Method", bound=Callable[..., BackgroundPart | None])


def background(method: _Method) -> _Method:
    """Declare a method as capture + background part.

    The method (the capture) runs on the training thread, in its place in the order. It returns None, or a
    zero-argument async function (the background part), which runs in the background task group.

    Raises:
        HookDefinitionError: the method is ``async def`` already, or no function.
    """
    name = getattr(method, "__qualname__", repr(method))
    if inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method):
        raise HookDefinitionError(
            f"{name} is both @background and async def. Use `async def` alone to run the whole body in the "
            f"background, or `@background def` to capture first and return an async function."
        )
    if not inspect.isfunction(method):
        raise HookDefinitionError(f"@background decorates a method (a plain `def`), not {method!r}.")
    setattr(method, _MARK, True)
    return method


def shape_of(method: Callable[..., object]) -> Shape:
    """Return how a bound hook method runs, as its definition says."""
    function = inspect.unwrap(getattr(method, "__func__", method))
    if inspect.iscoroutinefunction(method) or inspect.iscoroutinefunction(function):
        return "async"
    return "capture" if getattr(method, _MARK, False) or getattr(function, _MARK, False) else "blocking"


class Hook:
    """Base of hooks: override the methods named after the hook points that you need.

    Not overridden methods cost nothing at run time. Any object with methods of these names is a hook too;
    this base adds the attributes' defaults, the generic methods and the interval helpers. A hook that has
    ``state_dict()`` and ``load_state_dict(state)`` is saved in a run's checkpoints and resumed with it. One that
    holds something open has ``close()``, which a run that fails calls in the place of ``after_run``.

    Attributes:
        priority: name or int 0-100; lower runs earlier.
        effects: external resources that the hook reads and writes; None means unknown.
        fires: hook points that its background parts fire (such as ``after_save_checkpoint``); the hook then
            counts as touching what the listeners of these points touch.
        changes_state: whether its foreground parts may change what a checkpoint holds: weights, buffers, the
            optimizer's state. While a capture is still being copied (see `HookExecutor.before_next_change`),
            such a part waits for the copy. False is a promise: nothing checks all of it.
        on_error: "raise" a background failure on the training thread, or "warn" (log once per kind, count).
        when_busy: what happens when there is no room for one more background part: "wait", "skip" the new
            one, or "coalesce" (the new one replaces one that has not started).
        max_in_flight: at most so many background parts of this hook at once; None leaves it to the executor.
        convention: "mmengine": methods take their point's arguments. "mmcv": those that take the runner alone are
            called with it, and ``before_epoch``, ``after_epoch``, ``before_iter``, ``after_iter`` serve the
            training and validation points that are not overridden.
    """

    _is_hook_base = True  # of this class alone: its own methods count as not overridden

    priority: PriorityLike = "NORMAL"
    effects: Effects | None = None
    fires: tuple[str, ...] = ()
    changes_state: bool = True
    on_error: OnError = "raise"
    when_busy: WhenBusy = "wait"
    max_in_flight: int | None = None
    convention: Literal["mmengine", "mmcv"] = "mmengine"

    stages: tuple[str, ...] = POINTS

    def before_run(self, runner: Any) -> Any:
        """Before everything else of a train, val or test run."""

    def after_run(self, runner: Any) -> Any:
        """After everything else of a run that ended well."""

    def close(self) -> None:
        """Let go of what the hook holds: files, a service, a folder. No hook point.

        Called on the training thread when a run that this hook is registered for has failed, after everything in
        flight has finished or was given up; blocks. Nothing may be open, or all of it closed already: then it
        does nothing. The hook may serve another run afterwards.
        """

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> Any:
        """After a checkpoint was read, before its content goes into the run."""

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> Any:
        """Before a checkpoint is captured; may change its content. Must not start a collective."""

    def after_save_checkpoint(self, runner: Any, path: str, meta: Mapping[str, Any]) -> Any:
        """After a checkpoint is durable. Fired from the background."""

    def before_train(self, runner: Any) -> Any:
        """Before the first training epoch."""

    def after_train(self, runner: Any) -> Any:
        """After the last training epoch."""

    def before_val(self, runner: Any) -> Any:
        """Before a validation."""

    def after_val(self, runner: Any) -> Any:
        """After a validation."""

    def before_test(self, runner: Any) -> Any:
        """Before a test."""

    def after_test(self, runner: Any) -> Any:
        """After a test."""

    def before_train_epoch(self, runner: Any) -> Any:
        """Before each training epoch; once in an iteration-based loop."""
        return self._before_epoch(runner, mode="train")

    def before_val_epoch(self, runner: Any) -> Any:
        """Before each validation epoch."""
        return self._before_epoch(runner, mode="val")

    def before_test_epoch(self, runner: Any) -> Any:
        """Before each test epoch."""
        return self._before_epoch(runner, mode="test")

    def after_train_epoch(self, runner: Any) -> Any:
        """After each training epoch, before the epoch counter goes on."""
        return self._after_epoch(runner, mode="train")

    def after_val_epoch(self, runner: Any, metrics: Mapping[str, float] | None = None) -> Any:
        """After each validation epoch, with its metrics."""
        return self._after_epoch(runner, mode="val")

    def after_test_epoch(self, runner: Any, metrics: Mapping[str, float] | None = None) -> Any:
        """After each test epoch, with its metrics."""
        return self._after_epoch(runner, mode="test")

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: DataBatch = None) -> Any:
        """Before each training iteration."""
        return self._before_iter(runner, batch_idx=batch_idx, data_batch=data_batch, mode="train")

    def before_val_iter(self, runner: Any, batch_idx: int, data_batch: DataBatch = None) -> Any:
        """Before each validation iteration."""
        return self._before_iter(runner, batch_idx=batch_idx, data_batch=data_batch, mode="val")

    def before_test_iter(self, runner: Any, batch_idx: int, data_batch: DataBatch = None) -> Any:
        """Before each test iteration."""
        return self._before_iter(runner, batch_idx=batch_idx, data_batch=data_batch, mode="test")

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: DataBatch = None, outputs: Any = None
    ) -> Any:
        """After each training iteration, before the iteration counter goes on."""
        return self._after_iter(
            runner, batch_idx=batch_idx, data_batch=data_batch, outputs=outputs, mode="train"
        )

    def after_val_iter(
        self, runner: Any, batch_idx: int, data_batch: DataBatch = None, outputs: Any = None
    ) -> Any:
        """After each validation iteration."""
        return self._after_iter(
            runner, batch_idx=batch_idx, data_batch=data_batch, outputs=outputs, mode="val"
        )

    def after_test_iter(
        self, runner: Any, batch_idx: int, data_batch: DataBatch = None, outputs: Any = None
    ) -> Any:
        """After each test iteration."""
        return self._after_iter(
            runner, batch_idx=batch_idx, data_batch=data_batch, outputs=outputs, mode="test"
        )

    def _before_epoch(self, runner: Any, mode: str = "train") -> Any:
        """Before each epoch of any mode, unless the mode's own method is overridden."""

    def _after_epoch(self, runner: Any, mode: str = "train") -> Any:
        """After each epoch of any mode, unless the mode's own method is overridden."""

    def _before_iter(
        self, runner: Any, batch_idx: int, data_batch: DataBatch = None, mode: str = "train"
    ) -> Any:
        """Before each iteration of any mode, unless the mode's own method is overridden."""

    def _after_iter(
        self,
        runner: Any,
        batch_idx: int,
        data_batch: DataBatch = None,
        outputs: Any = None,
        mode: str = "train",
    ) -> Any:
        """After each iteration of any mode, unless the mode's own method is overridden."""

    @staticmethod
    def every_n_epochs(runner: Any, n: int, start: int = 0) -> bool:
        """Whether the epoch that ends now is the n-th since ``start``; never for n <= 0."""
        done = runner.epoch + 1 - start
        return n > 0 and done >= 0 and done % n == 0

    @staticmethod
    def every_n_train_iters(runner: Any, n: int, start: int = 0) -> bool:
        """Whether the iteration that ends now is the n-th since ``start``; never for n <= 0."""
        done = runner.iter + 1 - start
        return n > 0 and done >= 0 and done % n == 0

    @staticmethod
    def every_n_inner_iters(batch_idx: int, n: int) -> bool:
        """Whether this iteration is the n-th inside its epoch; never for n <= 0."""
        return n > 0 and (batch_idx + 1) % n == 0

    @staticmethod
    def end_of_epoch(dataloader: Sequence[Any], batch_idx: int) -> bool:
        """Whether this is the last batch of a data loader that has a length."""
        return batch_idx + 1 == len(dataloader)

    @staticmethod
    def is_last_train_epoch(runner: Any) -> bool:
        """Whether the epoch that ends now is the last of the run."""
        return bool(runner.epoch + 1 == runner.max_epochs)

    @staticmethod
    def is_last_train_iter(runner: Any) -> bool:
        """Whether the iteration that ends now is the last of the run."""
        return bool(runner.iter + 1 == runner.max_iters)

    def get_triggered_stages(self) -> list[str]:
        """Return the hook points at which this hook does something, in the order of a run."""
        return [point for point in POINTS if overridden_method(self, point) is not None]


def overridden_method(hook: object, point: str) -> tuple[Callable[..., Any], str | None] | None:
    """Return what runs for a hook at a point: the bound method and the mode it must be given, or None.

    The method of the point's own name wins, on the instance or its class; a generic method such as
    ``_after_iter`` serves the points that are not overridden and needs its mode.
    """
    method = getattr(hook, point, None)
    if method is not None and not callable(method):
        return None if not isinstance(hook, Hook) or point not in POINTS else _not_a_method(hook, point)
    follows_mmcv = getattr(hook, "convention", None) == "mmcv"
    if method is not None and not (isinstance(hook, Hook) and _is_base(hook, point)):
        return (adapted(method, point) if follows_mmcv else method), None
    generic = GENERIC_METHODS.get(point)
    if isinstance(hook, Hook) and generic is not None and not _is_base(hook, generic[0]):
        return getattr(hook, generic[0]), generic[1]
    if follows_mmcv and point in MMCV_GENERIC:
        method = getattr(hook, MMCV_GENERIC[point], None)
        if callable(method) and not (isinstance(hook, Hook) and _is_base(hook, MMCV_GENERIC[point])):
            return adapted(method, point), None
    return None


def _is_base(hook: Hook, name: str) -> bool:
    if name in vars(hook):
        return False
    owner = next((each for each in type(hook).__mro__ if name in vars(each)), None)
    return owner is not None and bool(vars(owner).get("_is_hook_base"))


def _not_a_method(hook: object, point: str) -> Any:
    raise HookDefinitionError(f"{type(hook).__name__}.{point} is a hook point but no method.")
