"""`CheckpointHook`, with the arguments that MMEngine's users know."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from asynchooks.distributed import is_first_rank
from asynchooks.execution import background
from asynchooks.hooks.checkpoint import _options
from asynchooks.hooks.checkpoint._bests import BestSaving
from asynchooks.hooks.checkpoint._publish import published_pattern, publishing
from asynchooks.registry import HOOKS

if TYPE_CHECKING:
    from asynchooks.execution._hook import BackgroundPart, OnError, WhenBusy
    from asynchooks.hooks.checkpoint._ranks import Form

__all__ = ["CheckpointHook"]


@HOOKS.register_module()
class CheckpointHook(BestSaving):
    """Saves checkpoints: every so often, the last one, and the best ones.

    Args:
        interval: a checkpoint every so many epochs or iterations; -1 for none but those that other arguments ask
            for.
        by_epoch: whether ``interval`` and ``save_begin`` count epochs (else iterations).
        save_optimizer: whether the optimizer's state is saved.
        save_param_scheduler: whether the schedulers' states are saved.
        out_dir: folder or URL (``s3://bucket/prefix``); the name of the run's folder is appended where it differs.
            None is the run's folder.
        max_keep_ckpts: how many interval checkpoints are kept; -1 keeps all.
        save_last: whether the last epoch or iteration is saved in any case.
        save_best: metric, or list of metrics, whose best checkpoint is kept; ``"auto"`` takes the first metric of
            the first validation.
        rule: "greater", "less" or None (inferred from the name) for all metrics, or a list, one for each.
        greater_keys: names, or parts of names, of metrics of which more is better.
        less_keys: the same where less is better.
        file_client_args: old name of ``backend_args``.
        filename_tmpl: file name with one place for the number; ``"epoch_{}.pth"`` or ``"iter_{}.pth"``.
        backend_args: fsspec's options for the store.
        published_keys: keys of the checkpoint that are written, after training, to ``{name}-{sha8}.pth``.
        save_begin: the first epoch or iteration at which the interval may save.
        save_best_full: whether best checkpoints hold optimizer and schedulers too, so that a run can resume from one.
        format: "single" is one file, which the first rank writes; what other ranks have is gathered there.
            "sharded" is a folder in the format of ``torch.distributed.checkpoint``: each rank writes its part, and
            the first one commits when all are there. None is sharded where the model is (FSDP2), else single. A
            folder is named like a file, without ``.pth``.
        overlap: whether what only the optimizer's step changes is copied while training goes on, until that step.
            False copies all at once: for a model whose forward writes its parameters past autograd (``.data``).
        when_busy: what a save does when there is no room for it: "wait", "skip" or "coalesce".
        on_error: what a failed save does: "raise" in the training thread, or "warn".
        deadline_s: longest time without progress of any call to the store, after which the save fails.

    Raises:
        UnknownOptionError: an argument that there is not, with the one that was meant.
        ConfigError, TypeError, UnknownNameError: a wrong value.
    """

    def __init__(
        self,
        interval: int = -1,
        by_epoch: bool = True,  # noqa: FBT001, FBT002 - MMEngine's order of arguments
        save_optimizer: bool = True,  # noqa: FBT001, FBT002
        save_param_scheduler: bool = True,  # noqa: FBT001, FBT002
        out_dir: str | os.PathLike[str] | None = None,
        max_keep_ckpts: int = -1,
        save_last: bool = True,  # noqa: FBT001, FBT002
        save_best: str | Sequence[str] | None = None,
        rule: str | Sequence[str | None] | None = None,
        greater_keys: str | Sequence[str] | None = None,
        less_keys: str | Sequence[str] | None = None,
        file_client_args: Mapping[str, Any] | None = None,
        filename_tmpl: str | None = None,
        backend_args: Mapping[str, Any] | None = None,
        published_keys: str | Sequence[str] | None = None,
        save_begin: int = 0,
        *,
        save_best_full: bool = False,
        format: Form | None = None,  # noqa: A002 - the field's word
        overlap: bool = True,
        when_busy: WhenBusy = "wait",
        on_error: OnError = "raise",
        deadline_s: float = 120.0,
        **unknown: Any,
    ) -> None:
        _options.reject_unknown(unknown, CheckpointHook)
        super().__init__(
            interval=interval,
            by_epoch=by_epoch,
            save_begin=save_begin,
            save_last=save_last,
            max_keep_ckpts=max_keep_ckpts,
            save_optimizer=save_optimizer,
            save_param_scheduler=save_param_scheduler,
            out_dir=out_dir,
            filename_tmpl=filename_tmpl,
            backend_args=backend_args,
            file_client_args=file_client_args,
            format=format,
            overlap=overlap,
            when_busy=when_busy,
            on_error=on_error,
            deadline_s=deadline_s,
            save_best=save_best,
            rule=rule,
            greater_keys=greater_keys,
            less_keys=less_keys,
            save_best_full=save_best_full,
        )
        self.published_keys = _options.published(published_keys)

    @background
    def after_train(self, runner: Any) -> BackgroundPart | None:
        """Publish the last and the best checkpoints, where keys to publish were given."""
        super().after_train(runner)
        if not self.published_keys or self._folder is None or not is_first_rank():
            return None
        hub = runner.message_hub
        of_last = [(hub.get_info("last_ckpt"), None)] if self.save_last else []
        of_bests = [
            (hub.get_info(b.path_key), published_pattern(b.prefix, self._in_form(self.filename_tmpl)))
            for b in self._bests
        ]
        return publishing(
            [*of_last, *of_bests], self.published_keys, options=self.backend_args, logger=runner.logger
        )
