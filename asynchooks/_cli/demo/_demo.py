"""The demo from start to end: size it, run it, compare it, prove it.

Decides the order of the runs. Pure compute is measured before, between and after the two runs that save, so that
a machine that drifts disturbs the comparison least, and shows.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.console import Console
from rich.markup import escape

from asynchooks._cli._configured import tell
from asynchooks._cli.demo._environment import describe_environment
from asynchooks._cli.demo._measure import Block, measure_baseline
from asynchooks._cli.demo._progress import Display
from asynchooks._cli.demo._proof import Claim, prove_same_files, prove_same_tensors
from asynchooks._cli.demo._ranks import (
    describe_ranks,
    prove_like_one_process,
    shared_store,
    slowest,
)
from asynchooks._cli.demo._report import as_json, caption, comparison_table, picture
from asynchooks._cli.demo._sizing import choose_sizing
from asynchooks._cli.demo._store import DEFAULT_BANDWIDTH_MB_S
from asynchooks._cli.demo._training import MODELS, Run, Training
from asynchooks.checkpoint import Checkpointer, list_checkpoints
from asynchooks.distributed import broadcast_object, found_by_first, is_first_rank, world_size
from asynchooks.errors import AsyncHooksError
from asynchooks.runner._launch import join_ranks

if TYPE_CHECKING:
    from asynchooks._cli.demo._sizing import Sizing
    from asynchooks._cli.demo._store import Store

__all__ = ["DemoOptions", "run_demo"]

_INTERRUPTED = 130
_WIDTH_OF_A_FILE = 100


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """The demo's options, checked; see ``asynchooks demo --help``."""

    device: str
    steps: int | None
    store: str | None
    seed: int
    bandwidth_mb_s: float | None
    threads: int
    model: str
    json_file: Path | None
    strategy: str | None = None


