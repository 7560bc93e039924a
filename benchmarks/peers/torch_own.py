"""torch's own ways: `torch.save` and `torch.distributed.checkpoint.async_save`."""

from __future__ import annotations

import os
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from peers.contender import Contender, Pending, Place
from peers.workload import zeros_like

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["DcpAsyncStaging", "DcpCached", "DcpProcess", "DcpThread", "TorchSave", "TorchSaveSynced"]


def register_s3() -> None:
    """Let fsspec's ``s3://`` be obstore's, the fastest that it has; its settings are in the environment.

    Its file keeps what it is given and reads it later, when `torch.save` has long used that memory for something
    else: what is then on S3 has the right size and other bytes. So that its peers' checkpoints can be loaded, the
    file is made to copy here, as s3fs does.
    """
    from obstore.fsspec import BufferedFile, register

    register("s3")
    file_class: Any = BufferedFile
    if not hasattr(file_class, "write_kept"):
        file_class.write_kept = file_class.write
        file_class.write = _write_copied


def _write_copied(file: Any, data: Any) -> int:
    return int(file.write_kept(bytes(data)))


class TorchSave(Contender):
    """`torch.save`, inline."""

    lacks = "fsync, atomic rename, checksums beyond zip's CRC"

    def save(self, state: dict[str, Any], step: int) -> Pending:
        pending = Pending()
        if self.place.is_remote:
            import fsspec

            register_s3()
            with fsspec.open(self.place.at(self.name_of(step)), "wb") as file:
                torch.save(state, file)
        else:
            self._write(state, Path(self.place.at(self.name_of(step))))
        pending.end()
        return pending

    def load(self, step: int, like: dict[str, Any]) -> dict[str, Any]:
        path = self.place.at(self.name_of(step))
        loaded: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return loaded

    def _write(self, state: dict[str, Any], path: Path) -> None:
        torch.save(state, path)


class TorchSaveSynced(TorchSave):
    """`torch.save` to a temporary name, fsync, rename, fsync of the folder, inline."""

    syncs = True
    lacks = "checksums beyond zip's CRC"

    @classmethod
    def refusal(cls, place: Place) -> str:
        return "S3 has no fsync: the row above" if place.is_remote else ""

    def _write(self, state: dict[str, Any], path: Path) -> None:
        temporary = path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


class DcpThread(Contender):
    """`async_save` as it comes: a thread, a new copy of everything on every call."""

    syncs = True
    lacks = "fsync of the folder, checksums"
    _in_process: ClassVar[bool] = False
    _staging: ClassVar[dict[str, bool] | None] = None

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        import torch.distributed.checkpoint
        import torch.distributed.checkpoint.staging
        import torch.distributed.checkpoint.state_dict_saver

        self._dcp: Any = torch.distributed.checkpoint
        self._stager: Any = None
        self._copied: Future[None] | None = None

    def open(self, state: dict[str, Any]) -> None:
        os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
        distributed: Any = torch.distributed
        distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
        if self._staging is not None:
            staging = torch.distributed.checkpoint.staging
            is_cuda = next(iter(state["state_dict"].values())).is_cuda
            options = {"use_pinned_memory": is_cuda, "use_non_blocking_copy": is_cuda, **self._staging}
            self._stager = staging.DefaultStager(staging.StagingOptions(**options))

    def save(self, state: dict[str, Any], step: int) -> Pending:
        kinds = torch.distributed.checkpoint.state_dict_saver.AsyncCheckpointerType
        pending = Pending()
        answer = self._dcp.async_save(
            state,
            storage_writer=self._writer(step),
            async_checkpointer_type=kinds.PROCESS if self._in_process else kinds.THREAD,
            async_stager=self._stager,
        )
        if not isinstance(answer, Future):
            self._copied = answer.staging_completion
            answer = answer.upload_completion
        answer.add_done_callback(lambda done: pending.end(done.exception()))
        return pending

    def updating(self) -> AbstractContextManager[object]:
        return self._after_copy()

    @contextmanager
    def _after_copy(self) -> Iterator[None]:
        if self._copied is not None:
            self._copied.result()
            self._copied = None
        yield

    def load(self, step: int, like: dict[str, Any]) -> dict[str, Any]:
        target = zeros_like(like)
        self._dcp.load(target, storage_reader=self._dcp.FileSystemReader(self.place.at(self.name_of(step))))
        return target

    def name_of(self, step: int) -> str:
        return f"iter_{step}"

    def close(self) -> None:
        if self._stager is not None:
            self._stager.close()
        torch.distributed.destroy_process_group()

    def _writer(self, step: int) -> Any:
        path = self.place.at(self.name_of(step))
        if not self.place.is_remote:
            return self._dcp.FileSystemWriter(path)
        from torch.distributed.checkpoint._fsspec_filesystem import FsspecWriter

        register_s3()
        return FsspecWriter(path, sync_files=False)  # True, the default, calls os.sync() here


class DcpCached(DcpThread):
    """A thread, and a stager that keeps its buffers."""

    _staging: ClassVar[dict[str, bool] | None] = {"use_shared_memory": False, "use_async_staging": False}


class DcpAsyncStaging(DcpThread):
    """A thread, a stager that keeps its buffers and fills them in a thread; the next update waits for it."""

    _staging: ClassVar[dict[str, bool] | None] = {"use_shared_memory": False, "use_async_staging": True}


class DcpProcess(DcpThread):
    """A process of its own, over shared memory, and a stager that keeps its buffers."""

    _in_process = True
    _staging: ClassVar[dict[str, bool] | None] = {"use_shared_memory": True, "use_async_staging": False}

    @classmethod
    def refusal(cls, place: Place) -> str:
        if not place.is_remote:
            return ""
        return "its process cannot be sent obstore's file system, and s3fs does not fit the pinned botocore"
