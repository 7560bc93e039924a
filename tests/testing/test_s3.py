"""The embedded server is real, can be slow, and goes away."""

import os
import time
from pathlib import Path

import psutil
import pytest

from asynchooks.checkpoint import Content, open_store
from asynchooks.testing import s3_server

MIB = 2**20


@pytest.mark.s3
def test_the_server_serves_while_the_block_runs_and_leaves_nothing(tmp_path: Path) -> None:
    before = set(psutil.Process().children())

    with s3_server(log=tmp_path / "log") as server:
        store = open_store(server.make_bucket("bucket"), server.storage_options)
        store.put("a", Content.of(b"x"))
        assert b"".join(store.read("a")) == b"x"
        assert (server.root / "bucket").is_dir()

    assert not server.root.exists()
    assert set(psutil.Process().children()) == before
    assert "Starting s3 server" in (tmp_path / "log").read_text()


@pytest.mark.s3
def test_a_slow_wire_paces_all_connections_together() -> None:
    with s3_server(bytes_per_s=16 * MIB, latency_s=0.01) as server:
        store = open_store(server.make_bucket("bucket"), server.storage_options)
        started = time.monotonic()
        store.put("a", Content.of(os.urandom(12 * MIB)))

    assert 0.7 < time.monotonic() - started < 5


def test_a_missing_rclone_is_named(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "import importlib.metadata as m, sys; sys.path[:] = [p for p in sys.path]\n"
        "from asynchooks.testing import _server\n"
        "_server.metadata.files = lambda name: None\n"
        "try:\n    _server.rclone('this')\nexcept RuntimeError as error:\n    print(error)"
    )
    environment = os.environ | {"PATH": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}

    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )

    assert "pip install 'asynchooks[demo]'" in done.stdout
