"""The demo's text: the source of the running Python's standard library, as bytes.

Decides which files are read, in which order, and how they are cut into windows. Every machine that can run
the demo has this text, so nothing is downloaded.
"""

from __future__ import annotations

import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import Dataset

from asynchooks.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Windows", "read_corpus", "split_corpus"]


class Windows(Dataset["Tensor"]):
    """Overlapping windows of a text: item ``i`` is an int64 tensor of ``length + 1`` bytes.

    Args:
        text: the bytes, a one-dimensional uint8 tensor.
        length: bytes that a model sees at once; one more is returned, the last target.
        stride: bytes between the starts of two neighbouring windows.
    """

    def __init__(self, text: Tensor, length: int, stride: int) -> None:
        if len(text) <= length:
            raise ConfigError(f"A window needs {length + 1} bytes of text, but there are only {len(text)}.")
        self._text = text
        self._length = length
        self._stride = stride

    def __len__(self) -> int:
        return (len(self._text) - self._length - 1) // self._stride + 1

    def __getitem__(self, index: int) -> Tensor:
        if not 0 <= index < len(self):
            raise IndexError(index)
        start = index * self._stride
        return self._text[start : start + self._length + 1].long()


def read_corpus(limit_bytes: int = 4_000_000, folder: Path | None = None) -> Tensor:
    """Return up to ``limit_bytes`` of the standard library's source, a one-dimensional uint8 tensor.

    Files come in the order of their names, so that one Python version always gives one text.

    Raises:
        ConfigError: this Python was installed without its sources.
    """
    folder = folder or Path(sysconfig.get_paths()["stdlib"])
    pieces: list[bytes] = []
    missing = limit_bytes
    for path in sorted(folder.glob("*.py")) + sorted(folder.glob("[a-z]*/*.py")):
        if missing <= 0:
            break
        if "site-packages" in path.parts:
            continue
        piece = path.read_bytes()[:missing]
        pieces.append(piece)
        missing -= len(piece)
    text = b"".join(pieces)
    if len(text) < min(limit_bytes, 100_000):
        raise ConfigError(
            f"The demo trains on the source of the standard library, but {folder} holds only {len(text)} bytes "
            f"of it. Install Python's library sources (on Debian: libpython3-stdlib)."
        )
    return torch.from_numpy(np.frombuffer(text, dtype=np.uint8).copy())


def split_corpus(text: Tensor, validation: float = 0.1) -> tuple[Tensor, Tensor]:
    """Split a text into a training and a validation part; the last tenth validates."""
    border = int(len(text) * (1 - validation))
    return text[:border], text[border:]
