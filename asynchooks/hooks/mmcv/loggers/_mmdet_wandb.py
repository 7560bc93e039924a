"""`MMDetWandbHook`: W&B with checkpoints as versions of an artifact, and a detector's predictions as tables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from asynchooks.errors import ConfigError
from asynchooks.execution import background
from asynchooks.hooks.mmcv.loggers._detections import Detections
from asynchooks.hooks.mmcv.loggers._parts import in_order, in_thread
from asynchooks.hooks.mmcv.loggers._record import frozen
from asynchooks.hooks.mmcv.loggers._wandb import WandbLoggerHook
from asynchooks.registry import MMCV_HOOKS

if TYPE_CHECKING:
    from asynchooks.execution._hook import BackgroundPart

__all__ = ["MMDetWandbHook"]


@MMCV_HOOKS.register_module()
class MMDetWandbHook(WandbLoggerHook):
    """MMDetection 2.x's logger for W&B.

    Checkpoints are uploaded when they are durable, whoever saves them, and only where that is asked for. Nothing here
    waits on the training thread: not for a save, nor for W&B.

    Args:
        init_kwargs: arguments of ``wandb.init``.
        interval: iterations between two lines.
        log_checkpoint: whether each checkpoint of an epoch or iteration becomes a version of an artifact.
        log_checkpoint_metadata: whether the metrics of an evaluation after the same epoch stand with it.
        num_eval_images: how many images of the validation are shown, with predictions after each evaluation; 0 for
            none. They are those of an ``EvalHook`` among the hooks, whose data set is one of MMDetection's.
        bbox_score_thr: boxes with lower scores are not shown.
        kwargs: further arguments of `WandbLoggerHook`; ``log_artifact`` is False by default.

    Raises:
        ConfigError: a wrong value, or metadata for checkpoints between evaluations (when the run starts).
    """

    def __init__(
        self,
        init_kwargs: Mapping[str, Any] | None = None,
        interval: int = 50,
        log_checkpoint: bool = False,  # noqa: FBT001, FBT002 - MMDetection's order of arguments
        log_checkpoint_metadata: bool = False,  # noqa: FBT001, FBT002
        num_eval_images: int = 100,
        bbox_score_thr: float = 0.3,
        **kwargs: Any,
    ) -> None:
        super().__init__(init_kwargs, interval, **{"log_artifact": False, **kwargs})
        if isinstance(num_eval_images, bool) or not isinstance(num_eval_images, int) or num_eval_images < 0:
            raise ConfigError(f"MMDetWandbHook(num_eval_images={num_eval_images!r}): give 0 or more images.")
        self.log_checkpoint = log_checkpoint
        self.log_checkpoint_metadata = log_checkpoint and log_checkpoint_metadata
        self.num_eval_images = num_eval_images
        self.bbox_score_thr = bbox_score_thr
        self._detections: Detections | None = None
        self._eval_hook: Any = None
        self._seen: Any = None  # the results that were shown last
        self._waiting: list[Path] = []  # durable, until the metrics of their evaluation are there
        if log_checkpoint:
            self.effects = self._touches(checkpoints=True)
            self.after_save_checkpoint = self._saved  # type: ignore[method-assign]  # else no save concerns this hook

    async def _saved(self, runner: Any, path: str, meta: Mapping[str, Any]) -> None:
        """Upload a checkpoint that is durable, or have it wait for its metrics."""
        del meta
        file = Path(path.removeprefix("file://"))
        if file.name.startswith("best_"):
            return
        if "://" in str(path).removeprefix("file://"):
            runner.logger.warning("W&B gets no checkpoint %s: it is in no local folder", file.name)
        elif self.log_checkpoint_metadata:
            self._waiting.append(file)
        else:
            await anyio.to_thread.run_sync(self._upload, file, None)

    @background
    def before_run(self, runner: Any) -> BackgroundPart | None:
        """Open the run, and record the configuration and the images that are shown.

        Raises:
            ConfigError: checkpoints with metadata are saved between two evaluations.
        """
        opening = super().before_run(runner)
        hooks = runner.hooks
        self._eval_hook = next((hook for hook in hooks if _is_a(hook, "EvalHook")), None)
        if self._eval_hook is None and (self.num_eval_images or self.log_checkpoint_metadata):
            runner.logger.warning("MMDetWandbHook shows no predictions or metrics: there is no EvalHook.")
        if self.log_checkpoint_metadata and self._eval_hook is not None:
            for hook in (hook for hook in hooks if _is_a(hook, "CheckpointHook")):
                _check_intervals(hook.interval, self._eval_hook.interval)
        if runner.rank != 0:
            return None
        if self._detections is None and self.num_eval_images and self._eval_hook is not None:
            dataset = self._eval_hook.dataloader.dataset
            self._detections = Detections.of(dataset, self.num_eval_images, self.bbox_score_thr)
        table = self._detections
        show = None if table is None else in_thread(partial(table.log_images, self._backend))
        return in_order(opening, show)

    @background
    def after_train_epoch(self, runner: Any) -> BackgroundPart | None:
        """Log, and show what an evaluation after this epoch has found."""
        line = super().after_train_epoch(runner)
        return in_order(line, self._evaluated(runner, "epoch", runner.epoch + 1) if self.by_epoch else None)

    @background
    def after_train_iter(self, runner: Any) -> BackgroundPart | None:  # type: ignore[override]
        """Log, and show what an evaluation after this iteration has found."""
        line = super().after_train_iter(runner)
        return line if self.by_epoch else in_order(line, self._evaluated(runner, "iter", runner.iter + 1))

    def _opening(self, runner: Any) -> BackgroundPart:
        name = (runner.meta or {}).get("exp_name")
        work_dir = self._work_dir
        path = None if not name or work_dir is None else Path(work_dir, os.path.basename(name))  # noqa: PTH119

        def open_run() -> None:
            run = self._backend.experiment
            if path is not None and path.is_file():
                run.save(os.fspath(path), base_path=work_dir, policy="now")

        return in_thread(open_run)

    def _evaluated(self, runner: Any, unit: str, number: int) -> BackgroundPart | None:
        """Return what shows new results; checkpoints that wait for metrics go with them. Training thread."""
        results = getattr(self._eval_hook, "latest_results", None)
        if runner.rank != 0 or results is None or results is self._seen:
            return None
        self._seen = results
        metrics, _ = frozen({unit: number, **getattr(self._eval_hook, "latest_metrics", {})})
        show, table = None, self._detections
        if table is not None:
            found, _ = frozen({str(index): results[index] for index in table.indices})
            show = in_thread(partial(table.log_predictions, self._backend, found, f"{unit}_{number}"))
        return in_order(show, in_thread(partial(self._upload_waiting, metrics)))

    def _upload_waiting(self, metrics: Mapping[str, Any]) -> None:
        waiting, self._waiting = self._waiting, []
        own = "_".join(str(each) for each in next(iter(metrics.items())))  # epoch_3
        for path in waiting:
            self._upload(path, metrics if path.stem == own else None)

    def _upload(self, path: Path, metadata: Mapping[str, Any] | None) -> None:
        name = f"run_{self._backend.experiment.id}_model"
        self._backend.add_artifact(name, "model", [path], aliases=[path.stem, "latest"], metadata=metadata)

    def _finish(self) -> None:
        self._upload_waiting({"": ""})
        super()._finish()


def _is_a(hook: Any, name: str) -> bool:
    """Whether a hook is one of that name, ours or somebody's own: none imports another."""
    return any(base.__name__ == name for base in type(hook).__mro__)


def _check_intervals(saving: int, evaluation: int) -> None:
    if saving > 0 and saving % evaluation:
        raise ConfigError(
            f"MMDetWandbHook(log_checkpoint_metadata=True): checkpoints every {saving} would have no metrics of "
            f"evaluations every {evaluation}; make the one a multiple of the other."
        )
