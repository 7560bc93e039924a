"""Ctrl-C while saves are on a slow way to S3: the first finishes them, the second gives them up."""

from __future__ import annotations

import re
import signal
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from asynchooks.checkpoint import list_checkpoints, open_store, verify
from asynchooks.checkpoint._owner import OWNER_FILE
from asynchooks.testing import S3Server, ThrottledLink

from .conftest import Trainer
from .trainer import SIZE, state_bytes

pytestmark = [pytest.mark.crash, pytest.mark.s3]

INTERRUPT = {"number": signal.SIGINT, "word": "busy"}
INTERRUPT_AGAIN = {"number": signal.SIGINT, "word": "finishing", "delay_s": 0.5}


@contextmanager
def link_to(server: S3Server, bytes_per_s: float) -> Iterator[dict[str, str]]:
    """Options that lead to the server by a link of this speed."""
    address = urlsplit(server.endpoint_url)
    assert address.hostname is not None
    assert address.port is not None
    with ThrottledLink(address.hostname, address.port, bytes_per_s=bytes_per_s, direction="upload") as link:
        yield {**server.storage_options, "endpoint_url": f"http://{link.host}:{link.port}"}


@pytest.fixture
def url(s3_server: S3Server) -> str:
    return f"{s3_server.make_bucket('interrupted')}/{uuid.uuid4().hex}"


def check_whole(url: str, server: S3Server) -> list[int]:
    """Every checkpoint verifies and no other file is there; return their steps."""
    committed = list_checkpoints(f"{url}/run", storage_options=server.storage_options)
    for info in committed:
        verify(info.url, storage_options=server.storage_options)
    names = {f"{info.name}{ending}" for info in committed for ending in ("", ".manifest.json")}
    files = set(open_store(f"{url}/run", server.storage_options).entries())
    assert files - {OWNER_FILE, "last_checkpoint", "best_checkpoint"} == names
    return [info.step for info in committed]


def test_a_first_ctrl_c_finishes_the_saves_in_flight(
    trainer: Trainer, tmp_path: Path, s3_server: S3Server, url: str
) -> None:
    with link_to(s3_server, bytes_per_s=state_bytes(SIZE) / 0.7) as options:
        ended = trainer.train(tmp_path / "run", url, options, 50, [INTERRUPT])

    assert ended.status == 130, trainer.errors
    assert ended.all_of("finishing")
    assert check_whole(url, s3_server) == ended.all_of("saved") != []


def test_a_second_ctrl_c_gives_them_up_between_two_parts_of_an_upload(
    trainer: Trainer, tmp_path: Path, s3_server: S3Server, url: str
) -> None:
    size = 2400  # eight parts of a multipart upload, of which four are on their way at once
    trainer.train(tmp_path / "run", url, s3_server.storage_options, 2, size=size)
    with link_to(s3_server, bytes_per_s=state_bytes(size) / 5) as options:
        ended = trainer.train(tmp_path / "run", url, options, 50, [INTERRUPT, INTERRUPT_AGAIN], size=size)

    assert ended.status == 1
    assert re.search(r"CheckpointHook\.\w+ was cancelled before it had finished", trainer.errors)
    assert ended.lasted_s < 4.5, "less than the rest of the upload"
    assert ended.all_of("saved") == []
    assert check_whole(url, s3_server) == [2, 2]  # the last and the best one of the first start
