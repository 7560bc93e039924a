"""Real refusals: full and read-only disks, wrong keys, missing buckets, servers that are gone or silent."""

import os
import resource
import socket
import stat
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from asynchooks.checkpoint import (
    Checkpointer,
    Content,
    KeepLast,
    Snapshot,
    capture,
    find_latest,
    open_store,
)
from asynchooks.checkpoint._owner import OWNER_FILE
from asynchooks.errors import (
    CheckpointNotFoundError,
    ConfigError,
    CorruptCheckpointError,
    StorageDeniedError,
    StorageError,
    StorageFullError,
    StorageUnavailableError,
)
from asynchooks.testing import Fault, FaultyLink, FaultyStore, LinkFault, S3Server


def snapshot(step: int, rows: int = 8) -> Snapshot:
    return capture({"w": torch.full((rows,), float(step))})


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    """A small tmpfs; skips the test where this process may not mount one."""
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip("no permission to mount a tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_leaves_the_old_checkpoint_and_no_rest(tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "-o", "size=1m") as folder:
        saves = Checkpointer(folder)
        saves.save_sync(
            snapshot(1, rows=150_000), name="iter_1.pth", step=1, pointer="last", keep=KeepLast(1)
        )

        with pytest.raises(
            StorageFullError, match=r"step 2: could not write .*iter_2\.pth.*No space left.*Free space"
        ):
            saves.save_sync(
                snapshot(2, rows=150_000), name="iter_2.pth", step=2, pointer="last", keep=KeepLast(1)
            )

        latest = find_latest(folder)
        assert latest is not None
        assert latest.step == 1
        assert sorted(path.name for path in folder.iterdir()) == [
            OWNER_FILE,
            "iter_1.pth",
            "iter_1.pth.manifest.json",
            "last_checkpoint",
        ]


def test_a_file_size_limit_is_a_full_disk(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(StorageFullError, match="File too large"):
            Checkpointer(tmp_path).save_sync(snapshot(1, rows=100_000), name="iter_1.pth", step=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert [path.name for path in tmp_path.iterdir()] == [OWNER_FILE]


def test_a_read_only_disk_is_found_out_by_check(tmp_path: Path) -> None:
    with mounted(tmp_path / "ro", "-o", "ro") as folder, pytest.raises(StorageDeniedError, match="Read-only"):
        Checkpointer(folder).check_sync()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_write_permission_is_denied(tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        with pytest.raises(StorageDeniedError, match="Permission"):
            Checkpointer(tmp_path).check_sync()
    finally:
        tmp_path.chmod(stat.S_IRWXU)


def test_a_file_where_the_folder_should_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")

    with pytest.raises((StorageError, CheckpointNotFoundError), match="file"):
        Checkpointer(tmp_path / "file" / "run").check_sync()


def test_a_transient_failure_is_tried_again(tmp_path: Path) -> None:
    class Flaky:
        calls = 0

        def __call__(self, nbytes: int) -> None:
            self.calls += 1
            if self.calls <= 2:
                raise OSError(110, "Connection timed out")

    store, flaky = open_store(tmp_path), Flaky()

    store.put("a.pth", Content.of(b"x"), progress=flaky)

    assert flaky.calls == 3
    assert b"".join(store.read("a.pth")) == b"x"
    assert list(tmp_path.iterdir()) == [tmp_path / "a.pth"]


def test_a_failure_at_every_single_call_leaves_one_loadable_checkpoint(tmp_path: Path) -> None:
    failing = 0
    while True:
        folder = tmp_path / str(failing)
        saves = Checkpointer(folder, run_id="run")
        saves.save_sync(snapshot(1), name="iter_1.pth", step=1, pointer="last")
        store = FaultyStore(open_store(folder), [Fault(lambda: StorageFullError("full"), skip=failing)])
        try:
            Checkpointer(store, run_id="run").save_sync(
                snapshot(2), name="iter_2.pth", step=2, pointer="last", keep=KeepLast(1)
            )
        except StorageFullError:
            latest = find_latest(folder)
            assert latest is not None
            failing += 1
        else:
            break

    assert failing > 8


@pytest.mark.s3
def test_a_missing_bucket_is_permanent_and_named(s3_server: S3Server) -> None:
    started = time.monotonic()

    with pytest.raises(
        CheckpointNotFoundError, match=r"s3://no-such-bucket/run.*NoSuchBucket.*bucket must exist"
    ):
        Checkpointer("s3://no-such-bucket/run", storage_options=s3_server.storage_options).check_sync()
    with pytest.raises(CheckpointNotFoundError, match="NoSuchBucket"):
        find_latest("s3://no-such-bucket/run", storage_options=s3_server.storage_options)

    assert time.monotonic() - started < 5


@pytest.mark.s3
def test_wrong_keys_are_permanent_and_never_shown(s3_server: S3Server) -> None:
    options = {**s3_server.storage_options, "secret": "wrong-secret-value"}
    started = time.monotonic()

    with pytest.raises(
        StorageDeniedError, match=r"step 3: could not claim s3://.*1 attempt.*credentials"
    ) as raised:
        Checkpointer(s3_server.make_bucket("denied"), storage_options=options).save_sync(
            snapshot(3), name="a.pth", step=3
        )
    with pytest.raises(StorageDeniedError):
        find_latest(s3_server.make_bucket("denied"), storage_options=options)

    assert time.monotonic() - started < 5
    assert "wrong-secret-value" not in repr(raised.value)


def test_an_unreachable_endpoint_fails_within_the_deadline() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{probe.getsockname()[1]}"  # bound, not listening: refuses
        options = {"key": "key", "secret": "a-secret-value", "endpoint_url": endpoint}

        with pytest.raises(StorageUnavailableError, match=r"s3://bucket/run.*attempts\).*reachable"):
            Checkpointer("s3://bucket/run", storage_options=options, deadline_s=4).check_sync()


def test_an_endpoint_that_never_answers_fails_within_the_deadline() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        options = {"key": "k", "secret": "s", "endpoint_url": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        started = time.monotonic()

        with pytest.raises(StorageUnavailableError, match="step 1"):
            Checkpointer("s3://bucket/run", storage_options=options, deadline_s=1).save_sync(
                snapshot(1), name="a.pth", step=1
            )

    assert time.monotonic() - started < 20


@pytest.mark.s3
def test_an_upload_that_fails_midway_leaves_nothing(s3_server: S3Server) -> None:
    store = open_store(f"{s3_server.make_bucket('midway')}/{uuid.uuid4().hex}", s3_server.storage_options)
    store.put("a.pth", Content.of(b"old"))
    faulty = FaultyStore(store, [Fault(lambda: OSError(28, "No space left"), after_bytes=2**24)])

    with pytest.raises(StorageFullError, match="No space left"):
        faulty.put("a.pth", Content.of(bytes(2**26)))

    assert b"".join(store.read("a.pth")) == b"old"


class Forgetful(BaseHTTPRequestHandler):
    """An S3 server that takes the parts of an upload, and does not know the upload when it is to be aborted."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.answer(
            200, b"<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>"
        )

    def do_PUT(self) -> None:
        self.answer(200)

    def do_DELETE(self) -> None:
        self.answer(404, b"<Error><Code>NoSuchUpload</Code></Error>")

    def answer(self, status: int, body: bytes = b"") -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(status)
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Say nothing."""


@pytest.mark.s3
@pytest.mark.parametrize("name", ["s3_server", "moto_server"])
def test_a_file_that_is_overwritten_while_it_is_read_is_told_as_that(
    request: pytest.FixtureRequest, name: str
) -> None:
    server: S3Server = request.getfixturevalue(name)
    url = f"{server.make_bucket('overwritten')}/{uuid.uuid4().hex}"
    store = open_store(url, server.storage_options)
    store.put("a.pth", Content.of(bytes(4_000_000)))
    cut = LinkFault("cut answer", method="GET", path="*a.pth*", after_bytes=2_000_000, times=1)

    with FaultyLink.to(server.endpoint_url, cut) as link:
        reader = open_store(url, {**server.storage_options, "endpoint_url": link.endpoint_url})
        pieces = reader.read("a.pth", chunk_bytes=100_000)
        next(pieces)
        store.put("a.pth", Content.of(bytes(1000)))

        with pytest.raises(CorruptCheckpointError, match=r"a\.pth was overwritten while it was read"):
            list(pieces)

    assert b"".join(store.read("a.pth")) == bytes(1000)


def test_a_stopped_upload_that_cannot_be_aborted_tells_why_it_was_stopped() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Forgetful) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        options = {"key": "k", "secret": "s", "endpoint_url": f"http://127.0.0.1:{server.server_port}"}
        store = FaultyStore(
            open_store("s3://bucket/run", options),
            [Fault(lambda: StorageFullError("stop here"), after_bytes=2**24)],
        )
        try:
            with pytest.raises(StorageFullError, match="stop here"):
                store.put("a.pth", Content.of(bytes(2**26)))
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.s3
def test_the_environment_gives_credentials_and_endpoint(s3_server: S3Server) -> None:
    code = (
        "import torch; from asynchooks.checkpoint import *; cp = Checkpointer('s3://environment/run');"
        "cp.save_sync(capture({'w': torch.ones(1)}), name='a.pth', step=1); print(find_latest('s3://environment/run').name)"
    )
    s3_server.make_bucket("environment")
    environment = os.environ | dict(s3_server.environ) | {"PYTHONPATH": os.pathsep.join(sys.path)}

    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "a.pth"


@pytest.mark.parametrize(
    ("url", "options", "match"),
    [
        ("s3://bucket/run", {"kye": "x"}, "kye"),
        ("s3://bucket/run", {"endpoint_url": "http://store.example"}, "allow_http"),
        ("nosuchprotocol://x/y", {}, "nosuchprotocol"),
        ("/tmp/run", {"key": "x"}, "no storage options"),
    ],
)
def test_a_wrong_option_fails_when_the_checkpointer_is_made(
    url: str, options: dict[str, str], match: str
) -> None:
    with pytest.raises((ConfigError, TypeError), match=match):
        Checkpointer(url, storage_options=options)


def test_a_url_with_a_password_is_shown_without_it(tmp_path: Path) -> None:
    from asynchooks.checkpoint._storage._errors import redact_url

    assert redact_url("sftp://me:secret@host/run?token=x") == "sftp://host/run"
    assert redact_url(str(tmp_path)) == str(tmp_path)
