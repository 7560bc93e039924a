"""MMCV's checkpoint hook: its arguments and priority; what it saves, and how, is the one `CheckpointHook`'s.

That hook is found in the registry, under the name that configurations have for it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from asynchooks.distributed import all_reduce_mean, is_distributed, is_first_rank
from asynchooks.errors import UnknownOptionError, did_you_mean
from asynchooks.execution import Effects, RunnerHook, background
from asynchooks.registry import HOOKS, MMCV_HOOKS, option_names

if TYPE_CHECKING:
    from asynchooks.execution._hook import BackgroundPart, OnError, WhenBusy

__all__ = ["CheckpointHook"]

_LATEST = "latest.pth"


@MMCV_HOOKS.register_module()
class CheckpointHook(RunnerHook):
    """Saves checkpoints, every so often and the last one, in the background; old ones go when the new one is whole.

    Args:
        interval: a checkpoint every so many epochs or iterations; -1 for the last one alone.
        by_epoch: whether epochs are counted (else iterations).
        save_optimizer: whether the optimizer's state is saved.
        out_dir: folder or URL; the name of the run's folder is appended where it differs. None is the run's folder.
        max_keep_ckpts: how many are kept; -1 keeps all.
        save_last: whether the last epoch or iteration is saved in any case.
        sync_buffer: whether the buffers of the model are averaged over all ranks before a save.
        file_client_args: old name of ``backend_args``.
        filename_tmpl: file name with one place for the number; ``"epoch_{}.pth"`` or ``"iter_{}.pth"``.
        create_symlink: whether ``latest.pth`` links to the newest checkpoint, where the folder is a local one.
        backend_args: fsspec's options for the store.
        format, overlap, when_busy, on_error, deadline_s: as of `asynchooks.hooks.CheckpointHook`.

    Raises:
        UnknownOptionError: an argument that there is not, with the one that was meant.
        ConfigError, TypeError: a wrong value.
    """

    priority = "NORMAL"
    effects = Effects(writes={"checkpoints"})
    fires = ("after_save_checkpoint",)

    def __init__(
        self,
        interval: int = -1,
        by_epoch: bool = True,  # noqa: FBT001, FBT002 - MMCV's order of arguments
        save_optimizer: bool = True,  # noqa: FBT001, FBT002
        out_dir: str | os.PathLike[str] | None = None,
        max_keep_ckpts: int = -1,
        save_last: bool = True,  # noqa: FBT001, FBT002
        sync_buffer: bool = False,  # noqa: FBT001, FBT002
        file_client_args: Mapping[str, Any] | None = None,
        *,
        filename_tmpl: str | None = None,
        create_symlink: bool = True,
        backend_args: Mapping[str, Any] | None = None,
        format: str | None = None,  # noqa: A002 - the field's word
        overlap: bool = True,
        when_busy: WhenBusy = "wait",
        on_error: OnError = "raise",
        deadline_s: float = 120.0,
        **unknown: Any,
    ) -> None:
        for name in unknown:
            hint = did_you_mean(name, option_names(CheckpointHook)[0])
            raise UnknownOptionError(f"mmcv.CheckpointHook has no argument {name!r}.{hint}")
        self._saver = HOOKS.build(
            {
                "type": "CheckpointHook",
                "interval": interval,
                "by_epoch": by_epoch,
                "save_optimizer": save_optimizer,
                "out_dir": out_dir,
                "max_keep_ckpts": max_keep_ckpts,
                "save_last": save_last,
                "file_client_args": file_client_args,
                "filename_tmpl": filename_tmpl,
                "backend_args": backend_args,
                "format": format,
                "overlap": overlap,
                "when_busy": when_busy,
                "on_error": on_error,
                "deadline_s": deadline_s,
            }
        )
        self.interval = interval
        self.by_epoch = by_epoch
        self.save_optimizer = save_optimizer
        self.out_dir = out_dir
        self.max_keep_ckpts = max_keep_ckpts
        self.save_last = save_last
        self.sync_buffer = sync_buffer
        self.create_symlink = create_symlink
        self.backend_args = self._saver.backend_args
        self.when_busy = when_busy
        self.on_error = on_error
        self.changes_state = sync_buffer

    def checkpoint_folder(self, runner: Any) -> str:
        """Return the folder or URL of a run's checkpoints."""
        return str(self._saver.checkpoint_folder(runner))

    def before_run(self, runner: Any) -> None:
        """Check that the store can be reached, before anything is trained.

        Raises:
            StorageError: it refuses or is not there.
        """
        self._saver.before_run(runner)
        self._saver.before_train(runner)
        runner.logger.info("checkpoints are saved to %s", self.checkpoint_folder(runner))

    @background
    def after_train_epoch(self, runner: Any) -> BackgroundPart | None:
        """Save, where epochs are counted and one is due."""
        if self.by_epoch and self._is_due(runner.epoch + 1, runner.max_epochs):
            self._average_buffers(runner)
        return self._linked(runner, self._saver.after_train_epoch(runner))

    @background
    def after_train_iter(self, runner: Any) -> BackgroundPart | None:  # type: ignore[override]
        """Save, where iterations are counted and one is due."""
        if not self.by_epoch and self._is_due(runner.iter + 1, runner.max_iters):
            self._average_buffers(runner)
        return self._linked(runner, self._saver.after_train_iter(runner, batch_idx=runner.inner_iter))

    @background
    def after_run(self, runner: Any) -> BackgroundPart | None:
        """Let other runs have the folder, after the last save."""
        part: BackgroundPart | None = self._saver.after_run(runner)
        return part

    def close(self) -> None:
        """Let other runs have the folder, after a run that failed."""
        self._saver.close()

    def _is_due(self, done: int, last: int | None) -> bool:
        return (self.interval > 0 and done % self.interval == 0) or (self.save_last and done == last)

    def _average_buffers(self, runner: Any) -> None:
        if self.sync_buffer and is_distributed():
            all_reduce_mean(buffer for buffer in runner.model.buffers() if buffer.is_floating_point())

    def _linked(self, runner: Any, save: BackgroundPart | None) -> BackgroundPart | None:
        """Return a save that has ``latest.pth`` link to what it has committed."""
        if save is None or not self.create_symlink or not is_first_rank():
            return save
        address = str(runner.message_hub.get_info("last_ckpt"))
        if not _is_local(address):
            return save  # last_checkpoint points to it

        async def save_and_link() -> None:
            await save()
            await anyio.to_thread.run_sync(link_latest, address)

        return save_and_link


def link_latest(address: str) -> None:
    """Have ``latest.pth`` beside a local checkpoint link to it; the old link is replaced at once. Blocks.

    ``latest``, where the checkpoint is a folder.
    """
    if not _is_local(address):
        return
    path = Path(address.removeprefix("file://"))
    temporary = path.with_name(f".{_LATEST}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(path.name)
    temporary.replace(path.with_name(_LATEST if not path.is_dir() else _LATEST.removesuffix(".pth")))


def _is_local(address: str) -> bool:
    return "://" not in address.removeprefix("file://")
