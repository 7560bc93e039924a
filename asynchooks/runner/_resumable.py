"""A run that owns its executor and can be saved, loaded and resumed."""

from __future__ import annotations

import errno
import logging
import os
from abc import abstractmethod
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asynchooks import checkpoint as checkpoints
from asynchooks.distributed import any_rank, control_group, found_by_first
from asynchooks.errors import (
    CheckpointNotFoundError,
    ConfigError,
    CorruptCheckpointError,
    StorageDeniedError,
    StorageError,
)
from asynchooks.execution import HookExecutor, current_executor
from asynchooks.runner._context import RunContext
from asynchooks.runner._ending import opened
from asynchooks.runner._resume import Source, find_source, read_together
from asynchooks.runner._taking_up import load_weights
from asynchooks.runner._together import Together
from asynchooks.runner._visualizer import closing

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

__all__ = ["ResumableRun"]

logger = logging.getLogger(__name__)


class ResumableRun(RunContext):
    """A run with an executor of its own: opens it, saves checkpoints and continues from them.

    Args:
        work_dir: the run's folder or URL.
        experiment_name: name of the run.
        executor: runs the hooks.
        resume: what a training continues from: True, "auto", an address, or False.
        load_from: checkpoint whose weights the run starts with.
        storage_options: fsspec's options for both.
    """

    def __init__(
        self,
        work_dir: str | os.PathLike[str],
        experiment_name: str | None,
        *,
        executor: HookExecutor,
        resume: bool | str | os.PathLike[str],
        load_from: str | os.PathLike[str] | None,
        storage_options: Mapping[str, Any] | None,
    ) -> None:
        super().__init__(work_dir, experiment_name)
        if not isinstance(resume, bool | str | os.PathLike):
            raise ConfigError(f"resume is True, 'auto', a checkpoint's address or False, not {resume!r}.")
        self._executor = executor
        self._resume = resume
        self._load_from = None if load_from is None else os.fspath(load_from)
        self._loaded_from: str | None = None
        self._storage_options = dict(storage_options or {})
        self.together: Together | None = None

    @property
    def executor(self) -> HookExecutor:
        """The executor that runs the hooks."""
        return self._executor

    @property
    @abstractmethod
    def train_loop(self) -> Any:
        """The training loop."""

    @property
    @abstractmethod
    def by_epoch(self) -> bool:
        """Whether the training counts epochs."""

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Fire a hook point on all hooks. Training thread, inside of a run."""
        self._executor.fire(fn_name, self, **kwargs)

    def save_checkpoint(
        self,
        out_dir: str | os.PathLike[str] | None = None,
        filename: str | None = None,
        *,
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        meta: Mapping[str, Any] | None = None,
        backend_args: Mapping[str, Any] | None = None,
    ) -> checkpoints.CheckpointInfo:
        """Save a checkpoint now and wait until it is committed. Training thread; every rank calls it.

        Args:
            out_dir: folder or URL; the work folder where it is left out.
            filename: name of the file; ``epoch_{n}.pth`` or ``iter_{n}.pth`` where it is left out.
            save_optimizer: whether the optimizer's state is saved.
            save_param_scheduler: whether the schedulers' states are.
            meta: further entries of ``meta``.
            backend_args: fsspec's options for the store.
        """
        name = filename or (f"epoch_{self.epoch}.pth" if self.by_epoch else f"iter_{self.iter}.pth")
        with self._session():
            snapshot = self.capture(
                save_optimizer=save_optimizer, save_param_scheduler=save_param_scheduler, meta=meta
            )
            self._executor.drain(resources={"checkpoints"})
            url = self.work_dir if out_dir is None else out_dir

            def save() -> checkpoints.CheckpointInfo:
                assert snapshot is not None  # noqa: S101 - the first rank has it
                checkpointer = checkpoints.Checkpointer(
                    url,
                    storage_options=dict(backend_args or {}),
                    run_id=self.message_hub.get_info("run_id"),
                )
                with ThreadPoolExecutor(1) as thread:  # this thread may have an event loop, as in a notebook
                    saving = thread.submit(
                        checkpointer.save_sync,
                        snapshot,
                        name=name,
                        step=self.iter,
                        epoch=self.epoch,
                        metrics={},
                        pointer="last",
                    )
                    return saving.result()

            return found_by_first(f"save {name}", save)

    def load_checkpoint(
        self, filename: str | os.PathLike[str], *, map_location: Any = "cpu", strict: bool = False
    ) -> dict[str, Any]:
        """Load the weights of a checkpoint; return its content. Training thread; drains first.

        Args:
            filename: path or URL.
            map_location: as of `torch.load`.
            strict: whether every weight must be there, and no other.

        Raises:
            CheckpointNotFoundError, CorruptCheckpointError, ForeignCheckpointError: it cannot be used.
        """
        source = Source(os.fspath(filename), self._storage_options)
        return self._load_weights_of(source, map_location, strict=strict)

    def resume(self, filename: str | os.PathLike[str], *, map_location: Any = "cpu") -> None:
        """Continue from a checkpoint: everything that a bit-identical continuation needs.

        Raises:
            CheckpointNotFoundError, CorruptCheckpointError, ForeignCheckpointError: it cannot be used.
        """
        source = Source(os.fspath(filename), self._storage_options)
        with self._session():
            self._resume_from(source, map_location)

    @contextmanager
    def _session(self) -> Iterator[None]:
        """Have the executor open; what is in flight is seen to its end where this opened it.

        Where it fails, the hooks are closed then.
        """
        if current_executor() is self._executor:
            yield
            return
        self._make_folder()
        if self.together is None and control_group() is not None:
            self.together = Together()
            self._executor.agree_through(self.together)
        with closing(self.visualizer), opened(self._executor):
            yield

    def _make_folder(self) -> None:
        if "://" in self.work_dir:
            return
        try:
            Path(self.work_dir).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            is_denied = isinstance(error, PermissionError) or error.errno == errno.EROFS
            kind = StorageDeniedError if is_denied else StorageError
            raise kind(f"work_dir={self.work_dir!r} cannot be made: {error}.") from error

    def _load_or_resume(self) -> None:
        """Take up what load_from and resume say; done by the first training alone."""
        resume, self._resume = self._resume, False
        load_from, self._load_from = self._load_from, None
        if resume and self._resume_from_newest(resume, load_from):
            return
        if load_from is not None:
            self.load_checkpoint(load_from)
            self.logger.info("starting with the weights of %s", load_from)

    def _load_weights(self) -> None:
        """Take up the weights that load_from and resume name, for an evaluation before any training."""
        source = self._find_source(self._resume, self._load_from, to_train=False) if self._resume else None
        if source is None and self._load_from is not None:
            source = Source(self._load_from, self._storage_options)
        if source is not None and source.url != self._loaded_from:
            self._load_weights_of(source, "cpu", strict=False)
            self._loaded_from = source.url

    def _load_weights_of(self, source: Source, map_location: Any, *, strict: bool) -> dict[str, Any]:
        with self._session():
            content = self._read(source, map_location, to_train=False)
            load_weights(self.model, content["state_dict"], source.url, strict=strict)
        return content

    def _read(self, source: Source, map_location: Any, *, to_train: bool = True) -> dict[str, Any]:
        content = self._content_of(source, map_location, to_train=to_train)
        self.call_hook("after_load_checkpoint", checkpoint=content)
        return content

    def _content_of(self, source: Source, map_location: Any, *, to_train: bool = True) -> dict[str, Any]:
        """Read a checkpoint; where that fails on one rank, it fails on all."""
        self._executor.drain()
        return read_together(self, source, map_location, to_train=to_train)

    def _resume_from_newest(self, resume: Any, load_from: str | None) -> bool:
        """Resume from what is found, and from an older one where a sharded one turns out not to be whole."""
        damaged: dict[str, Exception] = {}
        while True:
            source = self._find_source(resume, load_from, to_train=True, besides=damaged)
            if source is None:
                if damaged:  # the weights are overwritten in part: this run cannot start anew
                    raise next(iter(damaged.values()))
                return False
            try:
                content = self._content_of(source, "cpu")
            except Exception as error:  # of any kind: all ranks are here, and have to decide alike
                is_damaged = any_rank(isinstance(error, CheckpointNotFoundError | CorruptCheckpointError))
                if not source.is_newest or not is_damaged:
                    raise
                self.logger.warning("falling back past %s: %s", source.url, error)
                damaged[source.url] = error
            else:
                self._go_on_from(content, source.url)
                return True

    def _find_source(
        self, resume: Any, load_from: str | None, *, to_train: bool, besides: Collection[str] = ()
    ) -> Source | None:
        """Have the first rank look for what to resume from; the others are told its address."""
        found: list[Source | None] = []

        def find() -> tuple[str, Mapping[str, Any], bool] | None:
            source = find_source(
                self, resume, load_from, self._storage_options, to_train=to_train, besides=besides
            )
            found.append(source)
            return None if source is None else (source.url, dict(source.options), source.is_newest)

        address = found_by_first("find a checkpoint to resume from", find)
        if found or address is None:
            return found[0] if found else None
        url, options, is_newest = address
        return Source(url, options, is_newest=is_newest)

    def _resume_from(self, source: Source, map_location: Any) -> None:
        _ = self.train_loop  # built before anything is read: a wrong configuration is said first
        self._go_on_from(self._content_of(source, map_location), source.url)

    def _go_on_from(self, content: dict[str, Any], url: str) -> None:
        self.is_resuming = True
        try:
            self.call_hook("after_load_checkpoint", checkpoint=content)
        finally:
            self.is_resuming = False
        self.take_up(content, url)
        self.logger.info("resumed from %s: epoch %d, iteration %d", url, self.epoch, self.iter)

    def _load_position(self, checkpoint: Mapping[str, Any]) -> None:
        resume = checkpoint.get("resume") or {}
        if resume.get("position") is not None:
            self.train_loop.load_position(resume["position"], resume["rng"])
            return
        meta = checkpoint.get("meta") or {}
        logger.warning(
            "the checkpoint holds counters only: random numbers and the order of the data start anew"
        )
        self.train_loop.load_counters(meta.get("epoch", 0), meta.get("iter", 0))
