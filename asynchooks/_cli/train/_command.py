"""The command and its options. Importing it loads no torch."""

from __future__ import annotations

import os
from typing import Annotated

import typer

__all__ = ["EXIT_CODES", "train"]

EXIT_CODES = (
    "Exit codes: 0 trained; 1 the run failed; 2 the configuration or an option is wrong; 3 the store cannot be "
    "reached or refuses; 75 (or what PreemptionHook says) ended at a signal, --resume continues it; "
    "130 Ctrl-C: what was in flight is finished first, unless it comes twice."
)


def train(
    config: Annotated[
        str, typer.Argument(metavar="CONFIG", help="A .py, .yaml, .json or .toml file.", show_default=False)
    ],
    cfg_options: Annotated[
        list[str] | None,
        typer.Option(
            "--cfg-options",
            metavar="KEY=VALUE ...",
            help="Entries that change, such as train_cfg.max_epochs=3 custom_hooks.0.interval=5.",
        ),
    ] = None,
    work_dir: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Folder (or URL) for logs and checkpoints. Default: the configuration's, or work_dirs/<its name>.",
        ),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="[auto|URL]",
            help="Continue from the newest checkpoint in the work folder that is whole, or from this one.",
        ),
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(help="async, or sync: hooks run inline, the first thing to try when debugging."),
    ] = None,
    device: Annotated[str | None, typer.Option(help="Where to train: cpu, cuda, cuda:1, ...")] = None,
    amp: Annotated[bool, typer.Option("--amp", help="Train in mixed precision: AmpOptimWrapper.")] = False,
    launcher: Annotated[
        str | None,
        typer.Option(
            metavar="[pytorch|none]",
            help="Whether this is one rank of several. Default: so it is under torchrun.",
        ),
    ] = None,
    local_rank: Annotated[int | None, typer.Option("--local_rank", "--local-rank", hidden=True)] = None,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of a wrong configuration.")
    ] = False,
) -> None:
    """Train as a configuration says: Runner.from_cfg(CONFIG).train().

    On several ranks: torchrun --nproc-per-node 2 -m asynchooks train CONFIG

    A configuration of MMCV 1.x's form (model, data, optimizer, lr_config, runner ...) is run by MMCV's runners, in
    one process.
    """
    from asynchooks._cli.train._run import Changes, run

    changes = Changes(work_dir=work_dir, resume=resume, mode=mode, device=device, amp=amp, launcher=launcher)
    if local_rank is not None:  # as older launchers say it
        os.environ.setdefault("LOCAL_RANK", str(local_rank))
    raise typer.Exit(run(config, cfg_options or (), changes, debug=debug))
