"""A program of this folder in a process of its own: it answers each order with one line of JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


@dataclass
class Program:
    """A running program, and where its errors go."""

    process: subprocess.Popen[str]
    log: Path

    def ask(self, order: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> Any:
        """Send an order and wait for the answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    @property
    def errors(self) -> str:
        """What it has said on stderr so far."""
        return self.log.read_text()


@contextmanager
def running(module: str, log: Path, environment: Mapping[str, str] | None = None) -> Iterator[Program]:
    """Start ``tests/crash/<module>.py``; it ends with its standard input."""
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [sys.executable, "-m", f"tests.crash.{module}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | dict(environment or {}),
        ) as process,
    ):
        yield Program(process, log)
        assert process.stdin is not None
        process.stdin.close()
