"""Other projects: Lightning, torchsnapshot, torch_checkpointing, each as its documentation shows it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, cast

import torch

from peers.contender import Contender, Pending, Place
from peers.torch_own import register_s3
from peers.workload import zeros_like

__all__ = ["LightningAsync", "TorchCheckpointing", "TorchSnapshot"]


class LightningAsync(Contender):
    """`AsyncCheckpointIO` around `TorchCheckpointIO`: clones, then BytesIO and a file in a thread."""

    lacks = "fsync, checksums beyond zip's CRC"

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        from lightning.pytorch.plugins.io import AsyncCheckpointIO, TorchCheckpointIO

        outer = self
        self._pending = Pending()

        class Telling(TorchCheckpointIO):  # type: ignore[misc]
            def save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
                try:
                    super().save_checkpoint(*args, **kwargs)
                except BaseException as error:
                    outer._pending.end(error)
                    raise
                outer._pending.end()

        self._io = AsyncCheckpointIO(Telling())

    def open(self, state: dict[str, Any]) -> None:
        if self.place.is_remote:
            register_s3()

    def save(self, state: dict[str, Any], step: int) -> Pending:
        pending = self._pending = Pending()
        self._io.save_checkpoint(state, self.place.at(self.name_of(step)))
        return pending

    def load(self, step: int, like: dict[str, Any]) -> dict[str, Any]:
        loaded: dict[str, Any] = torch.load(
            self.place.at(self.name_of(step)), map_location="cpu", weights_only=True
        )
        return loaded

    def close(self) -> None:
        self._io.teardown()


class TorchSnapshot(Contender):
    """`Snapshot.async_take`."""

    lacks = "fsync, checksums"

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        import torchsnapshot

        self._library = torchsnapshot

    @classmethod
    def refusal(cls, place: Place) -> str:
        return (
            "its S3 needs aiobotocore, which has no release for the pinned botocore"
            if place.is_remote
            else ""
        )

    def save(self, state: dict[str, Any], step: int) -> Pending:
        taken = self._library.Snapshot.async_take(
            self.place.at(self.name_of(step)), {"app": self._library.StateDict(**state)}
        )

        def is_over() -> bool:
            if taken.done():
                taken.wait()  # raises what went wrong
                return True
            return False

        return Pending(is_over)

    def load(self, step: int, like: dict[str, Any]) -> dict[str, Any]:
        target = zeros_like(like)
        app = self._library.StateDict(**target)
        self._library.Snapshot(self.place.at(self.name_of(step))).restore({"app": app})
        return dict(app)

    def name_of(self, step: int) -> str:
        return f"iter_{step}"


class TorchCheckpointing(Contender):
    """`CheckpointManager`: staged into shared memory by a thread, written by a process; local files only."""

    lacks = "fsync, checksums beyond zip's CRC"

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        import torch_checkpointing

        self._library = torch_checkpointing
        self._manager: Any = None

    @classmethod
    def refusal(cls, place: Place) -> str:
        return "local files only" if place.is_remote else ""

    def open(self, state: dict[str, Any]) -> None:
        from torch_checkpointing.storage.filesystem import LocalFileSystemStorageConfig

        # O_DIRECT, the default, fails on ext4: its writes are not aligned
        storage = LocalFileSystemStorageConfig(use_direct_io=False)
        config = self._library.CheckpointManager.Config(storage_config=storage)
        self._manager = self._library.CheckpointManager(config)

    def save(self, state: dict[str, Any], step: int) -> Pending:
        pending = Pending()
        future = self._manager.save(self.place.at(self.name_of(step)), state)
        future.add_done_callback(lambda done: pending.end(done.exception()))
        return pending

    def updating(self) -> AbstractContextManager[object]:
        return cast("AbstractContextManager[object]", self._manager.lock())

    def load(self, step: int, like: dict[str, Any]) -> dict[str, Any]:
        manager = self._library.CheckpointManager(self._library.CheckpointManager.Config.with_sync_save())
        try:
            return dict(manager.load(self.place.at(self.name_of(step)), into=zeros_like(like)))
        finally:
            manager.close()

    def name_of(self, step: int) -> str:
        return f"iter_{step}"

    def close(self) -> None:
        self._manager.close()
