"""Runs in processes of their own, that can be ended at any moment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

TRAINER = Path(__file__).with_name("trainer.py")


@dataclass(frozen=True)
class Ended:
    """How a training ended, what it had said, and how long it lasted after the last signal."""

    status: int
    said: list[tuple[str, int]]
    lasted_s: float

    def all_of(self, word: str) -> list[int]:
        """The numbers that it said with a word."""
        return [number for said, number in self.said if said == word]


@dataclass
class Trainer:
    """The program that forks trainings."""

    process: subprocess.Popen[str]
    errors: Path

    def train(
        self,
        work_dir: Path,
        out_dir: str,
        options: Mapping[str, str],
        iters: int,
        signals: Sequence[Mapping[str, Any]] = (),
        **changes: Any,
    ) -> Ended:
        """Train in a process of its own and wait for its end; `signals`: see `trainer.Watch`."""
        order = {
            "work_dir": str(work_dir),
            "out_dir": out_dir,
            "options": dict(options),
            "iters": iters,
            "signals": list(signals),
            "changes": changes,
        }
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        said = [(word, number) for word, number in answer["said"]]
        return Ended(answer["status"], said, answer["lasted_s"])


@pytest.fixture(scope="session")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainer]:
    """One such program for the whole session."""
    errors = tmp_path_factory.mktemp("trainer") / "errors"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with (
        errors.open("w") as log,
        subprocess.Popen(
            [sys.executable, str(TRAINER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment,
        ) as process,
    ):
        yield Trainer(process, errors)
        assert process.stdin is not None
        process.stdin.close()
