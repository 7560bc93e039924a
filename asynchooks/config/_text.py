"""A configuration as the text of a Python file that says the same, in the order of its entries. Pure.

The order is kept, not sorted: hooks of equal priority run in it. What has no literal form becomes an import where it
is a class or function of a module, and its ``repr`` in quotes otherwise, so that the text is always valid Python.
"""

from __future__ import annotations

import keyword
import math
import sys
from collections.abc import Iterable, Mapping
from typing import Any
from unicodedata import is_normalized

__all__ = ["python_text"]

_WIDTH = 100
_INDENT = "    "


def python_text(entries: Mapping[str, Any]) -> str:
    """Return assignments, one per entry, below the imports that they need."""
    imports: set[str] = set()
    lines = [f"{name} = {_written(value, '', imports, len(name) + 3)}" for name, value in entries.items()]
    head = [*sorted(imports), ""] if imports else []
    return "\n".join([*head, *lines]) + "\n"


def _written(value: Any, indent: str, imports: set[str], used: int) -> str:
    """Write a value on one line where it fits, and otherwise one item per line."""
    if isinstance(value, Mapping):
        items, brackets = _items_of_dict(value, indent + _INDENT, imports)
    elif type(value) in (list, tuple):
        items = [_written(each, indent + _INDENT, imports, len(indent) + 4) for each in value]
        brackets = ("[", "]") if isinstance(value, list) else ("(", ",)" if len(value) == 1 else ")")
    else:
        return _atom(value, imports)
    line = f"{brackets[0]}{', '.join(items)}{brackets[1]}"
    if not items or (len(indent) + used + len(line) <= _WIDTH and "\n" not in line):
        return line
    inner = "".join(f"{indent}{_INDENT}{item},\n" for item in items)
    return f"{brackets[0]}\n{inner}{indent}{brackets[1][-1]}"


def _items_of_dict(
    entries: Mapping[Any, Any], indent: str, imports: set[str]
) -> tuple[list[str], tuple[str, str]]:
    if all(isinstance(key, str) and _is_name(key) for key in entries):
        names: Iterable[str] = [f"{key}=" for key in entries]
        brackets = ("dict(", ")")
    else:
        names = [f"{_atom(key, imports)}: " for key in entries]
        brackets = ("{", "}")
    items = [
        name + _written(value, indent, imports, len(indent) + len(name))
        for name, value in zip(names, entries.values(), strict=True)
    ]
    return items, brackets


def _atom(value: Any, imports: set[str]) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return f"float({str(value)!r})"
    if value is None or type(value) in (bool, int, float, complex, str, bytes):
        return repr(value)
    return _imported(value, imports) or repr(repr(value))


def _is_name(key: str) -> bool:
    """Whether Python takes it for a name, and for this one: it reads names in their NFKC form."""
    return key.isidentifier() and not keyword.iskeyword(key) and is_normalized("NFKC", key)


def _imported(value: Any, imports: set[str]) -> str | None:
    """Return the name of a class or function that can be imported, and note the import."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", "")
    if not isinstance(module, str) or not _is_name(name):
        return None
    if getattr(sys.modules.get(module), name, None) is not value:
        return None
    if module != "builtins":
        imports.add(f"from {module} import {name}")
    return name
