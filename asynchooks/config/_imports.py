"""``custom_imports``: the modules that a configuration asks for, whose import registers what it names."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from asynchooks.errors import ConfigError, CustomImportError, UnknownOptionError, did_you_mean

__all__ = ["import_modules"]

_OPTIONS = ("imports", "allow_failed_imports")


def import_modules(custom_imports: Any, *, source: str | None = None) -> list[ModuleType | None]:
    """Import modules, and return them.

    Args:
        custom_imports: ``dict(imports=["my_pkg.hooks"], allow_failed_imports=False)``; one name may stand alone.
        source: the file that asks for them, for messages.

    Returns:
        The modules; None for one that cannot be imported, where ``allow_failed_imports`` is set: a warning tells.

    Raises:
        CustomImportError: (an ImportError) a module cannot be imported.
        ConfigError: the entry is no such dict.
    """
    where = "custom_imports" if source is None else f"{source}: custom_imports"
    names, allow_failure = _checked(custom_imports, where)
    return [_import(name, where, allow_failure=allow_failure) for name in names]


def _checked(custom_imports: Any, where: str) -> tuple[list[str], bool]:
    if not isinstance(custom_imports, Mapping):
        raise ConfigError(
            f"{where} is a dict such as dict(imports=['my_pkg.hooks'], allow_failed_imports=False), not "
            f"{custom_imports!r}."
        )
    for option in custom_imports:
        if option not in _OPTIONS:
            raise UnknownOptionError(
                f"{where} has no option {option!r}.{did_you_mean(str(option), _OPTIONS)} It has: "
                f"{', '.join(_OPTIONS)}."
            )
    imports = custom_imports.get("imports") or []
    names = [imports] if isinstance(imports, str) else imports
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{where}: imports is a module's name, or a list of them, not {imports!r}.")
    return list(names), bool(custom_imports.get("allow_failed_imports", False))


def _import(name: str, where: str, *, allow_failure: bool) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        if allow_failure:
            warnings.warn(f"{where}: {name} cannot be imported and is left out: {error}", stacklevel=4)
            return None
        raise CustomImportError(
            f"{where}: {name!r} cannot be imported: {error}. Its folder has to be on Python's path (PYTHONPATH), or "
            f"the package installed."
        ) from error
