"""What a sharded checkpoint says of itself: the ``.metadata`` of torch.distributed.checkpoint (DCP), a pickle.

Decides which pickles are such metadata, by an unpickler that knows a few operations and DCP's own classes alone, and
whether what it says can be true of the files. `.metadata` runs no code, and nothing is allocated by what it claims.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from dataclasses import replace
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch.distributed.checkpoint.filesystem import _StorageInfo, _StoragePrefix
from torch.distributed.checkpoint.metadata import (
    _MEM_FORMAT_ENCODING,
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)

from asynchooks.errors import CorruptCheckpointError, ForeignCheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["MAX_METADATA_BYTES", "decode_metadata", "encode_metadata", "with_places"]

MAX_METADATA_BYTES = 2**30
"""DCP writes about 150 bytes for each shard of each tensor; nothing that is longer is read."""

_VERSION = "1.0.0"  # of DCP's format; torch 2.6 has no name for it
_MAX_DIMENSIONS = 64

_FIELDS: dict[type, frozenset[str]] = {
    Metadata: frozenset({"state_dict_metadata", "planner_data", "storage_data", "storage_meta", "version"}),
    TensorStorageMetadata: frozenset({"properties", "size", "chunks"}),
    BytesStorageMetadata: frozenset(),
    ChunkStorageMetadata: frozenset({"offsets", "sizes"}),
    MetadataIndex: frozenset({"fqn", "offset", "index"}),
    StorageMeta: frozenset({"checkpoint_id", "save_id", "load_id", "modules"}),
    TensorProperties: frozenset(),
    _StorageInfo: frozenset({"relative_path", "offset", "length", "transform_descriptors"}),
    _StoragePrefix: frozenset({"prefix"}),
}
_CLASSES = {(kind.__module__, kind.__qualname__): kind for kind in _FIELDS}


def with_places(metadata: Metadata, places: Mapping[MetadataIndex, _StorageInfo]) -> Metadata:
    """The metadata of a planned checkpoint, and where each item lies. Says nothing of the folder: it may be moved."""
    whole = replace(metadata, storage_data=dict(places), storage_meta=StorageMeta())
    if hasattr(whole, "version"):  # not in torch 2.6
        whole.version = _VERSION
    return whole


def encode_metadata(metadata: Metadata) -> bytes:
    """The file's bytes, as DCP writes them."""
    return pickle.dumps(metadata)


def decode_metadata(data: bytes, where: str) -> Metadata:
    """Read the file's bytes. The types of all that it holds are as DCP writes them; numbers are not yet believed.

    Raises:
        ForeignCheckpointError: it holds something else than DCP's metadata; names it.
        CorruptCheckpointError: it is damaged.
    """
    try:
        metadata = _Unpickler(data, where).load()
    except ForeignCheckpointError:
        raise
    except Exception as error:  # a damaged pickle fails anywhere; the caller is told the file
        raise _damaged(where, f"{type(error).__name__}: {str(error)[:200]}") from error
    if type(metadata) is not Metadata:
        raise ForeignCheckpointError(
            f"{where} holds a {type(metadata).__name__}, not the metadata of torch.distributed.checkpoint."
        )
    try:
        _check(metadata)
    except _WrongTypeError as error:
        raise _damaged(where, str(error)) from error
    return metadata


class _WrongTypeError(TypeError):
    """Something in the metadata has a type that DCP does not give it; never leaves the module."""


def _check(metadata: Metadata) -> None:
    """The types of the parts, and that each part is there."""
    saved, places, paths = _parts(metadata)
    for fqn, entry in saved.items():
        _expect(type(fqn) is str, "the name of an entry")
        if type(entry) is TensorStorageMetadata:
            _check_tensor(entry, fqn)
        else:
            _expect(type(entry) is BytesStorageMetadata, f"what {fqn[:80]!r} is")
    for index, info in places.items():
        _expect(type(index) is MetadataIndex and type(info) is _StorageInfo, "where an item lies")
        named = vars(info)
        _expect(type(named.get("relative_path")) is str, "the file of an item")
        _expect(_is_size(named.get("offset")) and _is_size(named.get("length")), "the place of an item")
        transforms = named.get("transform_descriptors")
        _expect(transforms is None or _is_texts(transforms), "the transforms of an item")
    for fqn, path in paths.items():
        _expect(type(fqn) is str and type(path) is tuple and bool(path), "the path of an entry")
        _expect(all(type(key) is str or _is_size(key) for key in path), "the path of an entry")


