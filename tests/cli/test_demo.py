from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from asynchooks.checkpoint import list_checkpoints, open_store, verify
from asynchooks.checkpoint._owner import OWNER_FILE
from asynchooks.testing import S3Server, s3_server

pytestmark = pytest.mark.s3

DEMO = [sys.executable, "-m", "asynchooks", "demo", "--model", "tiny"]


def run_demo(*options: str, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*DEMO, *options], capture_output=True, text=True, timeout=100, env={**os.environ, **(environ or {})}
    )


@pytest.fixture(scope="module")
def slow_server() -> Iterator[S3Server]:
    """So slow that a save takes longer than the steps between two saves."""
    with s3_server(bytes_per_s=4e6) as server:
        server.make_bucket("bucket")
        yield server


def test_both_modes_leave_equal_checkpoints_and_a_resumed_run_arrives_there_too(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    demo = run_demo("--steps", "12", "--json", str(report))

    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert demo.stderr == ""
    assert demo.stdout.count("every bit equal") == 2
    assert "are left after pruning, with iter_9.pth, iter_12.pth" in demo.stdout
    numbers = json.loads(report.read_text())
    assert [claim["holds"] for claim in numbers["proof"]] == [True, True, True]
    assert numbers["runs"]["sync"]["saves"] == numbers["runs"]["async"]["saves"] >= 4
    assert numbers["runs"]["sync"]["exposed_s"] > numbers["runs"]["async"]["exposed_s"]


def test_a_folder_serves_as_the_store_and_the_seed_decides_the_weights(tmp_path: Path) -> None:
    for seed in ("1", "2"):
        demo = run_demo("--steps", "8", "--seed", seed, "--store", str(tmp_path / seed))
        assert demo.returncode == 0, demo.stdout + demo.stderr

    one, two = ([*(tmp_path / seed).iterdir()] for seed in "12")
    assert {path.name for path in one[0].iterdir()} == {"async", "logs", "resumed", "sync"}
    weights = [(folder / "sync" / "iter_8.pth").read_bytes() for (folder,) in (one, two)]
    assert weights[0] != weights[1]


def test_an_interrupt_leaves_committed_checkpoints_and_says_which(slow_server: S3Server) -> None:
    demo = subprocess.Popen(
        [*DEMO, "--steps", "400", "--store", "s3://bucket/interrupted"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **slow_server.environ},
    )
    assert demo.stdout is not None
    for line in demo.stdout:
        if line.startswith('training, mode="async"'):
            break
    demo.send_signal(signal.SIGINT)
    said = demo.stdout.read()
    demo.stdout.close()

    assert demo.wait() == 130, said
    told = dict(re.findall(r"Committed in (s3://\S+): (.*)\.$", said, flags=re.MULTILINE))
    assert [url.rpartition("/")[2] for url in told] == ["sync", "async"]
    for url, names in told.items():
        committed = list_checkpoints(url, storage_options=slow_server.storage_options)
        assert names == (", ".join(info.name for info in committed) or "nothing yet")
        for info in committed:
            verify(info.url, storage_options=slow_server.storage_options)
        of_checkpoints = tuple(info.name for info in committed)
        others = [
            name
            for name in open_store(url, slow_server.storage_options).entries()
            if not any(each in name for each in of_checkpoints)
            and "_checkpoint" not in name
            and name != OWNER_FILE
        ]
        assert others == []


@pytest.mark.parametrize("store", ["s3://no-such-bucket/x", "nosuchscheme://x"])
def test_a_store_that_cannot_be_used_is_an_error_without_a_traceback(
    store: str, slow_server: S3Server
) -> None:
    demo = run_demo("--steps", "8", "--store", store, environ=dict(slow_server.environ))

    assert demo.returncode == 1
    assert "error:" in demo.stdout
    assert "Traceback" not in demo.stdout + demo.stderr
