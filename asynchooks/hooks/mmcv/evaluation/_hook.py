"""Evaluation on this process: when, on what, and what becomes of the result."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from asynchooks.checkpoint import before_step
from asynchooks.distributed import broadcast_object
from asynchooks.execution import Effects, RunnerHook, background
from asynchooks.hooks.mmcv.evaluation._best import BestKeeper, check_best
from asynchooks.hooks.mmcv.evaluation._inference import single_gpu_test
from asynchooks.hooks.mmcv.evaluation._missed import MissedEvaluation
from asynchooks.hooks.mmcv.evaluation._schedule import Schedule
from asynchooks.registry import MMCV_HOOKS, check_handed_on

if TYPE_CHECKING:
    from asynchooks.execution._hook import BackgroundPart

__all__ = ["EvalHook"]


@MMCV_HOOKS.register_module()
class EvalHook(MissedEvaluation, RunnerHook):
    """Evaluates a data set every so often, and keeps the checkpoint that does best.

    The model's results go to ``dataloader.dataset.evaluate(results, logger=..., **eval_kwargs)``, which returns the
    metrics; they go to the log buffer. What the evaluation draws at random does not change the training. The best
    checkpoint, ``best_{metric}_epoch_{n}.pth``, is saved in the background; the one before goes when it is whole.
    Any score counts, 0.0 too. A run that is resumed makes up for an evaluation that the interruption has cut off.

    Args:
        dataloader: a loader whose data set has ``evaluate``.
        start: the first epoch or iteration after which an evaluation runs; a run that starts or is resumed there or
            later evaluates once before it trains. None for the multiples of ``interval``.
        interval: epochs or iterations from one evaluation to the next.
        by_epoch: whether epochs are counted (else iterations).
        save_best: metric whose best checkpoint is kept; "auto" takes the first metric of the first evaluation.
        rule: "greater", "less", or None: inferred from the metric's name.
        test_fn: function of model and loader that returns the results, in place of `single_gpu_test`.
        greater_keys: names, or parts of names, of metrics of which more is better.
        less_keys: the same where less is better.
        out_dir: folder or URL of the best checkpoint; the name of the run's folder is appended where it differs.
        file_client_args: old name of ``backend_args``.
        dynamic_intervals: ``[(from, interval), ...]``, later intervals, as in MMDetection.
        backend_args: fsspec's options for the store.
        eval_kwargs: handed to ``evaluate``.

    Raises:
        TypeError, ValueError, KeyError: an argument is wrong.
    """

    priority = "LOW"
    effects = Effects(writes={"checkpoints"})
    fires = ("after_save_checkpoint",)
    changes_state = False  # an evaluation, which may, waits itself; where none is due, nothing waits

    def __init__(
        self,
        dataloader: Any,
        start: int | None = None,
        interval: int = 1,
        by_epoch: bool = True,  # noqa: FBT001, FBT002 - MMCV's order of arguments
        save_best: str | None = None,
        rule: str | None = None,
        test_fn: Callable[..., Any] | None = None,
        greater_keys: str | Sequence[str] | None = None,
        less_keys: str | Sequence[str] | None = None,
        out_dir: str | os.PathLike[str] | None = None,
        file_client_args: Mapping[str, Any] | None = None,
        *,
        dynamic_intervals: Sequence[tuple[int, int]] | None = None,
        backend_args: Mapping[str, Any] | None = None,
        **eval_kwargs: Any,
    ) -> None:
        name = type(self).__name__
        if not hasattr(dataloader, "dataset"):
            raise TypeError(f"{name} takes a DataLoader whose data set has evaluate(), not {dataloader!r}.")
        if not isinstance(by_epoch, bool):
            raise TypeError(f"{name}(by_epoch={by_epoch!r}): give True or False.")
        check_best(name, save_best, rule)
        check_handed_on(type(self), eval_kwargs)  # to the data set's evaluate(), whatever else their names
        self._schedule = Schedule(name, interval, start, dynamic_intervals)
        self.dataloader = dataloader
        self.by_epoch = by_epoch
        self.save_best = save_best
        self.rule = rule
        self.test_fn = self._default_test if test_fn is None else test_fn
        self.eval_kwargs = eval_kwargs
        self.initial_flag = True
        self.latest_results: Any = None
        self.latest_metrics: Mapping[str, Any] = {}
        self._keeper: BestKeeper | None = None
        if save_best is not None:
            options = {
                "rule": rule,
                "greater_keys": greater_keys,
                "less_keys": less_keys,
                "out_dir": out_dir,
                "file_client_args": file_client_args,
                "backend_args": backend_args,
            }
            self._keeper = BestKeeper(save_best, by_epoch=by_epoch, options=options)

    @property
    def interval(self) -> int:
        """Epochs or iterations from one evaluation to the next, as it is now."""
        return self._schedule.interval

    @property
    def start(self) -> int | None:
        """The first epoch or iteration after which an evaluation runs, or None."""
        return self._schedule.start

    def before_run(self, runner: Any) -> None:
        """Check that the best checkpoint can be saved, before anything is trained.

        Raises:
            StorageError: the store refuses or is not there.
        """
        self.initial_flag = True
        self._begin(runner)
        if self._keeper is not None:
            self._keeper.start(runner)

    @background
    def before_train_iter(self, runner: Any) -> BackgroundPart | None:  # type: ignore[override]
        """Evaluate before the training goes on, where it starts late enough and iterations are counted."""
        return None if self.by_epoch else self._before_turn(runner)

    @background
    def before_train_epoch(self, runner: Any) -> BackgroundPart | None:
        """Evaluate before the training goes on, where it starts late enough and epochs are counted."""
        return self._before_turn(runner) if self.by_epoch else None

    @background
    def after_train_iter(self, runner: Any) -> BackgroundPart | None:  # type: ignore[override]
        """Evaluate, where iterations are counted and one is due."""
        if self.by_epoch or not self._should_evaluate(runner):
            return None
        runner.flush_log()  # what the loggers have of the training is not to mix with the metrics
        return self._do_evaluate(runner, {"epoch": runner.epoch, "iter": runner.iter + 1})

    @background
    def after_train_epoch(self, runner: Any) -> BackgroundPart | None:
        """Evaluate, where epochs are counted and one is due."""
        if not self.by_epoch or not self._should_evaluate(runner):
            return None
        return self._do_evaluate(runner, {"epoch": runner.epoch + 1, "iter": runner.iter})

    @background
    def after_run(self, runner: Any) -> BackgroundPart | None:
        """Let other runs have the folder, after the last save."""
        return None if self._keeper is None else self._keeper.finish(runner)

    def close(self) -> None:
        """Let other runs have the folder, after a run that failed."""
        if self._keeper is not None:
            self._keeper.close()

    def evaluate(self, runner: Any, results: Any) -> Mapping[str, Any]:
        """Return the metrics of a model's results, and put them into the log buffer."""
        metrics: Mapping[str, Any] = self.dataloader.dataset.evaluate(
            results, logger=runner.logger, **self.eval_kwargs
        )
        self.latest_metrics = metrics or {}
        runner.log_buffer.output.update(self.latest_metrics)
        runner.log_buffer.ready = True
        return self.latest_metrics

    def infer(self, runner: Any) -> Any:
        """Return the model's results on the data set."""
        return self.test_fn(runner.model, self.dataloader)

    def _default_test(self, model: Any, dataloader: Any, **_: Any) -> Any:
        return single_gpu_test(model, dataloader)

    def _before_turn(self, runner: Any) -> BackgroundPart | None:
        number = self._number(runner)
        self._schedule.advance(number + 1)
        is_first, self.initial_flag = self.initial_flag, False
        if not is_first or self.start is None or number < self.start or not self._should_evaluate(runner):
            return None
        return self._do_evaluate(runner, {"epoch": runner.epoch, "iter": runner.iter})

    def _should_evaluate(self, runner: Any) -> bool:
        return self._schedule.is_due(self._number(runner) + 1)

    def _do_evaluate(self, runner: Any, done: Mapping[str, int]) -> BackgroundPart | None:
        before_step()
        with runner.evaluating():
            results = self.latest_results = self.infer(runner)
        self._last = done["epoch" if self.by_epoch else "iter"]
        metrics: Mapping[str, Any] = {}  # the first rank has the results
        if results is not None:
            runner.log_buffer.output["eval_iter_num"] = len(self.dataloader)
            metrics = self.evaluate(runner, results)
        return None if self._keeper is None else self._keeper.keep(runner, broadcast_object(metrics), done)
