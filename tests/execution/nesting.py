"""Hooks that save, listen and fire, for the tests of firings inside firings."""

from typing import Any

import pytest

from asynchooks import Effects, Hook, HookExecutor, background, current_executor

both_modes = pytest.mark.parametrize("mode", ["async", "sync"])


class Saves(Hook):
    """Tells its listeners when its gate has opened."""

    fires = ("after_save_checkpoint",)
    effects = Effects(writes={"checkpoints"})

    def __init__(self, gate: Any = None, nbytes: Any = 0) -> None:
        self.gate, self.nbytes = gate, nbytes

    @background
    def before_train_iter(self, runner: Any, batch_idx: Any, data_batch: Any = None) -> Any:
        executor = current_executor()
        assert executor is not None
        if self.nbytes:
            executor.reserve(self.nbytes)

        async def part() -> None:
            if self.gate is not None:
                await self.gate.wait()
            executor.fire_nowait("after_save_checkpoint", runner, path=f"{batch_idx}", meta={})

        return part


class Listens(Hook):
    """Does something on the training thread when a checkpoint was saved."""

    fires: tuple[str, ...] = ("inner",)
    effects = Effects(writes={"uploads"})

    def __init__(self, name: Any, log: Any, does: Any = None) -> None:
        self.name, self.log, self.does = name, log, does

    def after_save_checkpoint(self, runner: Any, path: Any, meta: Any) -> None:
        self.log.append(f"{self.name} begins")
        if self.does is not None:
            self.does(current_executor())
        self.log.append(f"{self.name} ends")


class Inner(Hook):
    effects = Effects(writes={"inner"})

    def __init__(self, log: Any) -> None:
        self.log = log

    async def inner(self, runner: Any) -> None:
        self.log.append("inner")


def save(*hooks: Any, times: Any = 1, **options: Any) -> Any:
    with HookExecutor(hooks, points=["inner"], **options) as executor:
        for number in range(times):
            executor.fire("before_train_iter", None, batch_idx=number)
    return executor
