"""Who saves: `torch.distributed.checkpoint` in all its ways, and what is there to compare it with."""

from __future__ import annotations

import importlib.util
import sys
import time
import warnings
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar

import torch.distributed as dist
import torch.distributed.checkpoint
from peers.contender import Pending
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict_saver import AsyncCheckpointerType

if TYPE_CHECKING:
    from sharded_peers.case import Scene

dcp: Any = torch.distributed.checkpoint

__all__ = ["DcpProcess", "DcpProcessCached", "DcpSave", "DcpThread", "DcpThreadCached", "NoSave", "Saver"]


class Saver:
    """One way to save, on one rank. All methods are called on the training thread, on all ranks in the same order.

    Attributes:
        title: in tables.
        note: what it does; goes below the table. Which part of it costs what is not measured.
    """

    title: ClassVar[str]
    note: ClassVar[str] = ""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene

    @classmethod
    def refusal(cls, scene: Scene) -> str:
        """Return why it cannot save there at all; empty when it can."""
        del scene
        return ""

    def open(self, state: dict[str, Any]) -> None:
        """Start what it needs. Collective; called once, before the first save."""

    def save(self, state: dict[str, Any], step: int) -> Pending:
        """Save the state as it is now as ``iter_{step}``; return when training may go on."""
        raise NotImplementedError

    def before_update(self) -> None:
        """Called before each update of the state; waits where the copy is not finished."""

    def close(self) -> None:
        """End threads and processes. Collective."""

    def at(self, step: int) -> str:
        """Return where a save goes."""
        return f"{self.scene.url}/iter_{step}"


class NoSave(Saver):
    """Nothing, for as long as a save may take: what the machine alone adds to the steps."""

    title = "no save, one second"

    def save(self, state: dict[str, Any], step: int) -> Pending:
        del state, step
        end = time.perf_counter() + 1.0
        return Pending(lambda: time.perf_counter() >= end)


class _Dcp(Saver):
    """What all ways share: a group of their own, since their background talks over it, and the writer."""

    cached_plan: ClassVar[bool] = False

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._group: dist.ProcessGroup | None = None

    @classmethod
    def refusal(cls, scene: Scene) -> str:
        _find_s3fs(scene)
        if scene.store == "s3" and importlib.util.find_spec("s3fs") is None:
            return "s3fs is not installed; `--s3fs FOLDER` takes it from `pip install --target FOLDER s3fs`"
        return ""

    def open(self, state: dict[str, Any]) -> None:
        del state
        warnings.simplefilter("ignore")  # on CPU, on overwriting, on the future of its own defaults
        _find_s3fs(self.scene)
        self._group = dist.new_group(backend="gloo")

    def close(self) -> None:
        if self._group is not None:
            dist.destroy_process_group(self._group)

    def _writer(self, step: int) -> Any:
        if self.scene.store == "local":
            return dcp.FileSystemWriter(self.at(step))
        from torch.distributed.checkpoint._fsspec_filesystem import FsspecWriter

        options: dict[str, Any] = dict(self.scene.options)
        return FsspecWriter(self.at(step), sync_files=False, **options)  # True calls os.sync()

    def _planner(self) -> DefaultSavePlanner:
        return CachingPlanner() if self.cached_plan else DefaultSavePlanner()


class CachingPlanner(DefaultSavePlanner):
    """Plans once; DCP keeps plans under the name of the planner's class."""

    def __init__(self) -> None:
        super().__init__(enable_plan_caching=True)
        self._cached_plans_key = type(self).__name__


class DcpSave(_Dcp):
    """`dcp.save`, inline."""

    title = "dcp.save"
    note = "plans, writes and meets on the training thread"

    def save(self, state: dict[str, Any], step: int) -> Pending:
        pending = Pending()
        dcp.save(state, storage_writer=self._writer(step), planner=self._planner(), process_group=self._group)
        pending.end()
        return pending


class DcpThread(_Dcp):
    """`async_save` as it comes."""

    title = "DCP async_save, thread"
    note = (
        "a new copy of all that a rank holds on every call, replicated or not; a thread of the training process then "
        "plans, pickles and writes"
    )
    staging: ClassVar[StagingOptions | None] = None
    kind: ClassVar[AsyncCheckpointerType] = AsyncCheckpointerType.THREAD

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._stager: DefaultStager | None = None
        self._copied: Future[None] | None = None

    def open(self, state: dict[str, Any]) -> None:
        super().open(state)
        if self.staging is not None:
            self._stager = DefaultStager(self.staging)

    def save(self, state: dict[str, Any], step: int) -> Pending:
        pending = Pending()
        answer = dcp.async_save(
            state,
            storage_writer=self._writer(step),
            planner=self._planner(),
            process_group=self._group,
            async_checkpointer_type=self.kind,
            async_stager=self._stager,
        )
        if not isinstance(answer, Future):
            self._copied = answer.staging_completion
            answer = answer.upload_completion
        answer.add_done_callback(lambda done: pending.end(done.exception()))
        return pending

    def before_update(self) -> None:
        copied, self._copied = self._copied, None
        if copied is not None:
            copied.result()

    def close(self) -> None:
        if self._stager is not None:
            self._stager.close()
        super().close()


class DcpThreadCached(DcpThread):
    """The same with a stager that keeps its buffers, and a plan that is kept."""

    title = "DCP async_save, thread, cached staging and plan"
    note = (
        "a copy into buffers that stay, still of all that a rank holds; a thread of the training process compares "
        "the plan with the kept one, calls `torch.save` for each tensor and exchanges pickled results"
    )
    staging = StagingOptions(False, False, False, False)
    cached_plan = True


class DcpThreadOverlapped(DcpThread):
    """The same as the cached one, copied in a thread; the next update waits for it."""

    title = "DCP async_save, thread, async staging, cached plan"
    note = "the copy holds the next update instead of the call"
    staging = StagingOptions(False, False, True, False)
    cached_plan = True


class DcpProcess(DcpThread):
    """`async_save` with a process of its own per rank, as it comes."""

    title = "DCP async_save, process"
    note = (
        "the copy is moved into new shared memory and a handle of every tensor pickled to the process on each save, "
        "which plans and writes on the steps' cores; the first save starts the process"
    )
    kind = AsyncCheckpointerType.PROCESS

    def close(self) -> None:
        super().close()
        from torch.distributed.checkpoint import _async_process_executor as executor

        with suppress(BrokenPipeError, EOFError):
            executor._CHECKPOINT_PROCESS = None  # noqa: SLF001 - its __del__ ends the process


class DcpProcessCached(DcpProcess):
    """The same with a stager that keeps its buffers in shared memory, and a plan that is kept."""

    title = "DCP async_save, process, cached shared staging and plan"
    note = (
        "a copy into shared buffers that stay, of all that a rank holds; handles are pickled on each save all the "
        "same, and the process rebuilds every tensor from them and compares its plan"
    )
    staging = StagingOptions(False, True, False, False)
    cached_plan = True


def _find_s3fs(scene: Scene) -> None:
    if scene.s3fs and scene.s3fs not in sys.path:
        sys.path.insert(0, scene.s3fs)
