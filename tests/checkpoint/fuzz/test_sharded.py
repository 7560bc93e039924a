"""Damaged and hostile sharded checkpoints: an error of the package or what was saved, and nothing else."""

import io
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save

from asynchooks.checkpoint import restore
from asynchooks.checkpoint._sharded._metadata import decode_metadata, encode_metadata
from asynchooks.errors import AsyncHooksError, CheckpointError, ForeignCheckpointError, UnsafePathError

from .conftest import FUZZ, is_saved, state

FUZZED = ["cut", "flip", "insert"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a checkpoint that DCP saved, without a manifest."""
    folder = tmp_path_factory.mktemp("plain") / "iter_1"
    with pytest.warns(UserWarning, match="single process"):
        dcp_save(state(1), checkpoint_id=str(folder))
    return folder


@pytest.fixture
def metadata(plain: Path) -> Metadata:
    return decode_metadata((plain / ".metadata").read_bytes(), "here")


def outcome(folder: Path, files: dict[str, bytes]) -> Any:
    """What the readers say of a folder with these files; all of them name a file or the checkpoint."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    into = {key: dict(value) for key, value in state(0).items()}
    answers: list[Any] = []
    for existing in (into, None):
        try:
            answers.append(restore(folder, into=existing))
        except AsyncHooksError as error:
            answers.append(error)
    assert all(str(folder) in str(answer) for answer in answers if isinstance(answer, AsyncHooksError))
    return answers[-1]


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_undamaged_folder_is_read(plain: Path, tmp_path: Path) -> None:
    assert is_saved(outcome(tmp_path / "iter_1", files_of(plain)))


@FUZZ
@given(kind=st.sampled_from(FUZZED), in_metadata=st.booleans(), data=st.data())
def test_no_damage_ends_in_anything_but_an_error_or_the_state(
    plain: Path, tmp_path: Path, kind: str, in_metadata: bool, data: st.DataObject
) -> None:
    files = files_of(plain)
    name = next(each for each in files if (each == ".metadata") == in_metadata)
    content = bytearray(files[name])
    place = data.draw(st.integers(0, len(content) - 1))
    if kind == "cut":
        del content[place:]
    elif kind == "flip":
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    else:
        content[place:place] = b"\xff" * data.draw(st.integers(1, 9))

    answer = outcome(tmp_path / "iter_1", {**files, name: bytes(content)})

    assert isinstance(answer, (dict, CheckpointError))


class Code:
    def __reduce__(self) -> Any:
        return os.system, ("touch pwned",)


def deep(opcode: bytes) -> bytes:
    return b"\x80\x04" + b")" + opcode * 100_000 + b"."


HOSTILE = {
    "code": pickle.dumps(Code()),
    "code inside": pickle.dumps({"a": [Code()]}),
    "eval": b"\x80\x04cbuiltins\neval\n\x8c\x011\x85R.",
    "a torch function": b"\x80\x04ctorch\nload\n\x8c\x011\x85R.",
    "a dotted name": b"\x80\x04\x8c\x05torch\x8c\x0bos.system.x\x93.",
    "a huge memo": b"\x80\x04Nr\xff\xff\xff\x7f.",
    "a huge string": b"\x80\x04X\xff\xff\xff\x7f.",
    "a huge frame": b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"N.",
    "a huge bytearray": b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".",
    "a huge number": b"\x80\x04\x8b" + struct.pack("<i", 2**31 - 1) + b".",
    "a persistent id": b"\x80\x04NQ.",
    "deep tuples": deep(b"\x85"),
    "a deep key": b"\x80\x04})" + b"\x85" * 100_000 + b"Ns.",
    "a class that is changed": (
        b"\x80\x04ctorch.distributed.checkpoint.metadata\nMetadata\nN}\x8c\x06__eq__Ns\x86b."
    ),
    "another state": pickle.dumps({"a": 1}),
    "nothing": b"",
    "no stop": b"\x80\x04N",
    "sizes of sizes": b"\x80\x04ctorch\nSize\n(" + b"K\x01" * 100 + b"t\x85R.",
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.usefixtures("_bounded")
def test_no_pickle_does_harm(plain: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    answer = outcome(tmp_path / "iter_1", {**files_of(plain), ".metadata": HOSTILE[kind]})

    assert isinstance(answer, CheckpointError)
    assert not (tmp_path / "pwned").exists()


def test_code_is_named(plain: Path, tmp_path: Path) -> None:
    answer = outcome(tmp_path / "iter_1", {**files_of(plain), ".metadata": HOSTILE["code"]})

    assert isinstance(answer, ForeignCheckpointError)
    assert "posix.system" in str(answer)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/b", "..", "", ".hidden", "x\0"])
def test_no_file_outside_of_the_folder_is_read(
    plain: Path, tmp_path: Path, metadata: Metadata, name: str
) -> None:
    for place in metadata.storage_data.values():
        place.relative_path = name

    answer = outcome(tmp_path / "iter_1", {**files_of(plain), ".metadata": encode_metadata(metadata)})

    assert isinstance(answer, UnsafePathError)


@pytest.mark.parametrize("change", [(0, 2**60), (2**60, 10), (0, 1), (-5, 10), (7, 100), (0, 10**400)])
@pytest.mark.usefixtures("_bounded")
def test_no_place_of_an_item_is_believed(
    plain: Path, tmp_path: Path, metadata: Metadata, change: tuple[int, int]
) -> None:
    place = metadata.storage_data[MetadataIndex("state_dict.w", [0])]
    place.offset, place.length = change

    answer = outcome(tmp_path / "iter_1", {**files_of(plain), ".metadata": encode_metadata(metadata)})

    assert isinstance(answer, CheckpointError)


@pytest.mark.parametrize("size", [2**50, 301, 299])
@pytest.mark.usefixtures("_bounded")
def test_no_size_of_a_tensor_is_believed(plain: Path, tmp_path: Path, metadata: Metadata, size: int) -> None:
    entry: Any = metadata.state_dict_metadata["state_dict.w"]
    for sizes_alike in (True, False):
        entry.size = torch.Size([size])
        entry.chunks[0].sizes = torch.Size([size if sizes_alike else 300])

        answer = outcome(tmp_path / "iter_1", {**files_of(plain), ".metadata": encode_metadata(metadata)})

        assert isinstance(answer, CheckpointError)


@pytest.mark.parametrize(
    "path", [("state_dict", 2**40), ("state_dict",), (), ("a",) * 5000, ("meta", "iter")]
)
@pytest.mark.usefixtures("_bounded")
def test_no_path_of_an_entry_leads_astray(
    plain: Path, tmp_path: Path, metadata: Metadata, path: tuple[Any, ...]
) -> None:
    metadata.planner_data["state_dict.w"] = path

    with pytest.raises(CheckpointError):
        folder = tmp_path / "iter_1"
        outcome(folder, {**files_of(plain), ".metadata": encode_metadata(metadata)})
        restore(folder)


def test_an_object_that_runs_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.warns(UserWarning, match="single process"):
        dcp_save({"o": io.BytesIO(b"x")}, checkpoint_id=str(tmp_path / "iter_1"))

    with pytest.raises(CheckpointError):
        restore(tmp_path / "iter_1")


def test_other_formats_and_transforms_are_named(plain: Path, tmp_path: Path, metadata: Metadata) -> None:
    for place in metadata.storage_data.values():
        place.transform_descriptors = ["stream.zstd"]
    answer = outcome(tmp_path / "iter_1", {**files_of(plain), ".metadata": encode_metadata(metadata)})

    assert isinstance(answer, ForeignCheckpointError)
    assert "stream.zstd" in str(answer)
