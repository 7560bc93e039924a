"""A real S3 server on this machine, from a package: rclone serving a temporary folder.

Decides how the server is started, reached, slowed down and stopped. Used by the tests, the demo and the
benchmarks. It is a real server in its own process, so it takes no GIL from the training; it knows neither
conditional puts nor unfinished uploads.
"""

from __future__ import annotations

import math
import secrets
import subprocess
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from asynchooks.testing._server import START_S, free_port, rclone, running
from asynchooks.testing._throttle import ThrottledLink

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["S3Server", "s3_server"]


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
            str(rclone("the embedded S3 server")),
            "mkdir",
            f":s3:{name}",
            "--config",
            "/dev/null",
        ]  # a folder would not be noticed
        done = subprocess.run(command, env=environment, check=False, capture_output=True, timeout=START_S)  # noqa: S603
        if done.returncode:
            raise RuntimeError(
                f"could not make the bucket {name!r}: {done.stderr.decode(errors='replace').strip()}"
            )
        return f"s3://{name}"


@contextmanager
def s3_server(
    *,
    bytes_per_s: float | None = None,
    latency_s: float = 0.0,
    log: Path | None = None,
    nice: int = 0,
) -> Iterator[S3Server]:
    """Start an S3 server on a free port of 127.0.0.1 and stop it at the end; its data goes with it.

    Args: bytes_per_s: carry at most so many bytes per second in each direction, all connections together,
        like a store far away.
        latency_s: delay the start of every answer by so much.
        log: keep what the server says in this file.
        nice: lower the server's priority by so much (0-19): with 19, it takes the processor when nothing else wants
            it, like a server that is elsewhere.

    Raises:
        RuntimeError: rclone is not installed, or the server did not start; the message says what to do.
    """
    program = rclone("the embedded S3 server")
    with ExitStack() as stack:
        folder = Path(
            stack.enter_context(
                tempfile.TemporaryDirectory(prefix="asynchooks-s3-", ignore_cleanup_errors=True)
            )
        )
        root = folder / "buckets"
        root.mkdir()
        log = log or folder / "rclone.log"
        port = free_port()
        secret = secrets.token_hex(16)
        command = [
            *(("nice", "-n", str(nice)) if nice else ()),
            str(program),
            *("serve", "s3", str(root), "--addr", f"127.0.0.1:{port}", "--auth-key", f"asynchooks,{secret}"),
            *("--config", "/dev/null", "--vfs-cache-mode", "off", "--etag-hash", "", "--no-checksum"),
        ]
        stack.enter_context(running("the embedded S3 server", command, port, log))
        if bytes_per_s is not None or latency_s:
            speed = math.inf if bytes_per_s is None else bytes_per_s
            link = ThrottledLink("127.0.0.1", port, bytes_per_s=speed, latency_s=latency_s)
            port = stack.enter_context(link).port
        yield S3Server(f"http://127.0.0.1:{port}", "asynchooks", secret, root)