def _parts(metadata: Metadata) -> tuple[dict[Any, Any], dict[Any, Any], dict[Any, Any]]:
    fields = vars(metadata)
    saved, places = fields.get("state_dict_metadata"), fields.get("storage_data")
    paths = fields.get("planner_data") or {}
    _expect(type(saved) is dict and type(places) is dict and type(paths) is dict, "its three tables")
    return saved, places, paths  # type: ignore[return-value] # checked in the line above


def _check_tensor(entry: TensorStorageMetadata, fqn: str) -> None:
    fields = vars(entry)
    shown = f"the tensor {fqn[:80]!r}"
    properties, size, chunks = (fields.get(name) for name in ("properties", "size", "chunks"))
    _expect(type(properties) is TensorProperties, shown)
    _expect(type(vars(properties).get("dtype")) is torch.dtype, shown)
    _expect(type(size) is torch.Size and type(chunks) is list, shown)
    for chunk in chunks:  # type: ignore[union-attr] # a list, as was just checked
        _expect(type(chunk) is ChunkStorageMetadata, shown)
        parts = vars(chunk)
        offsets, sizes = parts.get("offsets"), parts.get("sizes")
        _expect(type(offsets) is torch.Size and type(sizes) is torch.Size, shown)
        _expect(len(offsets) == len(sizes) == len(size), shown)  # type: ignore[arg-type] # as was just checked
        _expect(
            all(first + n <= whole for first, n, whole in zip(offsets, sizes, size, strict=True)),  # type: ignore[arg-type] # as above
            f"{shown}: a shard that reaches beyond it",
        )


def _expect(is_so: bool, what: str) -> None:  # noqa: FBT001 - an assertion
    if not is_so:
        raise _WrongTypeError(f"it garbles {what}")


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_texts(value: object) -> bool:
    return isinstance(value, (list, tuple)) and all(type(text) is str for text in value)


def _damaged(where: str, reason: str) -> CorruptCheckpointError:
    return CorruptCheckpointError(f"{where} is damaged, or no metadata of a sharded checkpoint: {reason}.")


def _size(values: object) -> torch.Size:
    if type(values) is not tuple or len(values) > _MAX_DIMENSIONS or not all(map(_is_size, values)):
        raise _WrongTypeError("it garbles a size")
    return torch.Size(values)


def _layout(name: object) -> torch.layout:
    layout = getattr(torch, str(name).removeprefix("torch."), None)
    if not isinstance(layout, torch.layout):
        raise _WrongTypeError("it garbles a layout")
    return layout


def _memory_format(value: object) -> _MEM_FORMAT_ENCODING:
    return _MEM_FORMAT_ENCODING(value)


def _path(flavour: type[PurePosixPath | PureWindowsPath]) -> Callable[..., str]:
    def join(*parts: object) -> str:
        if not _is_texts(parts):
            raise _WrongTypeError("it garbles a path")
        return str(flavour(*map(str, parts)))

    return join


def _ordered() -> OrderedDict[Any, Any]:
    return OrderedDict()


_FUNCTIONS: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch", "Size"): _size,
    ("torch.serialization", "_get_layout"): _layout,
    (_MEM_FORMAT_ENCODING.__module__, _MEM_FORMAT_ENCODING.__qualname__): _memory_format,
    ("collections", "OrderedDict"): _ordered,
    **{
        (module, name): _path(PureWindowsPath if "Windows" in name else PurePosixPath)
        for module in ("pathlib", "pathlib._local")
        for name in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
    },
}

