"""A run in MMCV's manner in its checkpoints: what stands in them, and how it is taken up again.

A checkpoint has MMCV's keys, ``meta`` (with ``hook_msgs``), ``state_dict`` and ``optimizer``, and those of every
checkpoint here, with which the run continues bit-identically. One of MMCV's own is resumed by its counters.
"""

from __future__ import annotations

import os
import re
import uuid
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from asynchooks.execution import HookExecutor
from asynchooks.runner._hook_states import load_hook_states
from asynchooks.runner._resumable import ResumableRun
from asynchooks.runner._resume import Source
from asynchooks.runner._taking_up import load_optimizer, load_weights, own_resume
from asynchooks.runner.mmcv._workflow import Workflow

__all__ = ["SavedRun"]

_OF_THE_MOMENT = (
    "epoch",
    "iter",
    "time",
    "asynchooks_version",
)  # in a resumed meta: of the checkpoint, not the run
_MESSAGES = re.compile(r"last_ckpt|best_(score|ckpt)(_.+)?")


class SavedRun(ResumableRun):
    """Counters, notes and position of a run, saved and taken up again.

    Args:
        work_dir: folder or URL, or None.
        executor: runs the hooks.
        meta: notes on the run.
        storage_options: fsspec's options for checkpoints that are loaded.
    """

    def __init__(
        self,
        work_dir: str | os.PathLike[str] | None,
        *,
        executor: HookExecutor,
        meta: Mapping[str, Any] | None,
        storage_options: Mapping[str, Any] | None,
    ) -> None:
        if work_dir is not None and not isinstance(work_dir, str | os.PathLike):
            raise TypeError(f"work_dir is a folder, a URL or None, not {work_dir!r}.")
        super().__init__(
            "." if work_dir is None else _absolute(os.fspath(work_dir)),
            (meta or {}).get("exp_name"),
            executor=executor,
            resume=False,
            load_from=None,
            storage_options=storage_options,
        )
        if work_dir is None:
            self.work_dir = None  # type: ignore[assignment]
        self.seed = (meta or {}).get("seed")
        self.param_schedulers: list[Any] = []
        self._meta = None if meta is None else dict(meta)
        self._epoch = 0
        self._iter = 0
        self._inner_iter = 0
        self._is_step_done = False  # while after_train_iter fires: done, and not counted yet
        self._is_epoch_done = False
        self._workflow: Workflow | None = None
        self._pending: Mapping[str, Any] | None = None  # the position that the next run starts from
        self._pending_rng: Mapping[str, Any] | None = None
        self._takes_optimizer = True

    @property
    def meta(self) -> dict[str, Any] | None:
        """Notes on the run; ``meta["hook_msgs"]`` has the newest and best checkpoints. None where there are none.

        The dict is live: what hooks put in is kept, and stands in checkpoints.
        """
        messages = {k: v for k, v in self.message_hub.runtime_info.items() if _MESSAGES.fullmatch(k)}
        if messages:
            self._meta = {} if self._meta is None else self._meta
            self._meta.setdefault("hook_msgs", {}).update(messages)
        return self._meta

    @meta.setter
    def meta(self, meta: Mapping[str, Any] | None) -> None:
        self._meta = None if meta is None else dict(meta)

    @property
    def log_dir(self) -> str | None:
        """Folder of this run's logs; None without a local work folder."""
        return None if self.work_dir is None else super().log_dir

    @abstractmethod
    def _resume_counters(self, epoch: int, iteration: int) -> None:
        """Take up counters of a checkpoint that holds no position."""

    # ---- save ----

    def _save(
        self,
        out_dir: str | os.PathLike[str] | None,
        name: str,
        numbers: Mapping[str, int],
        *,
        save_optimizer: bool,
        meta: Mapping[str, Any] | None,
        create_symlink: bool,
    ) -> None:
        """Save a checkpoint and wait until it is committed; link ``latest.pth`` to it in a local folder."""
        if meta is not None and not isinstance(meta, Mapping):
            raise TypeError(f"meta is a dict or None, not {meta!r}.")
        hub = self.message_hub
        if hub.get_info("run_id") is None:  # the folder belongs to this run, whoever saves first
            hub.update_info("run_id", uuid.uuid4().hex)
        info = super().save_checkpoint(
            out_dir, name, save_optimizer=save_optimizer, meta={**(meta or {}), **numbers}
        )
        if create_symlink:
            from asynchooks.hooks.mmcv.checkpoint import link_latest

            link_latest(info.url)

    def _make_folder(self) -> None:
        if self.work_dir is not None:
            super()._make_folder()

    def _content(
        self, *, save_optimizer: bool, save_param_scheduler: bool, meta: Mapping[str, Any]
    ) -> dict[str, Any]:
        notes = {k: v for k, v in (self.meta or {}).items() if k not in _OF_THE_MOMENT}
        return super()._content(
            save_optimizer=save_optimizer, save_param_scheduler=save_param_scheduler, meta={**notes, **meta}
        )

    def _position(self) -> dict[str, Any] | None:
        if self._workflow is None:
            return None
        done = None
        if self.mode_is_train and self._in_iteration and not self._is_step_done:
            done = self._workflow.feeds[self._workflow.index].drawn - 1
        turn_is_done = self._is_epoch_done if self.by_epoch else self._is_step_done
        return {
            "by_epoch": self.by_epoch,
            "epoch": self._epoch + (self._is_epoch_done and self.by_epoch),
            "iter": self._iter + self._is_step_done,
            "inner_iter": self._inner_iter + (self._is_step_done and not self.by_epoch),
            **self._workflow.state_dict(turn_is_done=turn_is_done, done=done),
        }

    @property
    def mode_is_train(self) -> bool:
        """Whether what runs, or ran last, is the training."""
        return getattr(self, "mode", None) == "train"

    @property
    def _in_iteration(self) -> bool:
        return hasattr(self, "data_batch")

    # ---- load ----

    def load_checkpoint(
        self,
        filename: str | os.PathLike[str],
        map_location: Any = "cpu",
        strict: bool = False,  # noqa: FBT001, FBT002
        revise_keys: Sequence[tuple[str, str]] = ((r"^module.", ""),),
    ) -> dict[str, Any]:
        """Load the weights of a checkpoint; return its content. Training thread; drains first.

        Args:
            filename: path or URL.
            map_location: as of `torch.load`.
            strict: whether every weight must be there, and no other.
            revise_keys: pairs of a regular expression and what replaces it in the names of the weights.

        Raises:
            CheckpointNotFoundError, CorruptCheckpointError, ForeignCheckpointError: it cannot be used.
        """
        source = self._source(filename)
        with self._session():
            content = self._read(source, map_location)
            content["state_dict"] = _revised(content["state_dict"], revise_keys)
            load_weights(self.model, content["state_dict"], source.url, strict=strict)
        return content

    def resume(
        self,
        checkpoint: str | os.PathLike[str],
        resume_optimizer: bool = True,  # noqa: FBT001, FBT002
        map_location: Any = "default",
    ) -> None:
        """Continue from a checkpoint: the next `run` goes on where it was taken.

        Args:
            checkpoint: path or URL.
            resume_optimizer: whether the optimizer's state is taken up, where there is one.
            map_location: as of `torch.load`; "default" is wherever the run's own tensors are.

        Raises:
            CheckpointNotFoundError, CorruptCheckpointError, ForeignCheckpointError: it cannot be used.
        """
        self._takes_optimizer = resume_optimizer
        with self._session():
            self._resume_from(self._source(checkpoint), "cpu" if map_location == "default" else map_location)

    def resume_from_newest(self) -> bool:
        """Continue from the newest checkpoint that is whole; return whether there is one. Every rank calls it.

        Looks where the run's checkpoint hooks save, then in its work folder.

        Raises:
            CorruptCheckpointError, ForeignCheckpointError: what is there cannot be used.
        """
        self._takes_optimizer = True
        with self._session():
            return self._resume_from_newest("auto", None)

    def _source(self, filename: str | os.PathLike[str]) -> Source:
        address = os.fspath(filename)
        if "://" not in address and Path(address).is_symlink():
            address = str(
                Path(address).resolve()
            )  # latest.pth: its manifest has the name of what it links to
        return Source(address, self._storage_options)

    def _take_up(self, checkpoint: Mapping[str, Any], url: str) -> None:
        load_weights(self.model, _revised(checkpoint["state_dict"], [(r"^module.", "")]), url, strict=False)
        if self._takes_optimizer and self.optim_wrapper is not None and "optimizer" in checkpoint:
            load_optimizer(self, checkpoint, url)
        if "message_hub" in checkpoint:
            self.message_hub.load_state_dict(checkpoint["message_hub"])
        meta = dict(checkpoint.get("meta") or {})
        messages = {k: v for k, v in (meta.get("hook_msgs") or {}).items() if _MESSAGES.fullmatch(k)}
        self.message_hub.update_info_dict(
            {k: v for k, v in messages.items() if self.message_hub.get_info(k) is None}
        )
        self.meta = meta
        resume = own_resume(checkpoint.get("resume") or {}, url)
        load_hook_states(self.hooks, resume.get("hooks", {}))  # type: ignore[attr-defined]
        self._load_position({**checkpoint, "resume": resume})

    def load_position(self, position: Mapping[str, Any], rng: Mapping[str, Any]) -> None:
        """Take up a position, with the generators' states at that instant; the next `run` goes there."""
        if position["by_epoch"] is not self.by_epoch or "phases" not in position:
            self.load_counters(position["epoch"], position["iter"])
            return
        self._epoch, self._iter = position["epoch"], position["iter"]
        self._inner_iter = position["inner_iter"]
        self._pending, self._pending_rng = position, rng

    def load_counters(self, epoch: int, iteration: int) -> None:
        """Take up a position of which only the counters are known; random orders start anew."""
        self._pending = self._pending_rng = None
        self._epoch, self._iter = epoch, iteration
        self._resume_counters(epoch, iteration)

    def _take_up_position(self) -> None:
        """Go where the resumed checkpoint was taken, now that the loaders are known."""
        position, self._pending = self._pending, None
        if position is not None and self._workflow is not None:
            self._workflow.load_state_dict(position)


def _absolute(work_dir: str) -> str:
    return work_dir if "://" in work_dir else str(Path(work_dir).absolute())


def _revised(state_dict: Mapping[str, Any], keys: Sequence[tuple[str, str]]) -> dict[str, Any]:
    revised = dict(state_dict)
    for pattern, replacement in keys:
        revised = {re.sub(pattern, replacement, name): value for name, value in revised.items()}
    return revised
