"""What reaches the disk is the content, whatever the buffers' lengths and addresses, with O_DIRECT and without."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asynchooks.checkpoint import Content
from asynchooks.checkpoint._storage._local_write import write_content

KIB, MIB = 2**10, 2**20


def _written(path: Path, content: Content) -> tuple[bytes, list[int]]:
    told: list[int] = []
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        write_content(descriptor, content, told.append)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return path.read_bytes(), told


_NOISE = np.random.default_rng(0).integers(0, 256, 9 * MIB, np.uint8)

pieces = st.lists(
    st.tuples(st.integers(0, 9000), st.one_of(st.integers(0, 9000), st.integers(3 * MIB, 8 * MIB))),
    max_size=5,
)


@settings(deadline=None, max_examples=40)
@given(pieces)
@pytest.mark.parametrize("place", ["tmp_path_factory", "memory"])
def test_every_byte_arrives(
    place: str, tmp_path_factory: pytest.TempPathFactory, cuts: list[tuple[int, int]]
) -> None:
    folder = Path("/dev/shm") if place == "memory" else tmp_path_factory.getbasetemp()
    path = folder / f"asynchooks-test-{os.getpid()}"
    buffers = [_NOISE[start : start + length].data for start, length in cuts]

    try:
        data, told = _written(path, Content.of(*buffers))
    finally:
        path.unlink(missing_ok=True)

    assert data == b"".join(buffers)
    assert sum(told) == len(data)
