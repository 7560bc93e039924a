"""The command and its options. Importing it loads no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["EXIT_CODES", "hooks"]

EXIT_CODES = "Exit codes: 0 shown; 2 no such hook, or the configuration is wrong; 3 its store refuses."


def hooks(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME|CONFIG",
            help="A hook, to show with its arguments; or a configuration file, to show how its hooks run.",
            show_default=False,
        ),
    ] = None,
    name_filter: Annotated[
        str | None, typer.Option("--filter", metavar="TEXT", help="Only hooks with this in their names.")
    ] = None,
    cfg_options: Annotated[
        list[str] | None,
        typer.Option("--cfg-options", metavar="KEY=VALUE ...", help="Entries of CONFIG that change."),
    ] = None,
    imports: Annotated[
        list[str] | None,
        typer.Option(
            "--import", metavar="MODULE", help="Import a module that registers hooks; may be repeated."
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else there.")
    ] = False,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the catalogue of the built-in hooks as tables.")
    ] = False,
    update: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Put these tables between the marks of a file.", dir_okay=False),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Show the registered hooks, one of them, or the compiled plan of a configuration.

    The plan says for each hook point: the hooks in their bands of priority, how each runs, what overlaps with what,
    and where the training thread may wait, for whom and by which rule. Builds no data set and trains nothing; a
    Python configuration is executed, and the model and the hooks are built.
    """
    from asynchooks._cli._configured import blaming_config, import_from_here
    from asynchooks._cli.hooks._show import show_catalogue, show_hook, show_plan, write_markdown

    with blaming_config(debug=debug):
        import_from_here(imports or ())
        if as_markdown or update is not None:
            write_markdown(update)
        elif target is None:
            show_catalogue(name_filter, as_json=as_json)
        elif _is_file(target):
            show_plan(target, cfg_options or (), as_json=as_json)
        else:
            show_hook(target, as_json=as_json)


def _is_file(target: str) -> bool:
    return Path(target).suffix in (".py", ".yaml", ".yml", ".json", ".toml")
