"""A file's tensors lie in the staging memory as in the file, whatever part of the state is saved."""

import io
import struct
import zipfile
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asynchooks.checkpoint import Snapshot, capture
from asynchooks.checkpoint._serialize import serialize

SAVE_ID = "0" * 32
MIB = 2**20


def _bytes(snapshot: Snapshot) -> bytes:
    return b"".join(serialize(snapshot, SAVE_ID).content.buffers)


def _load(data: bytes) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(io.BytesIO(data), weights_only=True)
    return loaded


def _adam(layers: int = 20) -> dict[str, Any]:
    model = torch.nn.Sequential(*(torch.nn.Linear(100, 100) for _ in range(layers)))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(2, 100)).sum().backward()
    optimizer.step()
    return {"state_dict": model.state_dict(), "optimizer": optimizer.state_dict(), "meta": {"iter": 1}}


def test_the_number_of_buffers_does_not_grow_with_the_number_of_tensors() -> None:
    few, many = (len(serialize(capture(_adam(n)), SAVE_ID).content.buffers) for n in (2, 200))

    assert few == many < 20


def test_large_buffers_start_at_the_same_offset_of_a_page_in_the_file_as_in_memory() -> None:
    snapshot = capture({"a": torch.ones(MIB), "skipped": torch.ones(7), "b": torch.ones(MIB)})

    offset, checked = 0, 0
    for buffer in serialize(snapshot.without("skipped"), SAVE_ID).content.buffers:
        if buffer.nbytes > MIB:
            assert np.frombuffer(buffer, np.uint8).ctypes.data % 4096 == offset % 4096
            checked += 1
        offset += buffer.nbytes
    assert checked == 2


def test_a_part_of_a_state_holds_no_byte_of_the_rest() -> None:
    secret = torch.frombuffer(bytearray(b"optimizer state " * 64), dtype=torch.uint8)
    snapshot = capture({"a": torch.zeros(100), "optimizer": secret, "b": torch.zeros(100)})

    data = _bytes(snapshot.without("optimizer"))

    assert b"optimizer state" not in data
    assert _load(data).keys() == {"a", "b"}


def test_two_files_may_be_made_from_one_capture_at_once() -> None:
    snapshot = capture(_adam())
    whole, part = serialize(snapshot, SAVE_ID), serialize(snapshot.without("optimizer"), SAVE_ID)

    loaded = _load(b"".join(whole.content.buffers))
    weights = _load(b"".join(part.content.buffers))["state_dict"]

    assert all(map(torch.equal, weights.values(), loaded["state_dict"].values()))
    assert loaded["optimizer"]["state"].keys() == snapshot.state["optimizer"]["state"].keys()


def test_a_zip_reader_finds_every_record_where_its_storage_is() -> None:
    snapshot = capture(_adam(2))
    data = _bytes(snapshot)

    for slot in snapshot.image.slots:
        info = zipfile.ZipFile(io.BytesIO(data)).getinfo(f"archive/data/{slot.index}")
        name_bytes, extra_bytes = struct.unpack_from("<HH", data, info.header_offset + 26)
        start = info.header_offset + 30 + name_bytes + extra_bytes
        assert info.file_size == slot.nbytes
        assert start % 64 == 0
        assert data[start : start + slot.nbytes] == bytes(slot.storage)


@pytest.mark.parametrize("tensor", [torch.empty(0), torch.empty(3, 0), torch.tensor(1.5)])
def test_empty_and_single_numbers_have_a_place(tensor: torch.Tensor) -> None:
    loaded = _load(_bytes(capture({"a": torch.ones(3), "t": tensor, "b": torch.ones(3), "again": tensor})))

    assert torch.equal(loaded["t"], tensor)
    assert loaded["t"] is loaded["again"]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 40_000), max_size=12), st.sets(st.integers(0, 11)))
def test_any_part_of_any_state_loads_as_it_was(sizes: list[int], dropped: set[int]) -> None:
    state = {f"t{i}": torch.arange(size, dtype=torch.int16) + i for i, size in enumerate(sizes)}
    keys = [f"t{i}" for i in dropped if i < len(sizes)]

    loaded = _load(_bytes(capture(state).without(*keys)))

    assert loaded.keys() == state.keys() - set(keys)
    assert all(torch.equal(loaded[key], state[key]) for key in loaded)
