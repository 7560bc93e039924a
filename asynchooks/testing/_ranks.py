"""Real ranks: processes with a gloo group, started in a fraction of a second, each of which can be killed.

They meet as under ``torchrun``: in a store that outlives each of them, here in this process. They are forked from
a server process that has torch loaded and has run nothing, so that a rank costs no import.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import TCPStore

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess
    from types import TracebackType

__all__ = ["RankOutcome", "Ranks", "run_ranks", "start_rank_server"]

_PRELOAD = [
    "torch",
    "torch.distributed.checkpoint.state_dict",
    "torch.distributed.fsdp",
    "torch._dynamo",  # FSDP2 loads it when a model is wrapped
    "asynchooks.hooks",
    "asynchooks.runner",
    "asynchooks.testing._ranks",
]
_STOP_S = 10.0
_RESOLVER = {"RES_OPTIONS": "timeout:1 attempts:1"}
"""torch asks for the names of addresses, for messages; a machine without a name server answers that after 5 s."""


@dataclass(frozen=True, slots=True)
class RankOutcome:
    """How a rank ended.

    Attributes:
        rank: its number.
        exit_code: of its process; negative for a signal.
        result: what the function returned.
        error: the traceback of what it raised; None where it raised nothing.
    """

    rank: int
    exit_code: int
    result: Any = None
    error: str | None = None


class Ranks:
    """Runs a function on several ranks; a context manager, which ends what still runs when it is left.

    Args:
        world_size: how many.
        function: called on every rank with its number and ``args``; a function at the top of a module, which each
            rank imports from its file. What it returns must be picklable.
        args: further arguments; must be picklable.
        attempt: how often the job was started before, as of torchrun.
        environment: further environment variables of the ranks.
        with_group: whether a gloo group is there when the function is called; else ``torchrun``'s variables alone.
    """

    def __init__(
        self,
        world_size: int,
        function: Callable[..., Any],
        *args: Any,
        attempt: int = 0,
        environment: dict[str, str] | None = None,
        with_group: bool = True,
    ) -> None:
        context = start_rank_server()
        self._store = TCPStore("127.0.0.1", 0, None, is_master=True, wait_for_workers=False)
        self._pipes: list[Connection] = []
        self._processes: list[BaseProcess] = []
        self._messages: dict[int, tuple[Any, str | None]] = {}
        self._ended: set[int] = set()
        target = (str(Path(function.__code__.co_filename).resolve()), function.__qualname__)
        for rank in range(world_size):
            here, there = context.Pipe(duplex=False)
            variables = {
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(self._store.port),
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(world_size),
                "LOCAL_WORLD_SIZE": str(world_size),
                "TORCHELASTIC_USE_AGENT_STORE": "True",
                "TORCHELASTIC_RESTART_COUNT": str(attempt),
                "OMP_NUM_THREADS": "1",
                **_RESOLVER,
                **(environment or {}),
            }
            process = context.Process(
                target=_rank_main,
                args=(there, target, rank, args, variables, with_group),
                name=f"rank {rank}",
            )
            process.start()
            there.close()
            self._pipes.append(here)
            self._processes.append(process)

    @property
    def pids(self) -> list[int]:
        """Process ids, by rank."""
        return [process.pid or 0 for process in self._processes]

    def kill(self, rank: int, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to a rank; nothing happens when it has ended."""
        if self._processes[rank].is_alive():
            os.kill(self.pids[rank], number)

    def wait(self, ranks: Iterable[int], timeout_s: float = 60.0) -> None:
        """Wait until these ranks have ended.

        Raises:
            TimeoutError: some have not; the message names them.
        """
        deadline = time.monotonic() + timeout_s
        running = {rank: self._pipes[rank] for rank in ranks if rank not in self._ended}
        while running and time.monotonic() < deadline:
            ready = wait(list(running.values()), max(0.0, deadline - time.monotonic()))
            for rank in [rank for rank, pipe in running.items() if pipe in ready]:
                try:
                    self._messages[rank] = running[rank].recv()
                except EOFError:  # it has ended
                    self._ended.add(rank)
                    del running[rank]
        if running:
            raise TimeoutError(f"ranks {sorted(running)} have not ended after {timeout_s:g} s")

    def outcomes(self, timeout_s: float = 60.0) -> list[RankOutcome]:
        """Wait until every rank has ended, and say how.

        Raises:
            TimeoutError: some have not; the message names them.
        """
        self.wait(range(len(self._pipes)), timeout_s)
        for process in self._processes:
            process.join(_STOP_S)
        return [
            RankOutcome(rank, process.exitcode or 0, *self._messages.get(rank, (None, None)))
            for rank, process in enumerate(self._processes)
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.kill()
        for process, pipe in zip(self._processes, self._pipes, strict=True):
            process.join(_STOP_S)
            process.close()
            pipe.close()


def run_ranks(
    world_size: int, function: Callable[..., Any], *args: Any, timeout_s: float = 60.0, **options: Any
) -> list[Any]:
    """Run a function on several ranks and return their results, by rank.

    Args:
        world_size: how many.
        function: as of `Ranks`.
        args: as of `Ranks`.
        timeout_s: longest time until all have ended.
        options: further options of `Ranks`.

    Raises:
        RuntimeError: a rank raised or died; with the tracebacks of all that did.
        TimeoutError: some have not ended.
    """
    with Ranks(world_size, function, *args, **options) as ranks:
        outcomes = ranks.outcomes(timeout_s)
    failed = [outcome for outcome in outcomes if outcome.error is not None or outcome.exit_code]
    if failed:
        lines = [f"rank {each.rank} (exit code {each.exit_code}):\n{each.error or ''}" for each in failed]
        raise RuntimeError("\n".join(lines))
    return [outcome.result for outcome in outcomes]


def start_rank_server() -> Any:
    """Start the process that ranks are forked from, if there is none yet; return multiprocessing's context of it."""
    from multiprocessing import forkserver

    for name, value in _RESOLVER.items():  # the store lives in this process
        os.environ.setdefault(name, value)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    forkserver.ensure_running()
    return context


def _rank_main(
    pipe: Connection,
    target: tuple[str, str],
    rank: int,
    args: Sequence[Any],
    variables: dict[str, str],
    with_group: bool,  # noqa: FBT001 - of a process's arguments
) -> None:
    os.environ.update(variables)
    torch.set_num_threads(1)
    try:
        function = _load(*target)
        if with_group:
            dist.init_process_group("gloo")
        result = function(rank, *args)
    except SystemExit:
        raise
    except BaseException:  # noqa: BLE001 - whatever it is, whoever waits for this rank is told
        pipe.send((None, traceback.format_exc()))
        sys.stderr.flush()
        os._exit(1)
    if dist.is_initialized():
        dist.destroy_process_group()
    pipe.send((result, None))


def _load(file: str, name: str) -> Callable[..., Any]:
    """A function from its module's file, which may import what lies beside it."""
    path = Path(file)
    sys.path[:0] = [str(path.parent)]
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot import {file}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    function: Callable[..., Any] = getattr(module, name)
    return function
