"""``asynchooks checkpoints`` as an operator runs it: the installed command, real stores, signals and a terminal."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from asynchooks._cli._app import app
from asynchooks._cli.checkpoints._interrupt import Terminated, uninterrupted
from asynchooks._cli.checkpoints._outcome import Outcome, run_command
from asynchooks.checkpoint import Checkpointer, capture, list_checkpoints
from asynchooks.testing import S3Server

COMMAND = [str(Path(sys.executable).with_name("asynchooks")), "checkpoints"]
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")} | {
    "PYTHONPATH": os.pathsep.join(sys.path),
    "COLUMNS": "200",
}
SECRET = "wrong-secret-0123456789"

SAVER = """
import os, signal, sys, torch
from asynchooks.checkpoint import Checkpointer, capture, open_store
from asynchooks.testing import Fault, FaultyStore

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

store = FaultyStore(open_store(sys.argv[1]), [Fault(kill, "put", sys.argv[2], after_bytes=int(sys.argv[3]))])
Checkpointer(store).save_sync(capture({"w": torch.ones(9_000_000)}), name="killed.pth", step=2)
"""


def run(*arguments: str | Path, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, env={**CLEAN, **(env or {})}, capture_output=True, text=True, timeout=100)


def save(url: str | Path, step: int, options: Mapping[str, str] | None = None) -> None:
    saves = Checkpointer(url, storage_options=options, run_id="run")
    saves.save_sync(capture({"w": torch.ones(1000), "step": step}), name=f"iter_{step}.pth", step=step)
    saves.release_sync()


@pytest.mark.s3
def test_exit_codes_and_what_is_said_on_s3(s3_server: S3Server) -> None:
    url = f"{s3_server.make_bucket('operator')}/{uuid.uuid4().hex}"
    options = [f"-o{key}={value}" for key, value in s3_server.storage_options.items()]
    for step in (1, 2):
        save(url, step, s3_server.storage_options)
    folder = s3_server.root / url.removeprefix("s3://")
    content = (folder / "iter_1.pth").read_bytes()
    (folder / "iter_1.pth").write_bytes(content[:-100] + bytes(100))

    listed = run("list", url, "--json", env=s3_server.environ)
    assert (listed.returncode, listed.stderr) == (0, "")
    assert [one["name"] for one in json.loads(listed.stdout)["checkpoints"]] == ["iter_1.pth", "iter_2.pth"]

    verified = run("verify", f"{url}/iter_1.pth", *options)
    assert verified.returncode == 1
    assert "chunk" in verified.stdout

    denied = run("list", url, "--debug", env={**s3_server.environ, "AWS_SECRET_ACCESS_KEY": SECRET})
    assert denied.returncode == 3
    assert "Check the credentials" in denied.stderr
    assert denied.stdout == ""

    told = listed.stdout + verified.stdout + verified.stderr + denied.stderr
    assert s3_server.storage_options["secret"] not in told
    assert SECRET not in told


def test_wrong_usage_loads_no_torch_and_repeats_no_credential() -> None:
    code = "import sys; from asynchooks._cli import main\ntry: main()\nfinally: print('torch' in sys.modules)"
    for options in (["--help"], ["--storage-options", f'{{"secret": "{SECRET}"'], ["-o", SECRET]):
        command = [sys.executable, "-c", code, "checkpoints", "list", "/nowhere", *options]
        done = subprocess.run(command, env=CLEAN, capture_output=True, text=True)
        assert done.returncode == (0 if options == ["--help"] else 2)
        assert done.stdout.splitlines()[-1] == "False"
        assert SECRET not in done.stdout + done.stderr


def test_storage_options_come_from_a_file_too(tmp_path: Path) -> None:
    (tmp_path / "options.json").write_text(json.dumps({"key": "k", "secret": SECRET, "sicret": "typo"}))

    options = ["--storage-options", f"@{tmp_path / 'options.json'}"]
    done = CliRunner().invoke(app, ["checkpoints", "list", "s3://bucket/run", *options])
    assert done.exit_code == 2
    assert "'sicret' is not valid" in done.stderr
    assert SECRET not in done.stderr


def test_a_ctrl_c_ends_a_command_that_waits_for_a_silent_store() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"endpoint_url=http://127.0.0.1:{silent.getsockname()[1]}"
        command = [*COMMAND, "list", "s3://b/run", "-okey=k", f"-osecret={SECRET}", "-o", endpoint]
        with subprocess.Popen(command, env=CLEAN, stderr=subprocess.PIPE, text=True) as process:
            connection, _ = silent.accept()
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=20)
            connection.close()

    assert process.returncode == 130
    assert "Interrupted" in said


def test_on_a_terminal_prune_asks_and_shows_its_reading(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step)
    for answer, left in (("n", 3), ("y", 1)):
        ours, theirs = pty.openpty()
        command = [*COMMAND, "prune", str(tmp_path), "--keep-last", "1"]
        with subprocess.Popen(command, env=CLEAN, stdin=theirs, stdout=theirs, stderr=theirs) as process:
            os.close(theirs)
            os.write(ours, f"{answer}\n".encode())
            said = b""
            while piece := _read(ours):
                said += piece
        os.close(ours)
        assert process.returncode == 0
        assert b"Delete 2 checkpoints" in said
        assert len(list_checkpoints(tmp_path)) == left
    assert b"verifying what stays" in said
    assert b"B/s" in said


@pytest.mark.crash
def test_what_killed_saves_leave_is_listed_and_swept(tmp_path: Path) -> None:
    save(tmp_path, 1)
    for pattern, after_bytes in (("killed.pth", 20_000_000), ("*.manifest.json", 0)):
        command = [sys.executable, "-c", SAVER, str(tmp_path), pattern, str(after_bytes)]
        assert subprocess.run(command, env=CLEAN).returncode == -signal.SIGKILL

    listed = CliRunner().invoke(app, ["checkpoints", "list", str(tmp_path), "--json"])
    assert listed.exit_code == 0
    others = json.loads(listed.stdout)["others"]
    unfinished = [other["name"] for other in others if other["kind"] == "unfinished"]
    assert len(unfinished) == 3
    assert {"killed.pth", "killed.pth.manifest.next.json"} < set(unfinished)

    sweep = ["checkpoints", "sweep", str(tmp_path), "--older-than=0s", "--yes"]
    assert CliRunner().invoke(app, sweep).exit_code == 0
    left = {path.name for path in tmp_path.iterdir() if not path.name.startswith(".asynchooks.owner")}
    assert left == {"iter_1.pth", "iter_1.pth.manifest.json"}


@pytest.mark.parametrize(
    ("number", "kind"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)]
)
def test_a_first_signal_waits_for_the_end_of_a_step_and_a_second_does_not(
    number: signal.Signals, kind: type[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    steps: list[str] = []
    with pytest.raises(kind), uninterrupted() as stop_here:
        signal.raise_signal(number)
        steps.append("finished")
        stop_here()
        steps.append("never")
    with pytest.raises(kind), uninterrupted():
        signal.raise_signal(number)
        signal.raise_signal(number)
        steps.append("never")

    assert steps == ["finished"]
    assert "Finishing what has begun" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (RuntimeError("a bug"), Outcome.FAILED),
        (MemoryError(), Outcome.FAILED),
        (Terminated(), Outcome.TERMINATED),
        (KeyboardInterrupt(), Outcome.INTERRUPTED),
    ],
)
def test_a_failure_of_the_command_itself_is_not_taken_for_damage(
    error: BaseException, outcome: Outcome, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> Outcome:
        raise error

    assert run_command(fail, debug=False) is outcome
    assert capsys.readouterr().err.strip()


def _read(terminal: int) -> bytes:
    """Return what a terminal shows next; nothing when its last writer is gone."""
    try:
        return os.read(terminal, 4096)
    except OSError:
        return b""