_OPERATIONS = (
    "PROTO",
    "FRAME",
    "STOP",
    "MARK",
    "POP",
    "POP_MARK",
    "MEMOIZE",
    "BINPUT",
    "LONG_BINPUT",
    "BINGET",
    "LONG_BINGET",
    "NONE",
    "NEWTRUE",
    "NEWFALSE",
    "BININT",
    "BININT1",
    "BININT2",
    "LONG1",
    "BINFLOAT",
    "SHORT_BINUNICODE",
    "BINUNICODE",
    "EMPTY_TUPLE",
    "TUPLE",
    "TUPLE1",
    "TUPLE2",
    "TUPLE3",
    "EMPTY_LIST",
    "APPEND",
    "APPENDS",
    "EMPTY_DICT",
    "SETITEM",
    "SETITEMS",
    "GLOBAL",
    "STACK_GLOBAL",
    "REDUCE",
    "NEWOBJ",
    "BUILD",
)


class _Unpickler(pickle._Unpickler):  # noqa: SLF001 - the C one allocates by the numbers that it reads
    """Knows the operations that DCP's metadata needs; any other ends it."""

    stack: list[Any]
    dispatch: ClassVar[dict[int, Any]] = {
        getattr(pickle, name)[0]: pickle._Unpickler.dispatch[getattr(pickle, name)[0]]  # noqa: SLF001
        for name in _OPERATIONS
    }

    def __init__(self, data: bytes, where: str) -> None:
        super().__init__(io.BytesIO(data))
        self._where = where

    def find_class(self, module: str, name: str) -> Any:
        known = _CLASSES.get((module, name)) or _FUNCTIONS.get((module, name))
        if known is not None:
            return known
        if module == "torch" and isinstance(dtype := vars(torch).get(name), torch.dtype):
            return dtype
        raise ForeignCheckpointError(
            f"{self._where} names {f'{module}.{name}'[:200]!r}, which no metadata of torch.distributed.checkpoint "
            "holds: loading it could run code. Nothing was loaded."
        )

    def load_reduce(self) -> None:
        arguments = self.stack.pop()
        function = self.stack[-1]
        if type(arguments) is not tuple or not any(function is known for known in _FUNCTIONS.values()):
            raise _WrongTypeError("it calls what is no function")
        self.stack[-1] = function(*arguments)

    def load_newobj(self) -> None:
        arguments = self.stack.pop()
        kind: Any = self.stack.pop()
        if arguments != () or not isinstance(kind, type) or kind not in _FIELDS:
            raise _WrongTypeError("it makes what is no part of a metadata")
        self.stack.append(object.__new__(kind))

    def load_build(self) -> None:
        state = self.stack.pop()
        made = self.stack[-1]
        fields = _FIELDS.get(type(made))
        if fields is None:
            raise _WrongTypeError("it fills what is no part of a metadata")
        if type(made) is TensorProperties:
            made.__setstate__(state)  # type: ignore[no-untyped-call]
            return
        if type(state) is not dict or not state.keys() <= fields:
            raise _WrongTypeError(f"it gives a {type(made).__name__} what it does not have")
        if type(made) is MetadataIndex and not (
            type(state.get("fqn")) is str and isinstance(state.get("offset"), (torch.Size, type(None)))
        ):
            raise _WrongTypeError("it garbles the name of an item")
        vars(made).update(state)

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def load_setitems(self) -> None:
        items = self.pop_mark()  # type: ignore[attr-defined]
        self._set(items)

    def _set(self, items: list[Any]) -> None:
        target = self.stack[-1]
        keys = items[::2]
        if not isinstance(target, dict) or len(items) % 2:
            raise _WrongTypeError("it fills what is no dict")
        if not all(type(key) in (str, int, MetadataIndex) for key in keys):
            raise _WrongTypeError("it garbles the keys of a dict")  # the hash of a deep tuple has no end
        target.update(zip(keys, items[1::2], strict=True))

    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.NEWOBJ[0]] = load_newobj
    dispatch[pickle.BUILD[0]] = load_build
    dispatch[pickle.SETITEM[0]] = load_setitem
    dispatch[pickle.SETITEMS[0]] = load_setitems
