"""A copy of an object that only pickle can take apart; the tensors in it are copied by whoever copies the rest."""

from __future__ import annotations

import io
import pickle
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["copy_by_pickle"]


def copy_by_pickle(value: Any, copy: Callable[[Any], Any]) -> Any:
    """Return a copy made by pickle, and by `copy` for tensors and storages. The object's own code may raise."""
    held: list[Any] = []
    buffer = io.BytesIO()
    _Taking(buffer, held, copy).dump(value)
    buffer.seek(0)
    return _Giving(buffer, held).load()


class _Taking(pickle.Pickler):
    """Pickles an object but for the tensors and storages in it, which are copied."""

    def __init__(self, file: io.BytesIO, held: list[Any], copy: Callable[[Any], Any]) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self._held = held
        self._copy = copy

    def persistent_id(self, part: Any) -> int | None:
        if not isinstance(part, (torch.Tensor, torch.UntypedStorage, torch.TypedStorage)):
            return None
        self._held.append(self._copy(part))
        return len(self._held) - 1


class _Giving(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, held: list[Any]) -> None:
        super().__init__(file)
        self._held = held

    def persistent_load(self, index: int) -> Any:
        return self._held[index]
