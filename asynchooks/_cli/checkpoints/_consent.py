"""Whether something may be deleted: asked on a terminal, demanded as an option everywhere else."""

from __future__ import annotations

import sys

import typer

__all__ = ["check_can_ask", "is_confirmed"]


def check_can_ask(*, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Fail before any work where the question could not be asked.

    Raises:
        typer.BadParameter: no terminal, and neither ``--yes`` nor ``--dry-run``.
    """
    if dry_run and yes:
        raise typer.BadParameter("give one of --dry-run and --yes.", param_hint="--yes")
    if not (dry_run or yes) and (as_json or not (sys.stdin.isatty() and sys.stdout.isatty())):
        raise typer.BadParameter(
            "there is no terminal to ask on: pass --yes to delete, or --dry-run to look.", param_hint="--yes"
        )


def is_confirmed(question: str, *, yes: bool) -> bool:
    """Ask, unless it is answered already; no is the default."""
    return yes or typer.confirm(question, default=False, err=True)
