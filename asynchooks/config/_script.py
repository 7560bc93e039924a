"""Python files as configurations: code, which is executed, and whose variables are the entries.

Decides which of the names that a script leaves behind are entries: what it imports, and the functions and classes
that it defines, are not.
"""

from __future__ import annotations

import ast
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType, NoneType
from typing import Any

from asynchooks.config._merge import BASE
from asynchooks.errors import ConfigError

__all__ = ["ReadBase", "Script", "read_base"]

_MARKER = "read_base"
_DATA = (str, bytes, int, float, complex, list, tuple, dict, set, frozenset, NoneType)
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@contextmanager
def read_base() -> Iterator[None]:
    """Mark the imports below it as inheritance from other configuration files.

    `Config.fromfile` reads the files and never calls it; for editors, the imports are what they look like.

    Example:
        >>> with read_base():
        ...     from .base import *
    """
    yield


@dataclass(frozen=True, slots=True)
class ReadBase:
    """``from <module> import <names>`` inside of ``with read_base():``.

    Attributes:
        line: where it stands.
        level: the number of leading dots.
        module: the module below them.
        names: pairs of a name there and its name here; empty for ``*``.
    """

    line: int
    level: int
    module: str
    names: tuple[tuple[str, str], ...]

    @property
    def relative_path(self) -> Path:
        """The file, seen from the folder that the dots (but for the first) lead to."""
        return Path(*self.module.split(".")).with_suffix(".py")

    def select(self, entries: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the statement takes over.

        Raises:
            ConfigError: a name is no entry of that file.
        """
        for name, _ in self.names:
            if name not in entries:
                raise ConfigError(f"line {self.line}: {self.module} has no entry {name!r}")
        return {here: entries[there] for there, here in self.names} if self.names else dict(entries)


class Script:
    """A Python file: the bases that it names, in both of MMEngine's ways, and its entries.

    Attributes:
        bases: the value of its ``_base_``.
        reads: what it imports inside of ``with read_base():``.

    Raises:
        ConfigError: the text is no Python; the message begins with the line.
    """

    def __init__(self, text: str, file: Path) -> None:
        self._file = str(file)
        try:
            tree = ast.parse(text, self._file)
        except SyntaxError as error:
            raise ConfigError(f"line {error.lineno}: no Python: {error.msg}") from error
        self.bases: Any = next(map(_value_of_base, filter(_sets_base, tree.body)), [])
        self.reads = [read for node in tree.body if _is_read_base(node) for read in _reads(node)]
        tree.body = [node for node in tree.body if not _is_directive(node)]
        self._bound = set(_bound_by_statements(tree))
        self._code = compile(tree, self._file, "exec", dont_inherit=True)

    def entries(self, base: Any, read: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Execute the file and return its entries.

        Args:
            base: what ``_base_`` is in the file; it may change it.
            read: what its `reads` have brought.

        Raises:
            ConfigError: the code has raised; the message begins with the line.
        """
        names: dict[str, Any] = {"__name__": Path(self._file).stem, "__file__": self._file, BASE: base}
        names.update(read or {})
        try:
            exec(self._code, names)  # noqa: S102 - a Python file is code, as the documentation says
        except Exception as error:
            raise ConfigError(f"line {_line(error, self._file)}: {type(error).__name__}: {error}") from error
        return {name: value for name, value in names.items() if self._is_entry(name, value)}

    def _is_entry(self, name: str, value: Any) -> bool:
        if name.startswith("__") or name == BASE or isinstance(value, ModuleType | FunctionType):
            return False
        return name not in self._bound or isinstance(value, _DATA)


def _sets_base(node: ast.stmt) -> bool:
    if isinstance(node, ast.Assign):
        return any(isinstance(target, ast.Name) and target.id == BASE for target in node.targets)
    return isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == BASE


def _value_of_base(node: ast.stmt) -> Any:
    assert isinstance(node, ast.Assign | ast.AnnAssign)  # noqa: S101 - filtered
    value = node.value or ast.List(elts=[], ctx=ast.Load())
    try:
        code = compile(
            ast.fix_missing_locations(ast.Expression(body=value)), "_base_", "eval", dont_inherit=True
        )
        return eval(code, {})  # noqa: S307 - an expression of a Python file
    except Exception as error:
        raise ConfigError(
            f"line {node.lineno}: {BASE} is a text or a list of texts that stands for itself, without variables: "
            f"{error}"
        ) from error


def _is_read_base(node: ast.stmt) -> bool:
    if not isinstance(node, ast.With) or len(node.items) != 1:
        return False
    call = node.items[0].context_expr
    return isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == _MARKER


def _is_directive(node: ast.stmt) -> bool:
    """Whether a statement is for the reader of the file, and is not executed."""
    imports_marker = isinstance(node, ast.ImportFrom) and [n.name for n in node.names] == [_MARKER]
    return imports_marker or _sets_base(node) or _is_read_base(node)


def _reads(node: ast.stmt) -> Iterator[ReadBase]:
    for statement in getattr(node, "body", ()):
        if not isinstance(statement, ast.ImportFrom) or statement.module is None:
            raise ConfigError(
                f"line {statement.lineno}: inside of `with {_MARKER}():` stands `from <file> import <names>` alone"
            )
        names = tuple((alias.name, alias.asname or alias.name) for alias in statement.names)
        everything = names == (("*", "*"),)
        yield ReadBase(statement.lineno, statement.level, statement.module, () if everything else names)


def _bound_by_statements(tree: ast.Module) -> Iterable[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                yield alias.asname or alias.name.partition(".")[0]
        elif isinstance(node, _DEFINITIONS):
            yield node.name


def _line(error: BaseException, file: str) -> int | str:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return lines[-1] if lines and lines[-1] is not None else "?"
