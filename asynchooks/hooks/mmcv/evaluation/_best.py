"""The best checkpoint of an evaluation: chosen and saved by the one `CheckpointHook`, found in the registry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from asynchooks.errors import ConfigError
from asynchooks.registry import HOOKS

if TYPE_CHECKING:
    from asynchooks.execution._hook import BackgroundPart

__all__ = ["BestKeeper", "check_best"]


def check_best(name: str, save_best: Any, rule: Any) -> None:
    """Raise unless the arguments ``save_best`` and ``rule`` of the hook of that name go together."""
    if save_best is not None and not isinstance(save_best, str):
        raise TypeError(f"{name}(save_best={save_best!r}): give a metric's name, 'auto' or None.")
    if rule is not None and save_best is None:
        raise ConfigError(f"{name}(rule={rule!r}): a rule needs the metric, in save_best.")


class BestKeeper:
    """Keeps the best checkpoint of one metric, whole, so that a run can be resumed from it.

    Args:
        save_best: the metric, or "auto" for the first of the first evaluation.
        by_epoch: whether the file is named after the epoch (else the iteration).
        options: further arguments of `CheckpointHook`.
    """

    def __init__(self, save_best: str, *, by_epoch: bool, options: Mapping[str, Any]) -> None:
        self._hook = HOOKS.build(
            {
                "type": "CheckpointHook",
                "interval": -1,
                "save_last": False,
                "by_epoch": by_epoch,
                "save_best": save_best,
                "save_best_full": True,
                **options,
            }
        )
        self.by_epoch = by_epoch

    def start(self, runner: Any) -> None:
        """Check that the store can be reached. Training thread, before anything is trained."""
        self._hook.before_run(runner)
        self._hook.before_train(runner)

    def keep(self, runner: Any, metrics: Mapping[str, Any], done: Mapping[str, int]) -> BackgroundPart | None:
        """Return what saves the checkpoint, where it is the best so far. Training thread, in a capture.

        Args:
            runner: the run.
            metrics: what the evaluation measured.
            done: "epoch" and "iter" that are done.
        """
        part: BackgroundPart | None = self._hook.after_val_epoch(_Evaluated(runner, done), metrics=metrics)
        if part is not None:
            kind = "epoch" if self.by_epoch else "iter"
            hub = runner.message_hub
            path, score = hub.get_info("best_ckpt"), hub.get_info("best_score")
            runner.logger.info("the best score is %.4f, at %s %d: %s", score, kind, done[kind], path)
        return part

    def finish(self, runner: Any) -> BackgroundPart | None:
        """Return what lets other runs have the folder."""
        part: BackgroundPart | None = self._hook.after_run(runner)
        return part

    def close(self) -> None:
        """Let other runs have the folder, after a run that failed."""
        self._hook.close()


class _Evaluated:
    """The run as the checkpoint hook sees it after a validation: what runs is counted as done.

    And nothing else was saved yet: MMCV saves the best checkpoint alone, MMEngine the step's own beside it.
    """

    def __init__(self, runner: Any, done: Mapping[str, int]) -> None:
        own = {"epoch": done["epoch"], "iter": done["iter"], "message_hub": _NothingSaved(runner.message_hub)}
        vars(self).update(own, _runner=runner)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runner, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._runner, name, value)  # of a hook that hears of the save


class _NothingSaved:
    def __init__(self, hub: Any) -> None:
        self._hub = hub

    def get_info(self, key: str, default: Any = None) -> Any:
        return default if key == "last_ckpt" else self._hub.get_info(key, default)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._hub, name)
