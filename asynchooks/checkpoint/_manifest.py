"""What is inside a checkpoint: the small JSON file beside it, its names and its meaning.

Decides the format of the manifest, the names that belong to a checkpoint and which names are safe. Pure: it
reads no file and no clock. Anything that a later version adds is ignored, anything that it changes raises the
version.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from asynchooks.checkpoint._files import MAX_FILES, METADATA, Chunk, File, file_from_document
from asynchooks.errors import CorruptCheckpointError, ForeignCheckpointError, UnsafePathError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "MANIFEST_SUFFIX",
    "MAX_MANIFEST_BYTES",
    "NEXT_SUFFIX",
    "POINTERS",
    "TEMPORARY",
    "CheckpointInfo",
    "Chunk",
    "File",
    "Layout",
    "Manifest",
    "SavedAs",
    "check_name",
    "manifest_name",
    "next_manifest_name",
    "pointer_name",
    "temporary_name",
]

FORMAT = "asynchooks.checkpoint"
VERSION = 2
"""Version 1 is a single file, and is written as ever; version 2 is sharded: many files in a folder."""

MANIFEST_SUFFIX = ".manifest.json"
NEXT_SUFFIX = ".manifest.next.json"
MAX_NAME_BYTES = 200
MAX_MANIFEST_BYTES = 16 * 2**20
"""The manifest of a file of 4 TiB, or of 32,768 files of any length; nothing that is longer is read."""

_MAX_TEXT = 4096
_MAX_INT = 2**63 - 1
_MAX_CREATED_NS = 253_402_300_799 * 10**9  # the year 9999, where Python's calendar ends

SavedAs = Literal["last", "best"]
Layout = Literal["single", "sharded"]
"""One file that `torch.save` wrote, or a folder in the format of torch.distributed.checkpoint."""

POINTERS: Mapping[SavedAs, str] = {"last": "last_checkpoint", "best": "best_checkpoint"}

_LAYOUTS: Mapping[Layout, str] = {"single": "torch.save", "sharded": "dcp"}

TEMPORARY = re.compile(r"\.asynchooks-[0-9a-f]{32}\.tmp")
"""Names of files that are being written; nothing else has such a name."""


@dataclass(frozen=True, slots=True)
class CheckpointInfo:
    """A committed checkpoint, as lists, retention and the resume see it.

    Attributes:
        name: of its file, or of its folder if it is sharded, in the run's folder.
        url: where it is; an absolute path on a local disk. Without credentials.
        step: training steps done at the capture.
        epoch: epochs done at the capture; None where the loop counts none.
        metrics: what was measured, finite or not.
        nbytes: length of the file, or of all its files.
        created_ns: nanoseconds since 1970 (UTC); grows from save to save of one checkpointer.
        run_id: the run that saved it; a resumed run goes on under the same id.
        save_id: never used twice, also when a name is.
        group: retention compares checkpoints of one group only.
        saved_as: the pointer that was set to it, if any.
        layout: "single" file, or "sharded" folder.
        nfiles: how many files it consists of.
        world_size: how many ranks wrote it.
    """

    name: str
    url: str
    step: int
    epoch: int | None
    metrics: Mapping[str, float]
    nbytes: int
    created_ns: int
    run_id: str
    save_id: str
    group: str
    saved_as: SavedAs | None = None
    layout: Layout = "single"
    nfiles: int = 1
    world_size: int = 1

    @property
    def created(self) -> datetime:
        """When it was saved, in UTC."""
        return datetime.fromtimestamp(self.created_ns / 1e9, UTC)


@dataclass(frozen=True, slots=True)
class Manifest:
    """The whole content of a manifest file: of a single file's chunks, or of a folder's files."""

    name: str
    step: int
    epoch: int | None
    metrics: Mapping[str, float]
    chunks: tuple[Chunk, ...]
    tensors: str
    created_ns: int
    run_id: str
    save_id: str
    group: str
    saved_as: SavedAs | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    files: tuple[File, ...] = ()
    world_size: int = 1

    @property
    def layout(self) -> Layout:
        """A folder has files; `.metadata` is always one of them."""
        return "sharded" if self.files else "single"

    @property
    def nbytes(self) -> int:
        """Length of the file that it describes, or of all its files."""
        return sum(part.nbytes for part in self.files or self.chunks)

    @property
    def metadata(self) -> File:
        """The file of a sharded checkpoint that says which of the others count."""
        return next(file for file in self.files if file.name == METADATA)

    def info(self, url: str) -> CheckpointInfo:
        """The public part, of a checkpoint at `url`."""
        return CheckpointInfo(
            name=self.name,
            url=url,
            step=self.step,
            epoch=self.epoch,
            metrics=dict(self.metrics),
            nbytes=self.nbytes,
            created_ns=self.created_ns,
            run_id=self.run_id,
            save_id=self.save_id,
            group=self.group,
            saved_as=self.saved_as,
            layout=self.layout,
            nfiles=len(self.files) or 1,
            world_size=self.world_size,
        )

    def to_json(self) -> bytes:
        """The manifest file's bytes: standard JSON, where a metric that is not finite is a string.

        Raises:
            ValueError: it would be longer than any reader takes: too many files.
        """
        document = {
            "format": FORMAT,
            "version": 2 if self.files else 1,
            "layout": _LAYOUTS[self.layout],
            "name": self.name,
            "step": self.step,
            "epoch": self.epoch,
            "metrics": {key: _from_float(value) for key, value in self.metrics.items()},
            **(self._sharded_files() if self.files else self._single_file()),
            "tensors": self.tensors,
            "run_id": self.run_id,
            "save_id": self.save_id,
            "group": self.group,
            "saved_as": self.saved_as,
            "created": datetime.fromtimestamp(self.created_ns / 1e9, UTC).isoformat(timespec="milliseconds"),
            "created_ns": self.created_ns,
            "versions": dict(self.versions),
        }
        text = json.dumps(document, indent=1, allow_nan=False).encode()
        if self.files and len(text) > MAX_MANIFEST_BYTES:
            raise ValueError(
                f"{self.name}: the manifest of {len(self.files)} files takes {len(text)} bytes; no reader takes more "
                f"than {MAX_MANIFEST_BYTES}. At most {MAX_FILES} files, with chunks as `chunk_bytes_for` says, fit."
            )
        return text

    def _single_file(self) -> dict[str, Any]:
        return {
            "files": [
                {
                    "name": self.name,
                    "size": self.nbytes,
                    "checksum": "xxh3_128",
                    "chunks": [[chunk.nbytes, chunk.digest] for chunk in self.chunks],
                }
            ]
        }

    def _sharded_files(self) -> dict[str, Any]:
        return {
            "world_size": self.world_size,
            "checksum": "xxh3_128",
            "files": [file.document() for file in self.files],
        }

    @classmethod
    def from_json(cls, text: bytes, *, where: str) -> Manifest:
        """Read a manifest file's bytes.

        Raises:
            ForeignCheckpointError: it is another program's, or a newer version's.
            CorruptCheckpointError: it is damaged.
        """
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise CorruptCheckpointError(
                f"{where}: the manifest is no JSON ({error}); it is damaged."
            ) from error
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise ForeignCheckpointError(f"{where}: not a manifest of this kind: expected format {FORMAT!r}.")
        if not isinstance(document.get("version"), int) or not 0 < document["version"] <= VERSION:
            raise ForeignCheckpointError(
                f"{where}: manifest version {document.get('version')!r}; this release reads up to {VERSION}. "
                "Upgrade asynchooks to load it."
            )
        try:
            return cls._from_document(document)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
            raise CorruptCheckpointError(f"{where}: the manifest lacks or garbles {error}.") from error

    @classmethod
    def _from_document(cls, document: dict[str, Any]) -> Manifest:
        saved_as = document["saved_as"]
        if saved_as not in (None, *POINTERS):
            raise ValueError(f"saved_as={saved_as!r}")
        manifest = cls(
            name=check_name(document["name"]),
            step=_integer(document["step"], -_MAX_INT),
            epoch=None if document["epoch"] is None else _integer(document["epoch"], -_MAX_INT),
            metrics={str(key): float(value) for key, value in document["metrics"].items()},
            chunks=() if document["version"] > 1 else _chunks(document),
            tensors=_text(document["tensors"]),
            created_ns=_integer(document["created_ns"], 0, _MAX_CREATED_NS),
            run_id=_text(document["run_id"]),
            save_id=_text(document["save_id"]),
            group=_text(document["group"]),
            saved_as=saved_as,
            versions={_text(key): _text(value) for key, value in document["versions"].items()},
            files=_files(document) if document["version"] > 1 else (),
            world_size=_integer(document["world_size"], 1) if document["version"] > 1 else 1,
        )
        if manifest.nbytes > _MAX_INT:
            raise ValueError("files")
        return manifest


def check_name(name: str) -> str:
    """Return the name if it is one safe path component that no other file of the folder uses.

    Raises: UnsafePathError: it would leave the folder, hide, or collide with a manifest, pointer or temporary
        file.
    """
    if not isinstance(name, str):
        raise TypeError(f"a checkpoint's name is a string such as 'epoch_5.pth', not {name!r}")
    if not name or name in (".", "..") or any(sign in "/\\\x7f" or sign < " " for sign in name):
        raise UnsafePathError(
            f"{name!r} is no name inside the checkpoint folder; use one such as 'epoch_5.pth'."
        )
    if name.startswith(".") or name.endswith((MANIFEST_SUFFIX, NEXT_SUFFIX)) or name in POINTERS.values():
        raise UnsafePathError(
            f"{name!r} is reserved for a manifest, pointer or temporary file; use another name."
        )
    if len(name.encode(errors="surrogateescape")) > MAX_NAME_BYTES:
        raise UnsafePathError(
            f"{name!r} is longer than {MAX_NAME_BYTES} bytes; its manifest would not fit a file name."
        )
    return name


def manifest_name(name: str) -> str:
    """The manifest of the checkpoint `name`."""
    return name + MANIFEST_SUFFIX


def next_manifest_name(name: str) -> str:
    """The manifest of the data that is about to replace the committed checkpoint `name`."""
    return name + NEXT_SUFFIX


def pointer_name(pointer: SavedAs) -> str:
    """The file that names the last or the best checkpoint."""
    return POINTERS[pointer]


def temporary_name(unique: str) -> str:
    """The name under which data is written before it is visible; `unique` is 32 hexadecimal digits."""
    return f".asynchooks-{unique}.tmp"


def _chunks(document: dict[str, Any]) -> tuple[Chunk, ...]:
    (file,) = document["files"]
    chunks = tuple(Chunk(_integer(nbytes), _text(digest)) for nbytes, digest in file["chunks"])
    if sum(chunk.nbytes for chunk in chunks) != file["size"] or file["name"] != document["name"]:
        raise ValueError("files")
    return chunks


def _files(document: dict[str, Any]) -> tuple[File, ...]:
    files = tuple(file_from_document(file) for file in document["files"])
    names = {file.name for file in files}
    if document["layout"] != _LAYOUTS["sharded"] or METADATA not in names or len(names) < len(files):
        raise ValueError("files")
    return files


def _integer(value: object, least: int = 0, most: int = _MAX_INT) -> int:
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"the number {str(value)[:30]!r}")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > _MAX_TEXT:
        raise ValueError(f"the text {str(value)[:30]!r}")
    return value


def _from_float(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)
