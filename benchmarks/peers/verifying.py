"""Loads what was saved, in a process that lives beside the measured ones.

There, because loading would leave memory in the measured process that later saves would find warm.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from peers.contender import Place
from peers.contenders import contender_class

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from peers.case import Case, Workload
    from peers.places import Visit

__all__ = ["Verifier", "be_verifier", "verdict"]

_LIMIT_S = 120.0


class Verifier:
    """Starts the process with the first question, and again after one that it did not survive.

    Args:
        script: what to run with ``--verifier``.
    """

    def __init__(self, script: str) -> None:
        self._script = script
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def ask(self, case: Case, visit: Visit, step: int) -> dict[str, str] | str | None:
        """Return digests of what a contender saved, why it cannot be loaded, or None where there is nothing."""
        process = self._started()
        question = {
            "peer": case.peer,
            "place": [case.place, visit.url, visit.options],
            "folder": str(visit.folder),
            "like": [case.size_mb, case.workload],
            "step": step,
            "environ": visit.environ,
        }
        limit = threading.Timer(_LIMIT_S, process.kill)
        limit.start()
        try:
            if process.stdin is None or process.stdout is None:
                raise RuntimeError("the verifier has no pipes")
            process.stdin.write(json.dumps(question) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            limit.cancel()
        if not line:
            self._end()
            return f"cannot be loaded: the process that tried ended, or took more than {_LIMIT_S:g} s"
        answer: dict[str, str] | str | None = json.loads(line)
        return answer

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, self._script, "--verifier"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()


def be_verifier() -> None:
    """Answer questions from standard input until it closes."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    for line in sys.stdin:
        question = json.loads(line)
        os.environ.update(question["environ"])
        answers.write(json.dumps(_load(question)) + "\n")
        answers.flush()


def verdict(expected: Mapping[str, str], found: Mapping[str, str] | str | None) -> str:
    """Return "equal", "not checked", or what is wrong."""
    if found is None:
        return "not checked"
    if isinstance(found, str):
        return found
    different = [path for path, digest in expected.items() if found.get(path) != digest]
    if not different:
        return "equal"
    return f"{len(different)} of {len(expected)} tensors differ from the capture, {different[0]} the first"


def _load(question: dict[str, Any]) -> dict[str, str] | str | None:
    from peers.workload import digests

    kind, url, options = question["place"]
    size_mb, workload = question["like"]
    try:
        kind_of_contender = contender_class(question["peer"])
        place = Place(kind, url, options)
        if (
            place.is_remote and not kind_of_contender.loads_remotely
        ):  # rclone's answers to ranges confuse obstore
            place = Place("local", question["folder"], {})
        contender = kind_of_contender(place)
        loaded = contender.load(question["step"], _like(size_mb, workload))
        return None if loaded is None else digests(loaded)
    except Exception as error:  # noqa: BLE001 - what a contender cannot load is a result
        return f"cannot be loaded: {type(error).__name__}: {str(error)[:300]}"


@cache
def _like(size_mb: int, workload: Workload) -> dict[str, Any]:
    from peers.workload import Training

    return Training(size_mb, workload, "cpu").state
