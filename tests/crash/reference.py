"""What a run passes through that nothing happens to: the measure of all others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asynchooks.checkpoint import CheckpointInfo, open_store, restore
from asynchooks.execution import Effects, Hook

from .trainer import digest, make_runner


class Digests(Hook):
    """Writes down a checksum of weights and optimizer after every iteration."""

    effects = Effects()
    priority = "LOWEST"

    def __init__(self) -> None:
        self.of: dict[int, str] = {}

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        self.of[runner.iter + 1] = digest(runner.model.state_dict(), runner.optim_wrapper.state_dict())


@dataclass(frozen=True)
class Reference:
    """What an uninterrupted run passes through, and what it leaves."""

    digests: Mapping[int, str]
    files: list[str]

    @classmethod
    def of_run(cls, folder: Path, iters: int, **changes: Any) -> Reference:
        """Train, undisturbed."""
        digests = Digests()
        make_runner(str(folder / "run"), str(folder / "saved"), {}, iters, digests, **changes).train()
        return cls(digests.of, sorted(open_store(folder / "saved" / "run").entries()))

    def check(self, info: CheckpointInfo, options: Mapping[str, str]) -> None:
        """Restore a checkpoint; it holds exactly what the uninterrupted run had at that step."""
        loaded = restore(info.url, storage_options=options)
        assert loaded["meta"]["iter"] == info.step
        if info.saved_as == "last":
            assert digest(loaded["state_dict"], loaded["optimizer"]) == self.digests[info.step]
