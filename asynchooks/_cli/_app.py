"""The command line: parses and checks options, and turns outcomes into exit codes.

Exit codes of the demo: 0 done; 1 its proof failed, or an error that is not the user's; 2 a wrong option; 130 Ctrl-C.
Those of ``checkpoints`` stand in its `_outcome`, those of ``train`` and ``hooks`` in their `_command`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from asynchooks._cli.checkpoints import app as checkpoints
from asynchooks._cli.hooks import EXIT_CODES as HOOKS_EXIT_CODES
from asynchooks._cli.hooks import hooks
from asynchooks._cli.train import EXIT_CODES as TRAIN_EXIT_CODES
from asynchooks._cli.train import ArgparseStyle, train
from asynchooks._version import __version__

__all__ = ["main"]

app = typer.Typer(
    name="asynchooks",
    help="Run the hooks of PyTorch training asynchronously, with the result of running them inline.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("train", cls=ArgparseStyle, epilog=TRAIN_EXIT_CODES)(train)
app.command("hooks", cls=ArgparseStyle, epilog=HOOKS_EXIT_CODES)(hooks)
app.add_typer(checkpoints, name="checkpoints")


def main() -> None:
    """Run the command line."""
    app()


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"asynchooks {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    del version


@app.command()
def demo(
    device: Annotated[str, typer.Option(help="Where to train: cpu, cuda, cuda:1, ...")] = "cpu",
    steps: Annotated[
        int | None,
        typer.Option(help="Training steps of each run. Default: so many that the store can keep up."),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Save to this URL (s3://bucket/prefix, a folder, ...) instead of the embedded S3 server.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the weights and of the data's order.")] = 0,
    bandwidth: Annotated[
        float | None,
        typer.Option(metavar="MB/S", help="Speed of the link to the embedded server. Default: 50."),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Torch's threads, the same for all runs. Default: all cores but one."),
    ] = None,
    model: Annotated[str, typer.Option(help="small (10.7 M parameters) or tiny (0.1 M).")] = "small",
    strategy: Annotated[
        str | None,
        typer.Option(help="How ranks train together, under torchrun: DDP or FSDP2. Default: FSDP2."),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all numbers to this file.")
    ] = None,
) -> None:
    """Train a small GPT twice, saving to S3: inline and in the background. Compare, and prove both equal."""
    from asynchooks._cli.demo import FEWEST_STEPS, MODELS, DemoOptions, run_demo

    if steps is not None and steps < FEWEST_STEPS:
        raise typer.BadParameter(
            f"at least {FEWEST_STEPS} steps are needed, not {steps}.", param_hint="--steps"
        )
    if bandwidth is not None and not 0 < bandwidth < float("inf"):
        raise typer.BadParameter(
            f"a speed in MB/s above 0 is needed, not {bandwidth}.", param_hint="--bandwidth"
        )
    if bandwidth is not None and store is not None:
        raise typer.BadParameter(
            "it limits the embedded server's link and cannot limit --store; leave one of them out.",
            param_hint="--bandwidth",
        )
    if model not in MODELS:
        raise typer.BadParameter(f"{model!r} is none of {', '.join(MODELS)}.", param_hint="--model")
    if strategy is not None and strategy not in ("DDP", "FSDP2"):
        raise typer.BadParameter(f"{strategy!r} is none of DDP, FSDP2.", param_hint="--strategy")
    if strategy is not None and int(os.environ.get("WORLD_SIZE") or 1) < 2:
        raise typer.BadParameter(
            "there are no ranks; start with `torchrun --nproc-per-node 2 -m asynchooks demo`.",
            param_hint="--strategy",
        )
    _check_device(device)
    if json_file is not None:
        _check_writable(json_file)
    options = DemoOptions(
        device=device,
        steps=steps,
        store=store,
        seed=seed,
        bandwidth_mb_s=bandwidth,
        threads=threads or max(1, _cores() - 1),
        model=model,
        json_file=json_file,
        strategy=strategy,
    )
    raise typer.Exit(run_demo(options))


def _cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def _check_device(device: str) -> None:
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA raises AssertionError
        reason = str(error).strip().partition("\n")[0]
        raise typer.BadParameter(f"torch cannot use {device!r}: {reason}", param_hint="--device") from error


def _check_writable(file: Path) -> None:
    """Fail before the run, not after it."""
    if file.is_dir() or not os.access(file if file.exists() else file.absolute().parent, os.W_OK):
        raise typer.BadParameter(f"{file} cannot be written.", param_hint="--json")
