"""What stands in double braces in a file: facts about the file, the environment, entries of the bases. Pure.

Replaces text before the file is read. A reference to a base becomes a mark, since its value is known later.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from asynchooks.config._merge import BASE
from asynchooks.errors import ConfigError, UnknownNameError, did_you_mean

__all__ = ["base_entry", "fill_in_environment", "fill_in_file", "mark_references", "resolve_marks"]

_ENVIRONMENT = re.compile(r"""\{\{['"]?\s*\$(\w+)\s*:\s*(\S*?)\s*['"]?\}\}""")
_REFERENCE = re.compile(rf"""(["']?)\{{\{{\s*{BASE}\.([\w.]+)\s*\}}\}}\1""")
_MARK = re.compile(rf"<{BASE}:([\w.]+)>")


def fill_in_file(text: str, file: Path) -> str:
    """Replace ``{{ fileDirname }}`` and its like by facts about the file."""
    facts = {
        "fileDirname": file.parent.as_posix(),
        "fileBasename": file.name,
        "fileBasenameNoExtension": file.stem,
        "fileExtname": file.suffix,
    }
    names = "|".join(facts)
    return re.sub(rf"\{{\{{\s*({names})\s*\}}\}}", lambda match: facts[match[1]], text)


def fill_in_environment(text: str, environment: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Replace ``{{$NAME:default}}``; return the text, and the variables that were used.

    Raises:
        UnknownNameError: (a KeyError) a variable is not set, and has no default.
    """
    used: dict[str, str] = {}

    def value(match: re.Match[str]) -> str:
        name, default = match[1], match[2]
        if name in environment:
            used[name] = environment[name]
        elif not default:
            raise UnknownNameError(
                f"the environment variable {name} is not set, and {match[0]} has no default"
            )
        return used.get(name, default)

    return _ENVIRONMENT.sub(value, text), used


def mark_references(text: str) -> str:
    """Replace ``{{ _base_.x.y }}``, with or without quotes, by a text that `resolve_marks` finds again."""
    return _REFERENCE.sub(lambda match: f'"<{BASE}:{match[2]}>"', text)


def resolve_marks(value: Any, base: Mapping[str, Any]) -> Any:
    """Return a value with the bases' entries in the place of their marks.

    Raises:
        UnknownNameError: (a KeyError) no base has such an entry.
        ConfigError: a reference is only a part of a text.
    """
    if isinstance(value, dict):
        return {key: resolve_marks(each, base) for key, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(resolve_marks(each, base) for each in value)
    if not isinstance(value, str):
        return value
    if match := _MARK.fullmatch(value):
        return base_entry(base, match[1])
    if match := _MARK.search(value):
        raise ConfigError(
            f"{{{{ {BASE}.{match[1]} }}}} is a part of a text; it stands for a whole value. In a Python file, write "
            f"an f-string: f'...{{{BASE}.{match[1]}}}'"
        )
    return value


def base_entry(base: Mapping[str, Any], path: str) -> Any:
    """Return the entry of the bases at a dotted path.

    Raises:
        UnknownNameError: (a KeyError) there is none.
    """
    value: Any = base
    for name in path.split("."):
        if isinstance(value, Mapping) and name in value:
            value = value[name]
        elif isinstance(value, list | tuple) and name.isdigit() and int(name) < len(value):
            value = value[int(name)]
        else:
            known = list(map(str, value)) if isinstance(value, Mapping) else []
            raise UnknownNameError(f"{BASE}.{path}: no base has {name!r} there.{did_you_mean(name, known)}")
    return value
