"""The conformance suites on every kind of store that the package opens."""

import tracemalloc
import uuid
from pathlib import Path

import fsspec
import obstore.store
import pytest

from asynchooks.checkpoint import Content, Store, open_store
from asynchooks.checkpoint._storage._fsspec import FsspecStore
from asynchooks.checkpoint._storage._object import ObjectStore
from asynchooks.testing import (
    AzureServer,
    CheckpointSuite,
    FaultyStore,
    S3Server,
    SftpServer,
    SlowStore,
    StoreSuite,
)


class TestLocal(StoreSuite, CheckpointSuite):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return open_store(tmp_path / "not" / "made yet")


def test_reading_a_small_file_takes_little_memory(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.put("small", Content.of(b"x" * 800))
    tracemalloc.start()
    try:
        assert b"".join(store.read("small")) == b"x" * 800
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak_bytes < 2**20


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


class TestObjects(StoreSuite, CheckpointSuite):
    """A client that answers ranges, which the S3 server of the tests does not."""

    @pytest.fixture
    def store(self) -> Store:
        return ObjectStore(obstore.store.MemoryStore(), url="objects://bucket")


@pytest.mark.s3
def test_a_server_that_answers_ranges_wrongly_is_read_from_the_start(s3_server: S3Server) -> None:
    store = open_store(f"{s3_server.make_bucket('ranges')}/run", s3_server.storage_options)
    store.put("a.pth", Content.of(b"content"))
    parallel = store.parallel_reads
    buffer = bytearray(3)

    assert store.read_into("a.pth", 3, [memoryview(buffer)]) == 3
    assert buffer == b"ten"
    assert (parallel, store.parallel_reads) == (8, 1)


@pytest.mark.s3
class TestS3WithConditionalPuts(CheckpointSuite):
    @pytest.fixture
    def store(self, moto_server: S3Server) -> Store:
        return open_store(
            f"{moto_server.make_bucket('stores')}/{uuid.uuid4().hex}/run", moto_server.storage_options
        )


class TestAzure(StoreSuite, CheckpointSuite):
    @pytest.fixture
    def store(self, azure_server: AzureServer) -> Store:
        container = azure_server.make_container("stores")
        return open_store(f"{container}/{uuid.uuid4().hex}/run", azure_server.storage_options)


class TestSftp(StoreSuite, CheckpointSuite):
    @pytest.fixture
    def store(self, sftp_server: SftpServer) -> Store:
        return open_store(f"{sftp_server.url}{uuid.uuid4().hex}/run", sftp_server.storage_options)


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
