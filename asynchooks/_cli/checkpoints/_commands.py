"""The commands and their options. Importing it loads no torch: each command loads its own module."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

from asynchooks._cli.checkpoints._options import parse_age, parse_best, parse_storage_options
from asynchooks._cli.checkpoints._outcome import EXIT_CODES, run_command

__all__ = ["app"]

app = typer.Typer(
    help="List, verify and clean up what lies in a checkpoint folder, on any store.\n\n" + EXIT_CODES,
    no_args_is_help=True,
)

Folder: TypeAlias = Annotated[
    str,
    typer.Argument(metavar="URL", help="A run's folder: a path, s3://bucket/run, ...", show_default=False),
]
FolderOrCheckpoint: TypeAlias = Annotated[
    str,
    typer.Argument(metavar="URL", help="A run's folder, or one checkpoint in it.", show_default=False),
]
OptionsJson: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--storage-options",
        metavar="JSON",
        help="The store's options as a JSON object, or @FILE. The environment (AWS_...) fills the gaps.",
    ),
]
OptionPairs: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("-o", "--option", metavar="KEY=VALUE", help="One storage option; may be repeated."),
]
AsJson: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else there.")
]
Debug: TypeAlias = Annotated[
    bool, typer.Option("--debug", help="Show log lines, and the traceback of an error.")
]
DryRun: TypeAlias = Annotated[bool, typer.Option("--dry-run", help="Only tell what would go.")]
Yes: TypeAlias = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@app.command("list", epilog=EXIT_CODES)
def list_(
    url: Folder,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read each checkpoint and compare checksums.")
    ] = False,
    storage_options: OptionsJson = None,
    option: OptionPairs = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show the committed checkpoints of a folder, and what else lies there and why it is none.

    A checkpoint is committed when its manifest and the size of its data fit; --verify reads every byte.
    """
    options = parse_storage_options(storage_options, option or ())

    from asynchooks._cli.checkpoints._list import list_folder

    raise typer.Exit(
        run_command(lambda: list_folder(url, options, verify=verify, as_json=as_json), debug=debug)
    )


@app.command(epilog=EXIT_CODES)
def verify(
    url: FolderOrCheckpoint,
    all_: Annotated[bool, typer.Option("--all", help="All checkpoints of the folder: the default.")] = False,
    latest: Annotated[bool, typer.Option("--latest", help="Only the newest.")] = False,
    storage_options: OptionsJson = None,
    option: OptionPairs = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Read checkpoints whole and compare sizes and checksums with their manifests. Loads nothing.

    In a folder, data that no longer fits its manifest counts as damaged too.
    """
    if all_ and latest:
        raise typer.BadParameter("give one of --all and --latest.", param_hint="--latest")
    options = parse_storage_options(storage_options, option or ())

    from asynchooks._cli.checkpoints._verify import verify_at

    raise typer.Exit(
        run_command(lambda: verify_at(url, options, every=all_, latest=latest, as_json=as_json), debug=debug)
    )


@app.command("restore-check", epilog=EXIT_CODES)
def restore_check(
    url: FolderOrCheckpoint,
    keys: Annotated[bool, typer.Option("--keys", help="Show every tensor.")] = False,
    storage_options: OptionsJson = None,
    option: OptionPairs = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Load what resume="auto" would take, or the checkpoint that is named, and say whether a run could resume.

    Exits with 0 if it could, also when it passes over newer ones that are damaged. Loads with weights_only, which
    runs no code from the file. Needs memory for the whole checkpoint.
    """
    options = parse_storage_options(storage_options, option or ())

    from asynchooks._cli.checkpoints._restore_check import check_restore

    raise typer.Exit(
        run_command(lambda: check_restore(url, options, keys=keys, as_json=as_json), debug=debug)
    )


@app.command(epilog=EXIT_CODES)
def prune(
    url: Folder,
    keep_last: Annotated[int | None, typer.Option(min=1, metavar="N", help="Keep the newest N.")] = None,
    keep_every_steps: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Keep those at a multiple of N steps.")
    ] = None,
    keep_every_epochs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Keep those at a multiple of N epochs.")
    ] = None,
    keep_best: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METRIC:RULE[:N]",
            help="Keep the N best by a metric, such as acc:greater:3 or loss:less; may be repeated.",
        ),
    ] = None,
    run: Annotated[
        str | None, typer.Option(metavar="RUN_ID", help="Only this run; the start of its id is enough.")
    ] = None,
    group: Annotated[str | None, typer.Option(metavar="GROUP", help="Only this retention group.")] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    storage_options: OptionsJson = None,
    option: OptionPairs = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Delete committed checkpoints that no --keep-... option keeps. Shows what goes and why the rest stays, and asks.

    Each run and group is judged on its own. Its newest always stays, and what a pointer names; the newest is read and
    verified before anything goes. Without a terminal to ask on, --yes or --dry-run is needed.
    """
    options = parse_storage_options(storage_options, option or ())
    best = [parse_best(text) for text in keep_best or ()]
    if keep_last is None and keep_every_steps is None and keep_every_epochs is None and not best:
        raise typer.BadParameter(
            "say what to keep: --keep-last, --keep-every-steps, --keep-every-epochs or --keep-best.",
            param_hint="--keep-...",
        )

    from asynchooks._cli.checkpoints._prune import Pruning, policy_of, prune_folder

    policy = policy_of(last=keep_last, steps=keep_every_steps, epochs=keep_every_epochs, best=best)
    pruning = Pruning(url, options, policy, [one.metric for one in best], run, group)
    raise typer.Exit(
        run_command(lambda: prune_folder(pruning, dry_run=dry_run, yes=yes, as_json=as_json), debug=debug)
    )


@app.command(epilog=EXIT_CODES)
def sweep(
    url: Folder,
    older_than: Annotated[
        str,
        typer.Option(
            metavar="AGE",
            help="Only what was last written so long ago: 90s, 30m, 12h, 1d. Longer than any save takes.",
        ),
    ] = "1d",
    dry_run: DryRun = False,
    yes: Yes = False,
    storage_options: OptionsJson = None,
    option: OptionPairs = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Remove what killed runs left behind, and finish what they had begun. Shows it, and asks.

    Touches only what is provably a leftover of this package. Without a terminal to ask on, --yes or --dry-run is
    needed.
    """
    options = parse_storage_options(storage_options, option or ())
    older_than_s = parse_age(older_than)

    from asynchooks._cli.checkpoints._sweep import sweep_folder

    raise typer.Exit(
        run_command(
            lambda: sweep_folder(url, options, older_than_s, dry_run=dry_run, yes=yes, as_json=as_json),
            debug=debug,
        )
    )
