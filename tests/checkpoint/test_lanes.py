"""Lanes: what copies, in which order, and what waits for it; a device's streams are simulated where there is none."""

from __future__ import annotations

import gc
import os
import signal
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from asynchooks.checkpoint import before_step, capture
from asynchooks.checkpoint._capture._lanes import Event, Piece, StreamLane, ThreadLane
from asynchooks.errors import CaptureError
from tests.threads import join_threads

Job = Callable[[], None]


class Stream:
    """Work in order, done when the device likes."""

    def __init__(self) -> None:
        self.jobs: list[Job | _Mark] = []

    def can_go_on(self) -> bool:
        first = self.jobs[0] if self.jobs else None
        return first is not None and not (isinstance(first, _Wait) and not first.event.come)

    def go_on(self) -> None:
        self.jobs.pop(0)()


class _Mark:
    """An event of the simulated device."""

    def __init__(self, device: Device) -> None:
        self.come = False
        self._device = device

    def __call__(self) -> None:
        self.come = True

    def query(self) -> bool:
        return self.come

    def synchronize(self) -> None:
        while not self.come:
            self._device.work()


class _Wait:
    def __init__(self, event: _Mark) -> None:
        self.event = event

    def __call__(self) -> None:
        pass


class Device:
    """Two streams that do their work as late, and in as odd an order, as their events allow."""

    def __init__(self, choose: Callable[[Sequence[Stream]], Stream]) -> None:
        self.caller = Stream()
        self.side = Stream()
        self._choose = choose

    def work(self) -> None:
        ready = [stream for stream in (self.caller, self.side) if stream.can_go_on()]
        self._choose(ready).go_on()

    def finish(self) -> None:
        while self.caller.jobs or self.side.jobs:
            self.work()

    def run(self, job: Job) -> None:
        """What training does: enqueue, and go on."""
        self.caller.jobs.append(job)

    def follow(self) -> None:
        mark = _Mark(self)
        self.caller.jobs.append(mark)
        self.side.jobs.append(_Wait(mark))

    def copy(self, piece: Piece) -> None:
        def copy() -> None:
            piece.target.copy_(piece.source)

        self.side.jobs.append(copy)

    def mark(self) -> Event:
        mark = _Mark(self)
        self.side.jobs.append(mark)
        return mark

    def hold(self, event: Event) -> None:
        assert isinstance(event, _Mark)
        self.caller.jobs.append(_Wait(event))


def _add(tensor: torch.Tensor, amount: int) -> Job:
    def add() -> None:
        tensor.add_(amount)

    return add


@given(data=st.data())
def test_a_device_copies_the_instant_of_the_capture_whatever_it_does_first(data: st.DataObject) -> None:
    device = Device(lambda ready: data.draw(st.sampled_from(ready)))
    weights, buffer = torch.zeros(2), torch.zeros(2)
    kept_weights, kept_buffer = torch.empty(2), torch.empty(2)

    device.run(_add(weights, 1))  # the step before
    device.run(_add(buffer, 1))
    lane = StreamLane(device, [Piece(kept_buffer, buffer)], [Piece(kept_weights, weights)])
    device.run(_add(buffer, 1))  # forward
    lane.order()
    device.run(_add(weights, 1))  # the step
    lane.wait()

    assert (kept_weights.tolist(), kept_buffer.tolist()) == ([1, 1], [1, 1])
    device.finish()
    assert (weights.tolist(), buffer.tolist()) == ([2, 2], [2, 2])


def test_a_device_is_not_held_for_what_is_copied_later() -> None:
    device = Device(lambda ready: ready[0])
    weights = torch.zeros(2)
    done: list[str] = []

    StreamLane(device, [], [Piece(torch.empty(2), weights)])
    device.run(lambda: done.append("forward"))
    while device.caller.can_go_on():
        device.caller.go_on()

    assert done == ["forward"]
    device.finish()


def test_a_thread_that_copies_ends_with_the_copy() -> None:
    source = torch.arange(400_000.0)
    piece = Piece(torch.empty_like(source), source)
    ended: list[str] = []

    lane = ThreadLane([piece], lambda: ended.append(threading.current_thread().name))
    lane.wait()

    assert torch.equal(piece.target, source)
    assert ended == ["asynchooks copy"]


