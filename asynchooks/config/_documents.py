"""YAML, JSON and TOML as data. Nothing is executed: YAML's tags for Python objects are errors.

A key that stands twice in one mapping is an error, where the formats' usual readers keep the last one in silence.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Hashable, Iterable
from typing import Any

import yaml

from asynchooks.config._merge import BASE
from asynchooks.errors import ConfigError

__all__ = ["READERS", "Document", "write_document"]


class Document:
    """A file of data: the bases that it names, and its entries.

    Raises:
        ConfigError: the text cannot be read, or holds no mapping; the message begins with the line.
    """

    def __init__(self, text: str, suffix: str) -> None:
        entries = READERS[suffix](text)
        if entries is None:
            entries = {}
        if not isinstance(entries, dict):
            raise ConfigError(f"expected a mapping of entries, not a {type(entries).__name__}")
        self.bases: Any = entries.pop(BASE, [])
        self._entries = entries

    def entries(self) -> dict[str, Any]:
        """Return the file's own entries."""
        return self._entries


class _YamlLoader(yaml.SafeLoader):
    """YAML's safe loader, for which ``1e-4`` is a number, and a key stands once."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002
        seen: set[Any] = set()
        for key, _ in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else None
            if name is not None and name != "<<":
                if name in seen:
                    raise ConfigError(f"line {key.start_mark.line + 1}: the key {name!r} stands there twice")
                seen.add(name)
        return super().construct_mapping(node, deep=deep)


_YamlLoader.add_implicit_resolver(  # YAML 1.1 takes `1e-4`, without a point, for a text
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+"), list("-+0123456789")
)


def _from_yaml(text: str) -> Any:
    try:
        return yaml.load(text, _YamlLoader)  # noqa: S506 - a safe loader
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f"line {error.problem_mark.line + 1}: "
        raise ConfigError(f"{line}no YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"no YAML: {error}") from error


def _from_json(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise ConfigError(f"line {error.lineno}: no JSON: {error.msg}") from error


def _from_toml(text: str) -> Any:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"no TOML: {error}") from error


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for key, value in pairs:
        if key in entries:
            raise ConfigError(f"the key {key!r} stands twice in one object")
        entries[key] = value
    return entries


READERS: dict[str, Callable[[str], Any]] = {
    ".yaml": _from_yaml,
    ".yml": _from_yaml,
    ".json": _from_json,
    ".toml": _from_toml,
}


def write_document(entries: dict[str, Any], suffix: str) -> str:
    """Return entries as YAML or JSON; what these cannot hold becomes its text, and a tuple a list.

    Raises:
        ConfigError: the suffix is of neither.
    """
    as_data = json.loads(json.dumps(entries, default=_as_text))
    if suffix == ".json":
        return json.dumps(as_data, indent=2) + "\n"
    if suffix in (".yaml", ".yml"):
        return yaml.safe_dump(as_data, sort_keys=False, allow_unicode=True)
    raise ConfigError(f"A configuration is written as .py, .yaml, .yml or .json, not {suffix!r}.")


def _as_text(value: Any) -> str:
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    return str(value)