def run_demo(options: DemoOptions) -> int:
    """Run the demo; return the process's exit code."""
    join_ranks(None, None, options.device)
    console = Console(
        highlight=False,
        width=None if sys.stdout.isatty() else _WIDTH_OF_A_FILE,
        quiet=not is_first_rank(),
    )
    torch.set_num_threads(options.threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # bit-identical runs on CUDA need it
    try:
        with shared_store(options.store, options.bandwidth_mb_s or DEFAULT_BANDWIDTH_MB_S) as store:
            return _run_in(store, options, console)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except AsyncHooksError as error:
        _say_error(error, console)
        return 1
    except RuntimeError as error:  # the embedded server: rclone is missing or does not start
        _say_error(error, console)
        return 1


def _run_in(store: Store, options: DemoOptions, console: Console) -> int:
    demo = _Demo(store, options, console)
    try:
        return demo.run()
    except KeyboardInterrupt:
        console.print("\nInterrupted.")
        demo.say_what_is_there()
        raise
    except BaseExceptionGroup as errors:
        interrupts, failures = errors.split(KeyboardInterrupt)
        for failure in failures.exceptions if failures else ():
            _say_error(failure, console)
        demo.say_what_is_there()
        if interrupts:
            raise KeyboardInterrupt from errors
        return 1


def _say_error(error: BaseException, console: Console) -> None:
    if console.quiet:  # not the first rank; what it alone knows must not be lost
        tell(error)
        return
    console.print(f"[red]error:[/red] {type(error).__name__}: {escape(str(error))}", soft_wrap=True)


class _Demo:
    """One demo: what its steps share."""

    def __init__(self, store: Store, options: DemoOptions, console: Console) -> None:
        self._store = store
        self._options = options
        self._console = console
        self._started: list[str] = []
        self._strategy = (options.strategy or "FSDP2") if world_size() > 1 else None
        batch_size = max(4, world_size())
        self._training = Training(
            MODELS[options.model],
            options.device,
            options.seed,
            batch_size - batch_size % world_size(),
            self._strategy,
        )

    def run(self) -> int:
        """Run everything; return the exit code."""
        found_by_first("check the store", self._check)
        with Display(self._console) as self._display:
            sizing = self._size()
            blocks = [self._block("pure compute, before", sizing.interval)]
            sync = self._run("sync", sizing)
            blocks.append(self._block("pure compute, between", sizing.interval))
            async_ = self._run("async", sizing)
            blocks.append(self._block("pure compute, after", sizing.interval))
            claims = self._prove(sync, async_, sizing)
        baseline = measure_baseline(blocks)
        environment = describe_environment("torch", "asynchooks")
        arms = tuple(slowest(run.measure(baseline.validation_s)) for run in (sync, async_))
        self._console.print("\n", comparison_table(baseline, arms, sizing))
        self._console.print(
            caption(
                baseline,
                sizing,
                self._store.description,
                self._options.threads,
                environment,
                describe_ranks(self._strategy),
            )
        )
        self._console.print("\n" + picture(async_.spans, max(60, min(110, self._console.width))))
        self._console.print()
        for claim in claims:
            mark = "[green]yes[/green]  " if claim.holds else "[red]NO[/red]   "
            self._console.print(mark + escape(claim.text), soft_wrap=True)
        if self._options.json_file is not None and is_first_rank():
            plain = {name: str(value) for name, value in asdict(self._options).items() if value is not None}
            report = as_json(baseline, arms, sizing, claims, environment, plain)
            self._options.json_file.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        return 0 if all(claim.holds for claim in claims) else 1

    def say_what_is_there(self) -> None:
        """Print the committed checkpoints of every run that was started."""
        for name in self._started:
            url = self._store.run_url(name)
            committed = [info.name for info in list_checkpoints(url, storage_options=self._store.options)]
            names = ", ".join(committed) or "nothing yet"
            self._console.print(f"Committed in {url}: {names}.", soft_wrap=True)
        if self._store.is_temporary:
            self._console.print(
                "The embedded store ends with the demo; --store URL saves to a place of your own."
            )

    def _check(self) -> None:
        """Raise at once, and not at the first save, what is wrong with the user's store."""
        Checkpointer(self._store.run_url("sync"), storage_options=self._store.options).check_sync()

    def _size(self) -> Sizing:
        self._training.block(3, 1000)  # the first steps warm up torch
        on_step = self._display.phase("how fast is this machine?", 8)
        block = self._training.block(8, 1000, on_step)
        return broadcast_object(
            choose_sizing(
                step_s=block.step_s,
                save_bytes=self._training.save_bytes,
                bytes_per_s=self._store.bytes_per_s,
                steps=self._options.steps,
            )
        )

    def _block(self, name: str, steps: int) -> Block:
        return self._training.block(steps, steps, self._display.phase(name, steps))

    def _run(self, mode: str, sizing: Sizing, resume_from: str | None = None, done: int = 0) -> Run:
        name = mode if resume_from is None else "resumed"
        self._started.append(name)
        return self._training.run(
            "sync" if mode == "sync" else "async",
            name=name,
            store_url=self._store.url,
            options=self._store.options,
            steps=sizing.steps,
            interval=sizing.interval,
            on_step=self._display.phase(
                f'training, mode="{mode}"' if not done else "resumed", sizing.steps - done
            ),
            resume_from=resume_from,
        )

    def _prove(self, sync: Run, async_: Run, sizing: Sizing) -> list[Claim]:
        options = self._store.options
        final = self._training.name_of(sizing.steps)
        claims, saved = found_by_first("compare", lambda: self._compare(sync, async_, sizing))
        step, url = saved
        resumed = self._run("async", sizing, resume_from=url, done=step)
        claims.append(
            found_by_first(
                "compare",
                lambda: prove_same_tensors(
                    f"{async_.url}/{final}",
                    f"{resumed.url}/{final}",
                    f"a run resumed from {url} and the run that was not interrupted",
                    options,
                ),
            )
        )
        if self._strategy is not None:
            job = {
                "model": self._options.model,
                "device": self._options.device,
                "seed": self._options.seed,
                "batch_size": self._training.batch_size,
                "threads": self._options.threads,
                "steps": sizing.steps,
                "interval": sizing.interval,
                "options": dict(options),
            }
            claims += prove_like_one_process(job, async_, saved)
        return claims

    def _compare(self, sync: Run, async_: Run, sizing: Sizing) -> tuple[list[Claim], tuple[int, str]]:
        """What both runs have left, and step and URL of a checkpoint amid the second; on the first rank."""
        options = self._store.options
        final = self._training.name_of(sizing.steps)
        claims = [
            prove_same_tensors(
                f"{sync.url}/{final}",
                f"{async_.url}/{final}",
                "the final checkpoints of both runs",
                options,
            ),
            prove_same_files(sync.url, async_.url, options),
        ]
        earlier = [
            info
            for info in list_checkpoints(async_.url, storage_options=options)
            if info.name.startswith("iter_") and info.step < sizing.steps
        ][-1]
        return claims, (earlier.step, f"{async_.url}/{earlier.name}")
