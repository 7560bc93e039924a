"""Saves of one checkpointer take turns, wherever they are called from."""

import threading
from pathlib import Path
from typing import Any

import anyio
import torch

from asynchooks.checkpoint import Checkpointer, capture, list_checkpoints, open_store
from asynchooks.checkpoint._turns import Turns
from asynchooks.testing import FaultyStore


def test_a_save_waits_for_one_on_another_event_loop(tmp_path: Path) -> None:
    is_waiting = threading.Event()

    class Slow(FaultyStore):
        def put(self, name: str, content: Any, **options: Any) -> None:
            if name == "iter_1.pth":
                other.start()
                assert is_waiting.wait(30)
            self.inner.put(name, content, **options)

    async def save(step: int) -> None:
        await saves.save(capture({"w": torch.ones(step)}), name=f"iter_{step}.pth", step=step)

    async def save_later() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(save, 2)
            await anyio.wait_all_tasks_blocked()
            is_waiting.set()

    saves = Checkpointer(Slow(open_store(tmp_path)))
    other = threading.Thread(target=anyio.run, args=(save_later,), daemon=True)
    anyio.run(save, 1)
    other.join(30)

    assert [info.step for info in list_checkpoints(tmp_path)] == [1, 2]


def test_turns_are_in_order_and_who_is_cancelled_leaves_the_queue_and_no_thread() -> None:
    turns, order = Turns(), list[str]()
    before = {*threading.enumerate()}

    async def take(name: str, scope: anyio.CancelScope) -> None:
        with scope:
            async with turns.take():
                order.append(name)

    async def take_all() -> None:
        scopes = {name: anyio.CancelScope() for name in "abc"}
        async with anyio.create_task_group() as group:
            async with turns.take():
                for name, scope in scopes.items():
                    group.start_soon(take, name, scope)
                    await anyio.wait_all_tasks_blocked()
                scopes["b"].cancel()
                await anyio.wait_all_tasks_blocked()

    anyio.run(take_all)

    assert order == ["a", "c"]
    for thread in {*threading.enumerate()} - before:
        thread.join(10)
        assert not thread.is_alive()