def test_a_second_thread_helps_once_a_step_waits() -> None:
    sources = [torch.arange(5_000_000.0), torch.ones(3), torch.arange(3_000_000).view(1000, 3000)]
    pieces = [Piece(torch.empty_like(source), source) for source in sources]
    ended: list[str] = []
    let_go = threading.Event()

    lane = ThreadLane(pieces, lambda: ended.append("copied"), lambda _: let_go.wait(30))
    lane.order()  # the first thread copies nothing before this returns
    let_go.set()
    lane.wait()

    assert all(torch.equal(piece.target, piece.source) for piece in pieces)
    assert ended == ["copied"]


def test_a_copy_that_has_ended_keeps_nothing() -> None:
    class Whole:
        def __init__(self) -> None:
            self.lane = ThreadLane([Piece(torch.empty(9), torch.ones(9))], self.judge)

        def judge(self) -> None:
            """Called at the end."""

    whole = Whole()
    whole.lane.wait()
    join_threads("asynchooks copy")
    reference = weakref.ref(whole)
    gc.disable()
    try:
        del whole
        assert reference() is None
    finally:
        gc.enable()


def test_an_interrupt_of_who_waits_reaches_them_and_the_copy_goes_on() -> None:
    source = torch.arange(5_000_000.0)
    piece = Piece(torch.empty_like(source), source)
    let_go = threading.Event()

    def interrupts(awaited: threading.Event) -> None:
        awaited.wait(30)
        os.kill(os.getpid(), signal.SIGUSR1)

    def raises(*_: object) -> None:
        raise KeyboardInterrupt

    def ends_late() -> None:
        let_go.wait(30)

    before = signal.signal(signal.SIGUSR1, raises)
    try:
        lane = ThreadLane([piece], ends_late, interrupts)
        with pytest.raises(KeyboardInterrupt):
            lane.order()
    finally:
        signal.signal(signal.SIGUSR1, before)
    let_go.set()
    lane.wait()

    assert torch.equal(piece.target, source)


def test_what_fails_in_the_copying_thread_is_told_to_who_waits() -> None:
    lane = ThreadLane([Piece(torch.empty(2), torch.empty(3))], lambda: None)
    lane.order()

    with pytest.raises(CaptureError, match="copying the state failed: The size of tensor"):
        lane.wait()


# ---- on a device ----


@pytest.fixture
def cuda() -> Iterator[torch.device]:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    yield torch.device("cuda", torch.cuda.current_device())
    torch.cuda.synchronize()


def test_on_cuda_a_step_and_a_forward_pass_right_after_a_capture_leave_it_alone(cuda: torch.device) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2048, 2048), torch.nn.BatchNorm1d(2048)).to(cuda)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for step in range(6):
        model(torch.randn(16, 2048, device=cuda)).sum().backward()
        optimizer.step()
        content = {"state_dict": model.state_dict(), "optimizer": optimizer.state_dict()}
        expected = {name: tensor.cpu() for name, tensor in content["state_dict"].items()}

        snapshot = capture(content, overlap=optimizer if step % 2 else [])
        model(torch.randn(16, 2048, device=cuda)).sum().backward()
        optimizer.step()
        del content

        kept = snapshot.state["state_dict"]
        assert all(torch.equal(kept[name], expected[name]) for name in expected)
        assert all(tensor.device.type == "cpu" for tensor in kept.values())
        assert snapshot.image.memory.nbytes > 2**20


def test_on_cuda_a_capture_does_not_wait_for_the_device(cuda: torch.device) -> None:
    weights = torch.ones(4096, 4096, device=cuda)
    capture([weights])  # makes and registers the memory
    torch.cuda.synchronize()
    torch.cuda._sleep(1_000_000_000)  # type: ignore[no-untyped-call] # half a second and more

    snapshot = capture([weights], overlap=weights)
    before_step()
    weights.add_(1)

    is_busy = not torch.cuda.current_stream().query()
    assert is_busy
    assert snapshot.state[0].sum() == 4096 * 4096
