"""``KEY=VALUE`` as it stands on a command line, for ``--cfg-options``. Pure.

Numbers, booleans and None are read as such, ``a,b`` and ``[a,b]`` as a list, ``(a,b)`` as a tuple, ``{...}`` as a
Python literal, and what stands in quotes as the text between them.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterable, Sequence
from typing import Any

from asynchooks.errors import ConfigError

__all__ = ["DictAction", "parse_options"]

_CONSTANTS = {"true": True, "false": False}
_OPENING = {"(": ")", "[": "]", "{": "}"}


class DictAction(argparse.Action):
    """For scripts with argparse: ``add_argument("--cfg-options", nargs="+", action=DictAction)``."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Add the options to those that came before."""
        given = [values] if isinstance(values, str) else list(values or ())
        try:
            options = parse_options(given)
        except ConfigError as error:
            parser.error(str(error))
        setattr(namespace, self.dest, {**(getattr(namespace, self.dest, None) or {}), **options})


def parse_options(pairs: Iterable[str]) -> dict[str, Any]:
    """Return the options of ``key.of.entry=value`` texts.

    Raises:
        ConfigError: a text is no such pair, or its brackets or quotes do not close.
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not all(key.split(".")):
            raise ConfigError(f"A config option is KEY=VALUE, such as train_cfg.max_epochs=3, not {pair!r}.")
        try:
            options[key] = _value(text.strip())
        except ValueError as error:
            raise ConfigError(f"The value of the config option {pair!r} cannot be read: {error}.") from None
    return options


def _value(text: str) -> Any:
    if text.startswith("{"):
        return _literal(text)
    if len(items := _split(text)) > 1:
        return [_value(item) for item in items if item]
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    if text.startswith("[") and text.endswith("]"):
        return [_value(item) for item in _split(text[1:-1]) if item]
    if text.startswith("(") and text.endswith(")"):
        return tuple(_value(item) for item in _split(text[1:-1]) if item)
    return _scalar(text)


def _scalar(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return None if text == "None" else _CONSTANTS.get(text.lower(), text)


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        raise ValueError(f"{text} is no Python literal") from None


def _split(text: str) -> list[str]:
    """Split at the commas that stand outside of brackets and quotes."""
    items: list[str] = []
    waiting: list[str] = []  # the signs that close what is open
    start = 0
    for index, sign in enumerate(text):
        if waiting and waiting[-1] in "'\"":
            if sign == waiting[-1]:
                waiting.pop()
        elif waiting and sign == waiting[-1]:
            waiting.pop()
        elif sign in _OPENING or (sign in "'\"" and not text[start:index].strip(" [(")):
            waiting.append(_OPENING.get(sign, sign))
        elif sign == "," and not waiting:
            items.append(text[start:index].strip())
            start = index + 1
    if waiting:
        raise ValueError(f"{waiting[-1]} is missing")
    return [*items, text[start:].strip()]
