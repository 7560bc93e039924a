"""What the commands' options mean: storage options, ages, the best by a metric. Pure, but for ``@FILE``.

A message never repeats the value of a storage option, which may be a credential.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Best", "parse_age", "parse_best", "parse_storage_options"]

_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])")
_BEST = re.compile(r"(.+):(greater|less)(?::(\d+))?")
_UNIT_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 24 * 3600.0}
_SWITCHES = {"true": True, "false": False}


class Best(NamedTuple):
    """The `n` best by a metric."""

    metric: str
    rule: Literal["greater", "less"]
    n: int


def parse_storage_options(document: str | None, pairs: Sequence[str]) -> dict[str, Any]:
    """Return the options of ``--storage-options`` with those of ``-o`` over them.

    In ``-o KEY=VALUE`` a value is a text, but for ``true`` and ``false``.
    """
    options = _from_document(document) if document is not None else {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise typer.BadParameter("expected KEY=VALUE, such as endpoint_url=https://...", param_hint="-o")
        options[key] = _SWITCHES.get(value, value)
    return options


def parse_age(text: str) -> float:
    """Return an age such as ``36h`` in seconds."""
    match = _AGE.fullmatch(text.strip())
    if match is None:
        raise typer.BadParameter(f"{text!r} is no age such as 90s, 30m, 12h or 1d.")
    return float(match[1]) * _UNIT_S[match[2]]


def parse_best(text: str) -> Best:
    """Return the parts of ``METRIC:RULE[:N]``; a metric may hold colons."""
    match = _BEST.fullmatch(text)
    if match is None or match[3] == "0":
        raise typer.BadParameter(
            f"{text!r} is not METRIC:greater:N or METRIC:less:N, such as val/acc:greater:3."
        )
    return Best(match[1], cast("Literal['greater', 'less']", match[2]), int(match[3] or 1))


def _from_document(document: str) -> dict[str, Any]:
    hint = "--storage-options"
    if document.startswith("@"):
        try:
            document = Path(document[1:]).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise typer.BadParameter(
                f"{document[1:]} cannot be read: {type(error).__name__}.", param_hint=hint
            ) from None
    try:
        options = json.loads(document)
    except ValueError:
        raise typer.BadParameter("no JSON; expected an object, or @FILE.", param_hint=hint) from None
    if not isinstance(options, dict):
        raise typer.BadParameter(f"expected a JSON object, not a {type(options).__name__}.", param_hint=hint)
    return options
