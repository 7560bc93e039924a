"""Runs and saves in processes of their own, that can be ended at any moment."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .fault_table import FaultTable
from .faults import FAULTS
from .program import Program, running


def pytest_addoption(parser: pytest.Parser) -> None:
    """Longer versions of the same tests, for a night."""
    parser.addoption(
        "--write-fault-table", action="store_true", help="write what tests/crash/test_faults.py observes"
    )
    parser.addoption(
        "--soak",
        type=float,
        default=float(os.environ.get("ASYNCHOOKS_SOAK", "1")),
        help="multiplies how often the crash tests kill and how long they watch",
    )


REMARKS = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Room for the remarks."""
    config.stash[REMARKS] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what tests have counted."""
    for line in config.stash[REMARKS]:
        terminalreporter.write_line(line)


@pytest.fixture
def remark(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Say something at the end of the session."""
    return lambda text: request.config.stash[REMARKS].append(f"{request.node.name}: {text}")


@pytest.fixture(scope="session")
def soak(request: pytest.FixtureRequest) -> float:
    """How many times longer than usual."""
    return float(request.config.getoption("--soak"))


@pytest.fixture(scope="session")
def fault_table(request: pytest.FixtureRequest) -> Iterator[FaultTable]:
    """The contract's table; when it is to be written, what is observed replaces what stands there."""
    table = FaultTable()
    is_written = request.config.getoption("--write-fault-table")
    if is_written:
        table.rows.clear()
    yield table
    if is_written:
        table.write(list(FAULTS))


@dataclass(frozen=True)
class Ended:
    """How a training ended, what it had said, and how long it lasted after the last signal."""

    status: int
    said: list[tuple[str, Any]]
    lasted_s: float

    def all_of(self, word: str) -> list[Any]:
        """What it said with a word: numbers, but for errors and warnings."""
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
        acts: Sequence[tuple[int, str, Mapping[str, Any]]] = (),
        **changes: Any,
    ) -> Ended:
        """Train in a process of its own and wait for its end; see `trainer.Watch` and `trainer.Act`."""
        answer = self.program.ask(
            {
                "work_dir": str(work_dir),
                "out_dir": out_dir,
                "options": dict(options),
                "iters": iters,
                "signals": list(signals),
                "acts": list(acts),
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
