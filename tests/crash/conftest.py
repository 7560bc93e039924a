"""Runs and saves in processes of their own, that can be ended at any moment."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .program import Program, running


def pytest_addoption(parser: pytest.Parser) -> None:
    """Longer versions of the same tests, for a night."""
    parser.addoption(
        "--soak",
        type=float,
        default=float(os.environ.get("ASYNCHOOKS_SOAK", "1")),
        help="multiplies how often the crash tests kill and how long they watch",
    )


@pytest.fixture(scope="session")
def soak(request: pytest.FixtureRequest) -> float:
    """How many times longer than usual."""
    return float(request.config.getoption("--soak"))


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

    program: Program

    @property
    def errors(self) -> str:
        """What the trainings said on stderr."""
        return self.program.errors

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
        answer = self.program.ask(
            {
                "work_dir": str(work_dir),
                "out_dir": out_dir,
                "options": dict(options),
                "iters": iters,
                "signals": list(signals),
                "changes": changes,
            }
        )
        said = [(word, number) for word, number in answer["said"]]
        return Ended(answer["status"], said, answer["lasted_s"])


@pytest.fixture(scope="session")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainer]:
    """One such program for the whole session."""
    with running("trainer", tmp_path_factory.mktemp("trainer") / "errors") as program:
        yield Trainer(program)


@pytest.fixture(scope="session")
def saver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """One program that forks savers, for the whole session."""
    with running("saver", tmp_path_factory.mktemp("saver") / "errors") as program:
        yield program


@pytest.fixture
def memory_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: thousands of times fsync take minutes on a busy disk."""
    shared_memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared_memory if shared_memory.is_dir() else tmp_path) as name:
        yield Path(name)
