"""Where the demo's checkpoints go: an embedded S3 server behind a link of limited speed, or the user's own URL."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from asynchooks.testing import s3_server

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["DEFAULT_BANDWIDTH_MB_S", "Store", "open_store"]

DEFAULT_BANDWIDTH_MB_S = 50.0
_BUCKET = "demo"


@dataclass(frozen=True, slots=True)
class Store:
    """A place for the demo's checkpoints.

    Attributes:
        url: URL below which each run gets a folder.
        options: fsspec's options for it.
        bytes_per_s: speed of the link to it; None where it is not ours to know.
        description: one phrase for the table's caption.
        is_temporary: whether it ends with the demo.
    """

    url: str
    options: Mapping[str, Any] = field(repr=False)  # holds credentials
    bytes_per_s: float | None
    description: str
    is_temporary: bool

    def run_url(self, name: str) -> str:
        """Return the URL of one run's folder."""
        return f"{self.url}/{name}"


@contextlib.contextmanager
def open_store(url: str | None, bandwidth_mb_s: float) -> Iterator[Store]:
    """Start the embedded server and its link, or take the user's URL as it is.

    Args:
        url: any URL that fsspec reaches, or None for the embedded server.
        bandwidth_mb_s: speed of the link to the embedded server, in both directions.
    """
    if url is not None:
        # A folder of its own: the demo must neither find nor prune what an earlier run left there.
        folder = f"{url.rstrip('/')}/asynchooks-demo-{uuid.uuid4().hex[:8]}"
        yield Store(folder, {}, None, f"{url}, at its own speed", is_temporary=False)
        return
    with s3_server(bytes_per_s=bandwidth_mb_s * 1e6) as server:
        yield Store(
            url=server.make_bucket(_BUCKET),
            options=server.storage_options,
            bytes_per_s=bandwidth_mb_s * 1e6,
            description=f"S3 (rclone on this machine) behind a link of {bandwidth_mb_s:g} MB/s",
            is_temporary=True,
        )
