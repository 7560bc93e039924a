"""A real SFTP server on this machine: rclone serving a temporary folder.

Decides how it is started, reached and stopped. fsspec reaches it through paramiko.
"""

from __future__ import annotations

import secrets
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asynchooks.testing._server import free_port, rclone, running

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["SftpServer", "sftp_server"]


@dataclass(frozen=True, slots=True)
class SftpServer:
    """A running server.

    Attributes:
        url: its folder.
        port: where it listens, on the loopback interface.
        username: who may log in.
        password: with this password.
        root: the folder that it serves.
    """

    url: str
    port: int
    username: str
    password: str = field(repr=False)
    root: Path

    @property
    def storage_options(self) -> Mapping[str, Any]:
        """What to hand to `Checkpointer` (or to any fsspec call) beside an ``sftp://`` URL."""
        return {"port": self.port, "username": self.username, "password": self.password}


@contextmanager
def sftp_server() -> Iterator[SftpServer]:
    """Start an SFTP server on a free port of 127.0.0.1 and stop it at the end; its data goes with it.

    Raises:
        RuntimeError: rclone is not installed, or the server did not start; the message says what to do.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="asynchooks-sftp-")))
        root = folder / "files"
        root.mkdir()
        port, password = free_port(), secrets.token_hex(16)
        command = [
            *(str(rclone("the embedded SFTP server")), "serve", "sftp", str(root)),
            *("--addr", f"127.0.0.1:{port}", "--user", "asynchooks", "--pass", password),
            *("--config", "/dev/null", "--cache-dir", str(folder / "cache"), "--vfs-cache-mode", "writes"),
        ]
        stack.enter_context(
            running("the embedded SFTP server", command, port, folder / "log", greeting="ssh")
        )
        yield SftpServer("sftp://127.0.0.1/", port, "asynchooks", password, root)
