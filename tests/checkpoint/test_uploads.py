"""Uploads that come to no end: a store that falls silent, and what killed processes leave on S3."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import botocore.session
import pytest
import torch

from asynchooks.checkpoint import Checkpointer, capture, open_store, sweep
from asynchooks.checkpoint._owner import OWNER_FILE
from asynchooks.errors import StorageUnavailableError
from asynchooks.testing import S3Server


class Silent(BaseHTTPRequestHandler):
    """An S3 server that begins uploads, and answers to none of their parts until it is told to."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if "list-type" in self.path:
            self.answer(200, b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>")
            return
        self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")

    def do_POST(self) -> None:
        self.answer(
            200, b"<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>"
        )

    def do_PUT(self) -> None:
        if "partNumber" in self.path:
            self.server.released.wait(60)  # type: ignore[attr-defined]
        self.answer(200)

    def do_DELETE(self) -> None:
        self.server.aborted.append(self.path)  # type: ignore[attr-defined]
        self.answer(204)

    def answer(self, status: int, body: bytes = b"") -> None:
        try:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.send_header("ETag", '"1"')
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except ConnectionError:
            return  # the client has given up

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Say nothing."""


@contextmanager
def silent_server() -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Silent)
    server.released, server.aborted = threading.Event(), []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        thread.join()
        server.server_close()


def test_an_upload_whose_parts_are_never_answered_fails_within_the_deadline_and_is_aborted() -> None:
    deadline_s = 3.0
    with silent_server() as server:
        options = {"key": "k", "secret": "s", "endpoint_url": f"http://127.0.0.1:{server.server_port}"}
        saves = Checkpointer("s3://bucket/run", storage_options=options, deadline_s=deadline_s)
        started = time.monotonic()

        with pytest.raises(StorageUnavailableError, match="step 1"):
            saves.save_sync(capture({"w": torch.zeros(5 * 2**20)}), name="a.pth", step=1)

        lasted_s = time.monotonic() - started
        assert lasted_s < 2 * deadline_s
        assert any("/bucket/run/a.pth?uploadId=1" in path for path in server.aborted)


def begin_upload(server: S3Server, bucket: str, key: str) -> None:
    """What a process leaves that is killed while it uploads."""
    client = botocore.session.Session().create_client(
        "s3",
        endpoint_url=server.endpoint_url,
        aws_access_key_id=server.key,
        aws_secret_access_key=server.secret,
        region_name="us-east-1",
    )
    begun = client.create_multipart_upload(Bucket=bucket, Key=key)
    client.upload_part(Bucket=bucket, Key=key, UploadId=begun["UploadId"], PartNumber=1, Body=b"x")


@pytest.mark.s3
def test_unfinished_uploads_are_told_and_aborted_only_when_that_is_asked_for(
    moto_server: S3Server, caplog: pytest.LogCaptureFixture
) -> None:
    prefix, options = uuid.uuid4().hex, moto_server.storage_options
    bucket = moto_server.make_bucket("unfinished")
    for key in (f"{prefix}/run/a.pth", f"{prefix}/run/sub/b.pth", f"{prefix}/other/c.pth"):
        begin_upload(moto_server, "unfinished", key)

    url = f"{bucket}/{prefix}/run"
    ages: dict[str, Any] = {"storage_options": options, "older_than_s": 50 * 365 * 24 * 3600.0}
    assert sweep(url, abort_uploads=True, **ages) == []  # too young: moto's are begun in 2010
    with caplog.at_level(logging.WARNING):
        assert sweep(url, storage_options=options, older_than_s=-60) == []
    assert "1 unfinished uploads, of a.pth" in caplog.text
    assert "AbortIncompleteMultipartUpload" in caplog.text
    every: dict[str, Any] = {"storage_options": options, "older_than_s": -60, "abort_uploads": True}
    assert sweep(url, dry_run=True, **every) == ["upload of a.pth"]
    assert sweep(url, **every) == ["upload of a.pth"]
    assert sweep(url, **every) == []
    assert sweep(f"{bucket}/{prefix}/other", **every) == ["upload of c.pth"]


@pytest.mark.s3
def test_a_store_without_the_listing_of_uploads_is_swept_all_the_same(s3_server: S3Server) -> None:
    url, options = f"{s3_server.make_bucket('swept')}/{uuid.uuid4().hex}", s3_server.storage_options
    Checkpointer(url, storage_options=options).check_sync()

    assert sweep(url, storage_options=options, older_than_s=-60) == []
    assert list(open_store(url, options).entries()) == [OWNER_FILE]
