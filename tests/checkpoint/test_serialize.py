"""The file is what plain torch.load reads, and its bytes are the captured buffers themselves."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from asynchooks.checkpoint import Content, capture
from asynchooks.checkpoint._content import checksum, chunk_plan, digest
from asynchooks.checkpoint._serialize import HEAD_BYTES, save_id_in, serialize

SAVE_ID = "0123456789abcdef" * 2


def _write(path: Path, state: Any) -> Path:
    path.write_bytes(b"".join(serialize(capture(state), SAVE_ID).content.buffers))
    return path


@pytest.mark.parametrize("mmap", [False, True])
def test_plain_torch_load_reads_it(tmp_path: Path, *, mmap: bool) -> None:
    base = torch.randn(6, 4)
    state = {
        "model": torch.nn.Sequential(torch.nn.Linear(70, 30), torch.nn.BatchNorm1d(30)).state_dict(),
        "views": [base, base[2:], base.t()],
        "odd": [
            torch.tensor(1.5),
            torch.empty(0),
            torch.ones(3, dtype=torch.bfloat16),
            torch.eye(3).to_sparse(),
        ],
        "python": {"a": 1, "b": [1.5, None, "x", b"y", True], "c": (1, 2), "d": {3}},
    }

    loaded = torch.load(_write(tmp_path / "a.pth", state), weights_only=True, mmap=mmap)

    assert loaded["python"] == state["python"]
    assert torch.equal(loaded["views"][2], base.t())
    assert loaded["views"][0].untyped_storage().data_ptr() == loaded["views"][1].untyped_storage().data_ptr()
    assert torch.equal(loaded["model"]["0.weight"], state["model"]["0.weight"])  # type: ignore[index]
    assert loaded["odd"][2].dtype == torch.bfloat16


def test_the_records_are_those_of_torch_save(tmp_path: Path) -> None:
    state = {"a": torch.arange(5.0), "b": [torch.ones(2), "x"]}
    torch.save(state, tmp_path / "theirs.pth")

    ours = zipfile.ZipFile(_write(tmp_path / "ours.pth", state))
    theirs = zipfile.ZipFile(tmp_path / "theirs.pth")

    def names(archive: zipfile.ZipFile) -> set[str]:
        return {name.partition("/")[2] for name in archive.namelist()}

    assert names(ours) - {".data/asynchooks_save_id"} == names(theirs) - {".data/serialization_id"}
    assert ours.read("archive/data.pkl") == theirs.read("theirs/data.pkl")
    assert all(info.header_offset + 64 > 0 for info in ours.infolist())


def test_no_tensor_is_copied() -> None:
    snapshot = capture({"w": torch.zeros(1000)})

    content = serialize(snapshot, SAVE_ID).content
    address = snapshot.state["w"].data_ptr()

    assert any(np.frombuffer(buffer, np.uint8).ctypes.data == address for buffer in content.buffers)


def test_the_file_says_which_save_wrote_it(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.pth", {"w": torch.ones(1)})
    torch.save({"w": torch.ones(1)}, tmp_path / "foreign.pth")

    assert save_id_in(path.read_bytes()[:HEAD_BYTES]) == SAVE_ID
    assert save_id_in((tmp_path / "foreign.pth").read_bytes()[:HEAD_BYTES]) is None
    assert save_id_in(b"") is None


def test_equal_tensors_have_equal_checksums_whatever_else_is_saved() -> None:
    def sums(meta: str) -> list[str]:
        laid = serialize(capture({"meta": meta, "w": torch.arange(10.0), "v": torch.ones(3)}), SAVE_ID)
        chunks = checksum(laid.content, chunk_plan(laid.content.nbytes, laid.start, laid.end))
        return [chunk.digest for chunk in chunks]

    short, long = sums("a"), sums("b" * 1000)

    assert short[1] == long[1]
    assert short[0] != long[0]


@given(st.lists(st.binary(max_size=40), max_size=8), st.integers(1, 50))
def test_chunks_are_the_content_cut_evenly(parts: list[bytes], chunk_bytes: int) -> None:
    content = Content.of(*parts)

    chunks = [bytes(chunk) for chunk in content.chunks(chunk_bytes)]

    assert b"".join(chunks) == b"".join(parts)
    assert all(len(chunk) == chunk_bytes for chunk in chunks[:-1])


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=8), st.data())
def test_checksums_do_not_depend_on_the_buffers(parts: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(parts)
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, len(whole)))
    plan = list(chunk_plan(len(whole), start, end))

    chunks = checksum(Content.of(*parts), plan)

    assert sum(plan) == len(whole)
    assert chunks == checksum(Content.of(whole), plan)
    assert not start or chunks[0].digest == digest([whole[:start]])
