"""The conformance suites on every kind of store that the package opens."""

import uuid
from pathlib import Path

import fsspec
import pytest

from asynchooks.checkpoint import Store, open_store
from asynchooks.checkpoint._storage._fsspec import FsspecStore
from asynchooks.testing import CheckpointSuite, FaultyStore, S3Server, SlowStore, StoreSuite


class TestLocal(StoreSuite, CheckpointSuite):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return open_store(tmp_path / "not" / "made yet")


class TestFileUrl(StoreSuite):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return open_store(f"file://{tmp_path}/x")


class TestMemory(StoreSuite, CheckpointSuite):
    @pytest.fixture
    def store(self) -> Store:
        return open_store(f"memory://{uuid.uuid4().hex}/run")


@pytest.mark.s3
class TestS3(StoreSuite, CheckpointSuite):
    @pytest.fixture
    def store(self, s3_server: S3Server) -> Store:
        return open_store(
            f"{s3_server.make_bucket('stores')}/{uuid.uuid4().hex}/run", s3_server.storage_options
        )


class TestAnyOtherFileSystem(StoreSuite, CheckpointSuite):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return FsspecStore(fsspec.filesystem("local"), str(tmp_path / "run"), url=f"file://{tmp_path}/run")


class TestFaultyWithoutFaults(StoreSuite):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return FaultyStore(open_store(tmp_path / "run"))


class TestSlow(StoreSuite):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return SlowStore(open_store(tmp_path / "run"), bytes_per_s=2e9, latency_s=0.001)
