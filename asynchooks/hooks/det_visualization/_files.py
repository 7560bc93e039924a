"""Images at a path or a URL, read and written. Blocks; in worker threads only."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

from asynchooks.checkpoint import Content, open_store
from asynchooks.visualization import Image, decode_image

__all__ = ["joined", "local_file", "read_image"]


def read_image(address: str, options: Mapping[str, Any]) -> Image:
    """Return an image, RGB.

    Raises:
        ValueError: there is none in the file.
    """
    if "://" not in address:
        data = Path(address).read_bytes()
    else:
        folder, _, name = address.rpartition("/")
        store = open_store(folder, options, writer="thread")
        data = b"".join(bytes(piece) for piece in store.read(name))
    try:
        return decode_image(data)
    except ValueError as error:
        error.add_note(f"in {address}")
        raise


@contextmanager
def local_file(address: str, options: Mapping[str, Any]) -> Iterator[str]:
    """Give a local path to write to; what is there afterwards is then at the address."""
    if "://" not in address:
        yield address
        return
    folder, _, name = address.rpartition("/")
    with tempfile.TemporaryDirectory(prefix="asynchooks-") as temporary:
        path = Path(temporary, name)
        yield str(path)
        open_store(folder, options, writer="thread").put(name, Content.of(path.read_bytes()))


def joined(folder: str, *names: str) -> str:
    """Return the address of what lies below a folder; a name that is a URL or an absolute path stands for itself."""
    address = folder
    for name in names:
        if "://" in name or PurePath(name).is_absolute():
            address = name
        else:
            address = f"{address.rstrip('/')}/{name}" if "://" in address else str(PurePath(address, name))
    return address
