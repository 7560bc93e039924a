"""Files in torch's format from before it was a zip archive: read whole, and loaded by torch from memory."""

from __future__ import annotations

import io
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np
import torch

from asynchooks.checkpoint._restore._loading import refused
from asynchooks.checkpoint._restore._reading import Region

if TYPE_CHECKING:
    import numpy.typing as npt

    from asynchooks.checkpoint._restore._reading import Reading

__all__ = ["load_legacy"]


def load_legacy(reading: Reading, *, map_location: Any, weights_only: bool) -> Any:
    """Load a file that is no archive. Needs memory for all of it beside the state.

    Raises:
        ForeignCheckpointError: torch cannot load it.
    """
    data = np.empty(reading.nbytes, np.uint8)
    with reading.filling([Region(0, reading.nbytes, data.data)], everything=True):
        pass
    file = cast("IO[bytes]", _ArrayFile(data))
    try:
        return torch.load(file, map_location=map_location, weights_only=weights_only)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # what is no checkpoint fails anywhere in torch; the caller is told the file
        raise refused(reading.where, error) from error


class _ArrayFile(io.RawIOBase):
    """A file over bytes in memory, read without copying all of them."""

    def __init__(self, data: npt.NDArray[np.uint8]) -> None:
        super().__init__()
        self._data = data
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._data.nbytes}[whence]
        self._position = max(0, origin + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = np.frombuffer(buffer, np.uint8)
        piece = self._data[self._position : self._position + view.nbytes]
        np.copyto(view[: piece.nbytes], piece)
        self._position += piece.nbytes
        return int(piece.nbytes)
