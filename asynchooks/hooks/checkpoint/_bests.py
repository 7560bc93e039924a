"""Checkpoints of the best scores: whether a validation has found one, and what is saved then.

MMEngine writes the file of a step a second time when its validation finds a new best, so that the file knows the
best score. Here the best checkpoint's own manifest says it, and a resumed run reads it there: one save less.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from asynchooks.checkpoint import Snapshot
from asynchooks.errors import ConfigError
from asynchooks.execution import background
from asynchooks.hooks.checkpoint import _options
from asynchooks.hooks.checkpoint._best import AUTO, Improvement, bests_of, improvements, plain_numbers
from asynchooks.hooks.checkpoint._books import recall
from asynchooks.hooks.checkpoint._folder import Folder, Save
from asynchooks.hooks.checkpoint._steps import StepSaving
from asynchooks.scores import Rules

if TYPE_CHECKING:
    from asynchooks.execution._hook import BackgroundPart

__all__ = ["BestSaving"]


class BestSaving(StepSaving):
    """Saves, beside the checkpoints of the interval, that of each metric's best score.

    The arguments are those of `CheckpointHook`.

    Raises:
        ConfigError, TypeError, UnknownNameError: a wrong value.
    """

    def __init__(
        self,
        *,
        save_best: str | Sequence[str] | None = None,
        rule: str | Sequence[str | None] | None = None,
        greater_keys: str | Sequence[str] | None = None,
        less_keys: str | Sequence[str] | None = None,
        save_best_full: bool = False,
        **steps: Any,
    ) -> None:
        super().__init__(**steps)
        self.save_best_full = save_best_full
        self._rules = Rules.checked("CheckpointHook", "save_best", rule, greater_keys, less_keys)
        metrics = _options.metric_names(save_best)
        if rule is not None and not metrics:
            raise ConfigError(f"CheckpointHook(rule={rule!r}): a rule needs the metric, in save_best.")
        self._is_auto = metrics == (AUTO,)
        self._bests = bests_of(self._rules, metrics) if metrics and not self._is_auto else ()
        self._resumed_at = 0

    @property
    def saves_best(self) -> bool:
        """Whether a best checkpoint is kept."""
        return self._is_auto or bool(self._bests)

    @property
    def will_save(self) -> bool:
        """Whether there will be a save at all."""
        return self.saves_best or super().will_save

    @property
    def best_ckpt_path(self) -> str | None:
        """Address of the best checkpoint by the only metric; None before there is one."""
        return self.best_ckpt_path_dict.get(self._bests[0].metric) if len(self._bests) == 1 else None

    @property
    def best_ckpt_path_dict(self) -> dict[str, str | None]:
        """The same for each metric."""
        hub = self._hub
        return {best.metric: None if hub is None else hub.get_info(best.path_key) for best in self._bests}

    @background
    def after_val_epoch(self, runner: Any, metrics: Mapping[str, Any] | None = None) -> BackgroundPart | None:
        """Save the best checkpoint of each metric that has become better."""
        if not self.saves_best or not self._is_training:
            return None
        if not metrics:
            runner.logger.warning(
                "CheckpointHook: the validation has no metrics, so there is no best checkpoint."
            )
            return None
        folder = self._folder_of(runner)
        better = self._judge(runner, folder, metrics)
        return self._save_best(runner, folder, better, metrics) if better else None

    def _judge(self, runner: Any, folder: Folder, metrics: Mapping[str, Any]) -> list[Improvement]:
        if self._is_auto and not self._bests:
            self._bests = bests_of(self._rules, [next(iter(metrics))])
        self._claims.settle(runner.message_hub)
        if self._resumed_at:
            recall(runner.message_hub, folder, self._bests, self._resumed_at)
            self._resumed_at = 0
        scores = {best.metric: runner.message_hub.get_info(best.score_key) for best in self._bests}
        better, remarks = improvements(self._bests, metrics, scores)
        for remark in remarks:
            runner.logger.warning("CheckpointHook: %s; no best checkpoint is chosen by it.", remark)
        return better

    def _save_best(
        self, runner: Any, folder: Folder, better: Sequence[Improvement], metrics: Mapping[str, Any]
    ) -> BackgroundPart | None:
        """Save what has become better and, as MMEngine does once a run has saved, the step that it belongs to."""
        meta = {"epoch": runner.epoch, "iter": runner.iter}
        hub = runner.message_hub
        name = self._name(meta)
        last = hub.get_info("last_ckpt")
        with_step = last is not None and last != folder.url_of(name)
        entries = [
            {e.best.score_key: e.score, e.best.path_key: folder.url_of(e.best.prefix + name)} for e in better
        ]
        if with_step:
            entries.append(self._step_entries(runner, folder, meta))
        with self._claims.claim(hub, *entries) as claims:
            snapshot = self._capture(runner, meta, is_full=with_step or self.save_best_full)
            best = snapshot
            if isinstance(snapshot, Snapshot) and not self.save_best_full:
                best = snapshot.without("optimizer", "param_schedulers")
            elif with_step and self._form == "sharded" and not self.save_best_full:
                best = self._capture(runner, meta, is_full=False)  # it shares what the first has copied
        if snapshot is None or best is None:  # of a rank that is not the first
            return None
        numbers = plain_numbers(metrics)
        saves = [
            Save(e.best.prefix + name, best, meta, claim, best=e.best, metrics=numbers)
            for e, claim in zip(better, claims, strict=False)
        ]
        if with_step:
            saves.append(Save(name, snapshot, meta, claims[-1], keep=self.max_keep_ckpts, metrics=numbers))
        return folder.committing(runner, saves)

    def _folder_of(self, runner: Any) -> Folder:
        if self._folder is None:
            self._resumed_at = runner.iter
        return super()._folder_of(runner)
