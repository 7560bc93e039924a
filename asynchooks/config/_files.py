"""A file with everything that it inherits: ``_base_``, at any depth, across formats.

Decides which files belong together and in which order they are merged; how their entries merge is `_merge`'s.
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asynchooks.config import _templates
from asynchooks.config._dict import ConfigDict, plain
from asynchooks.config._documents import READERS, Document
from asynchooks.config._merge import BASE, DEPRECATION, merged
from asynchooks.config._script import ReadBase, Script
from asynchooks.errors import ConfigError, DuplicateNameError

__all__ = ["Loaded", "Substitutions", "load"]

SUFFIXES = (".py", *READERS)


@dataclass(frozen=True, slots=True)
class Substitutions:
    """What in double braces is replaced: facts about the file, variables of the environment."""

    file: bool = True
    environment: bool = True


@dataclass(frozen=True, slots=True)
class Loaded:
    """A file and its bases, merged.

    Attributes:
        entries: the result, plain dicts.
        origins: for each entry the files that have set it, the first of the bases first.
        text: the files' texts, bases first, each below its path.
        environment: the variables of the environment that were used.
    """

    entries: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, tuple[Path, ...]] = field(default_factory=dict)
    text: str = ""
    environment: dict[str, str] = field(default_factory=dict)


def load(
    file: str | os.PathLike[str],
    substitutions: Substitutions,
    *,
    text: str | None = None,
    chain: tuple[Path, ...] = (),
) -> Loaded:
    """Load a file and what it inherits.

    Args:
        file: path.
        substitutions: what is replaced in the texts.
        text: its text, where there is no such file.
        chain: the files that led here by inheritance.

    Raises:
        ConfigError: a file is missing, cannot be read, inherits from itself, or contradicts its bases; the message
            names it, and the line where that is known.
        DuplicateNameError: (a KeyError) two bases have set the same entry.
    """
    path = Path(os.path.abspath(os.path.expanduser(file)))  # noqa: PTH100, PTH111 - links are kept, `..` is not
    _check_cycle(path, chain)
    original = _read(path, chain) if text is None else text
    with _naming(path):
        source, environment = _parse(original, path, substitutions)
        names = _base_names(source.bases)
    chain = (*chain, path)
    bases = [load(_find(name, path), substitutions, chain=chain) for name in names]
    read = _read_bases(getattr(source, "reads", ()), path, substitutions, chain)
    with _naming(path):
        inherited = _joined(bases)
        base = ConfigDict(inherited.entries)
        own = source.entries(base, read) if isinstance(source, Script) else source.entries()
        own = _templates.resolve_marks(plain(own), base)
        _warn_of_deprecation(own.pop(DEPRECATION, None), path)
        entries = merged(own, plain(base))
    origins = {key: inherited.origins.get(key, ()) + ((path,) if key in own else ()) for key in entries}
    texts = [*(each.text for each in bases), f"{path}\n{original}"]
    return Loaded(entries, origins, "\n".join(texts), {**inherited.environment, **environment})


def _warn_of_deprecation(deprecation: Any, path: Path) -> None:
    """Tell what a file says about its own end: ``_deprecation_ = dict(expected=..., reference=...)``."""
    if isinstance(deprecation, Mapping):
        hints = "".join(f" {key}: {value}." for key, value in deprecation.items())
        warnings.warn(f"The configuration {path} is deprecated.{hints}", FutureWarning, stacklevel=4)


def _parse(text: str, path: Path, substitutions: Substitutions) -> tuple[Script | Document, dict[str, str]]:
    used: dict[str, str] = {}
    if substitutions.file:
        text = _templates.fill_in_file(text, path)
    if substitutions.environment:
        text, used = _templates.fill_in_environment(text, os.environ)
    text = _templates.mark_references(text)
    return (Script(text, path) if path.suffix == ".py" else Document(text, path.suffix)), used


def _read(path: Path, chain: tuple[Path, ...]) -> str:
    by = f", which {chain[-1]} inherits from," if chain else ""
    if path.suffix not in SUFFIXES:
        raise ConfigError(
            f"{path}{by} is no configuration: its name ends with none of {', '.join(SUFFIXES)}."
        )
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"The configuration {path}{by} does not exist.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The configuration {path}{by} cannot be read: {error}.") from error


def _check_cycle(path: Path, chain: tuple[Path, ...]) -> None:
    for index, each in enumerate(chain):
        if each == path or (path.exists() and each.exists() and each.samefile(path)):
            way = " -> ".join(map(str, [*chain[index:], path]))
            raise ConfigError(f"A configuration inherits from itself: {way}.")


def _base_names(bases: Any) -> list[str]:
    names = list(bases) if isinstance(bases, list | tuple) else [bases]
    for name in names:
        if not isinstance(name, str):
            raise ConfigError(f"{BASE} is a path or a list of paths, not {bases!r}.")
    return names


def _find(name: str, path: Path) -> Path:
    """Return the file that a ``_base_`` names: relative to the file, or ``package::path`` in a package's configs."""
    package, colons, inside = name.partition("::")
    if not colons:
        return path.parent / Path(name).expanduser()
    for folder in _folders_of(package):
        for configs in (folder / ".mim" / "configs", folder / "configs"):
            if (configs / inside).is_file():
                return configs / inside
    raise ConfigError(
        f"{path}: {BASE} names {name!r}, but no package {package!r} with such a file in its configs is installed."
    )


def _folders_of(package: str) -> list[Path]:
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    return [] if spec is None else list(map(Path, spec.submodule_search_locations or ()))


def _joined(bases: Sequence[Loaded]) -> Loaded:
    """Put several bases together; an entry that two have is one only where both took it from the same file."""
    result = Loaded()
    for base in bases:
        for key in base.entries:
            before, now = result.origins.get(key, base.origins[key]), base.origins[key]
            if before != now:
                raise DuplicateNameError(
                    f"two bases set {key!r}: {before[-1]} and {now[-1]}. Leave it out of one of them, or let one "
                    f"inherit from the other."
                )
        result.entries.update(base.entries)
        result.origins.update(base.origins)
        result.environment.update(base.environment)
    return result


def _read_bases(
    reads: Sequence[ReadBase], path: Path, substitutions: Substitutions, chain: tuple[Path, ...]
) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    for read in reads:
        with _naming(path):
            file = _file_of(read, path)
        loaded = load(file, substitutions, chain=chain)
        with _naming(path):
            found |= read.select(loaded.entries)
    return ConfigDict(found)


def _file_of(read: ReadBase, path: Path) -> Path:
    if read.level:
        return path.parent.joinpath(*[".."] * (read.level - 1), read.relative_path)
    package = read.module.partition(".")[0]
    for folder in _folders_of(package):
        file = folder.parent / read.relative_path
        if file.is_file():
            return file
    raise ConfigError(f"line {read.line}: {read.module} is no file of an installed package")


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Begin the messages of errors with the file."""
    try:
        yield
    except ConfigError as error:
        separator = ", " if str(error).startswith("line ") else ": "
        raise type(error)(f"{path}{separator}{error}") from error.__cause__
