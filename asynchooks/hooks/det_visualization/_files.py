"""Images at a path or a URL, read and written. Blocks; in worker threads only."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

from asynchooks.checkpoint import Content, Store, open_store
from asynchooks.visualization import Image, decode_image

__all__ = ["Files", "joined"]


class Files:
    """Images at paths and URLs. In one worker thread at a time.

    Args:
        options: fsspec's options for stores.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = options
        self._newest: tuple[str, Store] | None = None

    def read(self, address: str) -> Image:
        """Return an image, RGB.

        Raises:
            ValueError: there is none in the file.
        """
        if "://" not in address:
            data = Path(address).read_bytes()
        else:
            folder, _, name = address.rpartition("/")
            data = b"".join(bytes(piece) for piece in self._store(folder).read(name))
        try:
            return decode_image(data)
        except ValueError as error:
            error.add_note(f"in {address}")
            raise

    @contextmanager
    def writing(self, address: str) -> Iterator[str]:
        """Give a local path to write to; what is there afterwards is then at the address."""
        if "://" not in address:
            yield address
            return
        folder, _, name = address.rpartition("/")
        with tempfile.TemporaryDirectory(prefix="asynchooks-") as temporary:
            path = Path(temporary, name)
            yield str(path)
            self._store(folder).put(name, Content.of(path.read_bytes()))

    def _store(self, folder: str) -> Store:
        if self._newest is None or self._newest[0] != folder:  # the next image is usually there too
            self._newest = (folder, open_store(folder, self._options, writer="thread"))
        return self._newest[1]


def joined(folder: str, *names: str) -> str:
    """Return the address of what lies below a folder; a name that is a URL or an absolute path stands for itself."""
    address = folder
    for name in names:
        if "://" in name or PurePath(name).is_absolute():
            address = name
        else:
            address = f"{address.rstrip('/')}/{name}" if "://" in address else str(PurePath(address, name))
    return address
