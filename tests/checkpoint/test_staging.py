"""Staging memory: warm again, nobody else's while anything refers to it, at a place that another process can map."""

import faulthandler
import gc
import mmap
import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from asynchooks.checkpoint import Snapshot, capture
from asynchooks.checkpoint._capture._staging import Staging

MIB = 2**20


def _address(memory: Any) -> int:
    return int(np.asarray(memory).ctypes.data)


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _state(fill: float = 1.0, rows: int = MIB) -> dict[str, Any]:
    return {"w": torch.full((rows,), fill), "v": torch.full((rows,), -fill)}


def test_memory_starts_at_a_page_and_has_the_length_that_was_asked_for() -> None:
    memory = Staging().lease(3 * MIB + 5)

    assert memory.nbytes == 3 * MIB + 5
    assert _address(memory) % mmap.PAGESIZE == 0


def test_memory_that_nothing_refers_to_is_used_again() -> None:
    staging = Staging()
    first = staging.lease(5 * MIB)
    address = _address(first)
    del first

    assert _address(staging.lease(4 * MIB)) == address


@pytest.mark.parametrize(
    "hold", [lambda memory: memory[7:], lambda memory: memory.data[7:], torch.from_numpy]
)
def test_memory_is_leased_as_long_as_anything_made_from_it_lives(hold: Any) -> None:
    staging = Staging()
    held = hold(staging.lease(2 * MIB))

    assert _address(staging.lease(2 * MIB)) // MIB != _address(held) // MIB
    del held


def test_a_tensor_of_a_dropped_snapshot_keeps_its_bytes() -> None:
    staging = Staging()
    tensor = capture(_state(1.0), staging=staging).state["w"]

    others = [capture(_state(2.0), staging=staging) for _ in range(3)]

    assert torch.equal(tensor, torch.ones(MIB))
    assert len(others) == 3


def test_capture_after_capture_uses_the_same_memory() -> None:
    staging = Staging()
    addresses = {_address(capture(_state(i), staging=staging).image.memory) for i in map(float, range(10))}

    assert len(addresses) == 1
    assert staging.free_bytes <= 10 * MIB


def test_at_most_so_many_unused_slabs_stay_warm() -> None:
    staging = Staging(keep=1)
    leased = [staging.lease(2 * MIB) for _ in range(4)]
    del leased

    assert staging.free_bytes == 2 * MIB


def test_memory_that_is_not_used_for_long_is_let_go() -> None:
    staging = Staging()
    large, small = staging.lease(64 * MIB), staging.lease(2 * MIB)
    del large, small
    for _ in range(20):
        staging.lease(2 * MIB)

    assert staging.free_bytes == 2 * MIB


def test_prepared_memory_is_the_next_captures() -> None:
    staging = Staging()
    staging.prepare(16 * MIB)

    assert staging.free_bytes == 16 * MIB
    memory = staging.lease(15 * MIB)
    assert memory.nbytes == 15 * MIB
    assert staging.free_bytes == 0


def test_shared_memory_has_a_place_where_another_process_finds_the_same_bytes() -> None:
    staging = Staging()
    private = staging.lease(4 * MIB)
    staging.share()
    memory = staging.lease(4 * MIB)
    memory[MIB : MIB + 5] = list(b"hello")

    place = staging.place_of(memory.data[MIB:])

    assert place is not None
    assert os.pread(place.descriptor, 5, place.offset) == b"hello"
    assert staging.place_of(private.data) is None
    assert staging.place_of(memoryview(b"elsewhere")) is None


def test_private_memory_is_not_leased_again_once_it_is_to_be_shared() -> None:
    staging = Staging()
    staging.lease(4 * MIB)
    staging.share()

    assert staging.place_of(staging.lease(4 * MIB).data) is not None


@contextmanager
def _forked(run: Callable[[], object]) -> Iterator[int]:
    """A forked child that runs a function and ends; its process id."""
    child = os.fork()
    if not child:
        try:
            run()
        finally:
            os._exit(0)
    try:
        yield child
    finally:
        with suppress(ChildProcessError):
            os.waitpid(child, 0)


@pytest.mark.parametrize("is_shared", [False, True])
def test_a_forked_child_does_not_write_into_its_parents_memory(*, is_shared: bool) -> None:
    staging = Staging()
    if is_shared:
        staging.share()
    staging.lease(2 * MIB).fill(1)

    with _forked(lambda: staging.lease(2 * MIB).fill(2)):
        pass

    assert set(staging.lease(2 * MIB)) == {1}


@pytest.mark.parametrize("is_shared", [False, True])
def test_memory_stays_warm_while_a_forked_child_lives(*, is_shared: bool) -> None:
    staging = Staging()
    if is_shared:
        staging.share()
    memory = staging.lease(64 * MIB)
    reader, writer = os.pipe()

    with _forked(lambda: os.read(reader, 1)):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        memory.fill(1)
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        os.write(writer, b"x")
    os.close(reader)
    os.close(writer)

    assert faults < 100


def test_a_forked_child_that_reads_a_snapshot_dies_instead_of_reading_other_bytes() -> None:
    memory = Staging().lease(2 * MIB)
    memory.fill(1)

    def read() -> None:
        faulthandler.disable()
        os._exit(int(memory[MIB]))

    with _forked(read) as child:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGSEGV


def test_what_a_forked_child_lets_go_takes_nothing_else_with_it() -> None:
    leased = [Staging().lease(8 * MIB)]

    def let_go() -> None:
        others = [mmap.mmap(-1, 8 * MIB) for _ in range(20)]
        leased.clear()
        gc.collect()
        os._exit(sum(other[0] for other in others))

    with _forked(let_go) as child:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("is_shared", [False, True])
def test_nothing_is_left_when_memory_is_let_go(*, is_shared: bool) -> None:
    gc.collect()  # what earlier tests have left
    before = _descriptors()
    staging = Staging()
    if is_shared:
        staging.share()
    memory = staging.lease(2 * MIB)
    assert (_descriptors() > before) == is_shared

    del memory, staging
    gc.collect()

    assert _descriptors() == before


def test_a_snapshot_without_keys_shares_the_copy_and_its_remarks() -> None:
    snapshot = capture({**_state(), "n": np.ones(1)})

    less = snapshot.without("v", "n")

    assert isinstance(less, Snapshot)
    assert less.state.keys() == {"w"}
    assert less.state["w"] is snapshot.state["w"]
    assert (less.nbytes, less.unsafe) == (4 * MIB, ())
    assert snapshot.unsafe == ("state['n']: ndarray",)
