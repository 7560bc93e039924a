"""Cases in child processes: watched from outside, killed when they hang, cleaned up after."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peers.case import Case, Outcome, SaveResult
from peers.processes import Watch, children_cpu_s, machine_cpu_s
from peers.questions import Desk
from peers.verifying import Verifier

if TYPE_CHECKING:
    from peers.places import Visit

__all__ = ["be_child", "run_case"]

_SAMPLE_S = 0.02
_SHARED = Path("/dev/shm")


def run_case(script: str, case: Case, visit: Visit, verifier: Verifier, deadline_s: float) -> Outcome:
    """Run a case in a fresh process and return what it found, also when it failed or had to be killed."""
    with tempfile.TemporaryDirectory(prefix="checkpoint-peers-") as name:
        said = Path(name) / "said.txt"
        desk = Desk(Path(name))
        start, machine_s, children_s = time.perf_counter(), machine_cpu_s(), children_cpu_s()
        with said.open("wb") as output:
            child = subprocess.Popen(
                [sys.executable, script, "--child", name],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env={**os.environ, **visit.environ, "TMPDIR": name},
                start_new_session=True,
            )
            watch = Watch(child.pid, visit.folder if case.place == "tmpfs" else None)
            try:
                if child.stdin is not None:
                    child.stdin.write(json.dumps(asdict(case)).encode())
                    child.stdin.close()
                is_late = _wait(child, watch, desk, partial(_verify, case, visit, verifier), deadline_s)
            finally:
                _end(child, watch)
        foreign_s = machine_cpu_s() - machine_s - (children_cpu_s() - children_s)
        outcome = replace(_read(desk), foreign_cores=foreign_s / (time.perf_counter() - start))
        if is_late:
            outcome = replace(outcome, error=f"killed: it was not done after {deadline_s:.0f} s")
        elif child.returncode:
            lines = said.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            outcome = replace(outcome, error=f"exit {child.returncode}: {' / '.join(lines[-3:])[-500:]}")
    base = watch.last_before(outcome.baseline_at)
    extra = [max(0, watch.peak(save.start, save.end) - base) for save in outcome.saves]
    return replace(outcome, extra_bytes=extra)


def be_child(folder: Path) -> None:
    """Measure the case that the parent wrote to standard input."""
    from peers.child import measure

    case = Case(**json.load(sys.stdin))
    desk = Desk(folder)
    for outcome in measure(case, desk.ask):
        desk.leave("outcome", asdict(outcome))


def _verify(case: Case, visit: Visit, verifier: Verifier, step: int) -> dict[str, str] | str | None:
    return verifier.ask(case, visit, step)


def _wait(
    child: subprocess.Popen[bytes],
    watch: Watch,
    desk: Desk,
    answer: Callable[[int], object],
    deadline_s: float,
) -> bool:
    """Watch a child to its end; return whether it did not come in time."""
    end = time.monotonic() + deadline_s
    while child.poll() is None:
        if time.monotonic() > end:
            return True
        watch.sample()
        desk.reply(answer)
        time.sleep(_SAMPLE_S)
    return False


def _end(child: subprocess.Popen[bytes], watch: Watch) -> None:
    """End what is left of a child's processes, and what they left in shared memory."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    for pid in watch.pids:
        for segment in _SHARED.glob(f"torch_{pid}_*"):
            segment.unlink(missing_ok=True)


def _read(desk: Desk) -> Outcome:
    fields: dict[str, Any] | None = desk.find("outcome")
    if fields is None:
        return Outcome()
    fields["saves"] = [SaveResult(**save) for save in fields["saves"]]
    return Outcome(**fields)
