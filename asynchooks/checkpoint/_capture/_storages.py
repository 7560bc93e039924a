"""The memory under a state: its storages, each once, and the tensors over them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

__all__ = [
    "PLAIN_TENSORS",
    "Found",
    "inner_tensors",
    "is_strided",
    "is_wrapper",
    "parts_of",
    "storage_key",
    "survey",
    "unstrided_nbytes",
]


PLAIN_TENSORS = (torch.Tensor, torch.nn.Parameter)


@dataclass(slots=True)
class Found:
    """What a state holds: storages by what identifies them, in order, tensors over them, bytes of all else."""

    storages: dict[object, torch.UntypedStorage]
    tensors: dict[object, list[torch.Tensor]]
    other_nbytes: int = 0


def survey(state: Any) -> Found:
    """Look at everything that a state holds. Copies nothing; does not look into what only pickle can take apart."""
    found = Found({}, defaultdict(list))
    seen: set[object] = set()
    waiting = [state]
    while waiting:
        value = waiting.pop()
        if isinstance(value, torch.Tensor):
            for part in inner_tensors(value):
                if part.device.type == "meta":
                    continue
                if is_strided(part):
                    storage = part.untyped_storage()
                    key = storage_key(storage)
                    found.storages.setdefault(key, storage)
                    found.tensors[key].append(value)
                elif id(part) not in seen:
                    seen.add(id(part))
                    found.other_nbytes += unstrided_nbytes(part)
        elif isinstance(value, (dict, list, tuple, set, frozenset)):
            if id(value) not in seen:
                seen.add(id(value))
                waiting.extend(reversed([*(value.values() if isinstance(value, dict) else value)]))
        elif isinstance(value, np.ndarray) and id(value) not in seen:
            seen.add(id(value))
            found.other_nbytes += value.nbytes
    return found


def inner_tensors(value: torch.Tensor) -> list[torch.Tensor]:
    """The tensors that a wrapper holds, at any depth; of any other tensor, itself."""
    if not is_wrapper(value):
        return [value]
    return [inner for part in parts_of(value)[0].values() for inner in inner_tensors(part)]


def parts_of(value: torch.Tensor) -> tuple[dict[str, torch.Tensor], dict[str, Any], Any]:
    """What a wrapper names when it is taken apart: tensors, values that never change (a device mesh), its context."""
    names, context = cast("Any", value).__tensor_flatten__()
    named = {name: getattr(value, name) for name in names}
    tensors = {name: part for name, part in named.items() if isinstance(part, torch.Tensor)}
    return tensors, {name: part for name, part in named.items() if name not in tensors}, context


def is_wrapper(value: torch.Tensor) -> bool:
    """Whether a tensor is a subclass that has no memory of its own but holds tensors."""
    return type(value) not in PLAIN_TENSORS and bool(is_traceable_wrapper_subclass(value))


def is_strided(value: torch.Tensor) -> bool:
    """Whether the tensor is a view of one storage: neither sparse nor quantized nor nested."""
    return value.layout is torch.strided and not value.is_quantized and not value.is_nested


def storage_key(storage: torch.UntypedStorage) -> object:
    """What identifies a storage, as torch.save sees it: Python may hold several objects for one."""
    address = storage.data_ptr()
    return (storage.device, address, storage.nbytes()) if address else storage._cdata  # noqa: SLF001


def unstrided_nbytes(value: torch.Tensor) -> int:
    """Bytes of a sparse, quantized or nested tensor."""
    if value.layout is torch.sparse_coo:
        return value._indices().nbytes + value._values().nbytes  # noqa: SLF001 - the public ones refuse uncoalesced tensors
    return value.numel() * value.element_size()
