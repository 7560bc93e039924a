"""The stores of one run: a folder on a disk, one in memory, an S3 server, and one behind a slow link."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from asynchooks.testing import S3Server, s3_server

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peers.case import PlaceKind

__all__ = ["Places", "Visit", "open_places"]

_BUCKET = "bench"
_MEMORY = Path("/dev/shm")


@dataclass(frozen=True, slots=True)
class Visit:
    """An empty place for one child.

    Attributes:
        url: the folder or URL.
        options: fsspec's options.
        environ: the same as environment variables.
        folder: where its bytes lie on this machine.
    """

    url: str
    options: dict[str, str] = field(repr=False)
    environ: dict[str, str] = field(repr=False)
    folder: Path


@dataclass(frozen=True, slots=True)
class Places:
    """The stores that are up."""

    folders: dict[str, Path]
    servers: dict[str, S3Server]

    @contextmanager
    def visit(self, kind: PlaceKind) -> Iterator[Visit]:
        """Lend an empty place, and delete all that is in it afterwards."""
        name = uuid.uuid4().hex[:12]
        server = self.servers.get(kind)
        if server is None:
            folder = self.folders[kind] / name
            folder.mkdir()
            visit = Visit(str(folder), {}, {}, folder)
        else:
            folder = server.root / _BUCKET / name
            environ = {
                **server.environ,
                "AWS_ALLOW_HTTP": "true",
                "AWS_UNSIGNED_PAYLOAD": "true",
                "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "false",
            }
            visit = Visit(f"s3://{_BUCKET}/{name}", dict(server.storage_options), environ, folder)
        try:
            yield visit
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def open_places(
    kinds: Sequence[PlaceKind], folder: Path, slow_mb_s: float, latency_s: float
) -> Iterator[Places]:
    """Open the stores of these kinds; they end with the block, and all that was saved with them.

    Args:
        kinds: which.
        folder: where the local one is.
        slow_mb_s: speed of the slow link.
        latency_s: of the slow link, one way.
    """
    with ExitStack() as stack:
        folders: dict[str, Path] = {}
        servers: dict[str, S3Server] = {}
        for kind in dict.fromkeys(kinds):
            if kind in ("local", "tmpfs"):
                below = folder if kind == "local" else _MEMORY
                name = stack.enter_context(
                    tempfile.TemporaryDirectory(
                        prefix=".checkpoint-peers-", dir=below, ignore_cleanup_errors=True
                    )
                )
                folders[kind] = Path(name)
            else:
                slow = kind == "slow-s3"
                server = stack.enter_context(
                    s3_server(
                        bytes_per_s=slow_mb_s * 1e6 if slow else None,
                        latency_s=latency_s if slow else 0.0,
                        nice=19,  # it stands for a machine elsewhere, which takes no processor from the training
                    )
                )
                server.make_bucket(_BUCKET)
                servers[kind] = server
        yield Places(folders, servers)
