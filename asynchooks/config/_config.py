"""`Config`: a configuration as its users hold it: entries as attributes, where it came from, its text."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any, Self

from asynchooks.config._dict import ConfigDict, plain
from asynchooks.config._documents import write_document
from asynchooks.config._files import Substitutions, load
from asynchooks.config._imports import import_modules
from asynchooks.config._merge import merged, nested
from asynchooks.config._text import python_text
from asynchooks.errors import ConfigError

__all__ = ["Config"]

_RESERVED = ("filename", "text", "pretty_text", "env_variables")


class Config(MutableMapping[str, Any]):
    """A configuration: a mapping whose entries are attributes too.

    Args:
        cfg_dict: the entries.
        cfg_text: the text that they were read from.
        filename: the file that they were read from.
        env_variables: variables of the environment that the file used.

    Raises:
        ConfigError: the entries are no mapping, or one has a name that a Config needs for itself.

    Example:
        >>> cfg = Config(dict(model=dict(depth=50)))
        >>> cfg.merge_from_dict({"model.depth": 18})
        >>> cfg.model.depth
        18
    """

    _cfg_dict: ConfigDict
    _filename: str | None
    _text: str
    _env_variables: dict[str, str]

    def __init__(
        self,
        cfg_dict: Mapping[str, Any] | None = None,
        cfg_text: str | None = None,
        filename: str | os.PathLike[str] | None = None,
        env_variables: Mapping[str, str] | None = None,
    ) -> None:
        if cfg_dict is not None and not isinstance(cfg_dict, Mapping):
            raise ConfigError(f"A configuration is a dict of entries, not {cfg_dict!r}.")
        entries = dict(cfg_dict or {})
        for name in _RESERVED:
            if name in entries:
                raise ConfigError(f"{name!r} cannot be an entry of a configuration: cfg.{name} is its own.")
        self.__dict__["_cfg_dict"] = ConfigDict(plain(entries))
        self.__dict__["_filename"] = None if filename is None else os.fspath(filename)
        self.__dict__["_text"] = cfg_text or ""
        self.__dict__["_env_variables"] = dict(env_variables or {})

    @classmethod
    def fromfile(
        cls,
        filename: str | os.PathLike[str],
        *,
        use_predefined_variables: bool = True,
        import_custom_modules: bool = True,
        use_environment_variables: bool = True,
    ) -> Self:
        """Read a file (``.py``, ``.yaml``, ``.yml``, ``.json``, ``.toml``) and what it inherits from.

        A Python file is code and is executed; nothing is executed from the other formats, but for the imports that
        their ``custom_imports`` asks for.

        Args:
            filename: path.
            use_predefined_variables: whether ``{{ fileBasename }}`` and its like are replaced.
            import_custom_modules: whether what ``custom_imports`` names is imported.
            use_environment_variables: whether ``{{$NAME:default}}`` is replaced.

        Raises:
            ConfigError: a file is missing or wrong; the message names it, and line and key where they are known.
            CustomImportError: (an ImportError) a module of ``custom_imports`` cannot be imported.
        """
        substitutions = Substitutions(file=use_predefined_variables, environment=use_environment_variables)
        loaded = load(filename, substitutions)
        if import_custom_modules and loaded.entries.get("custom_imports"):
            import_modules(loaded.entries["custom_imports"], source=os.fspath(filename))
        try:
            return cls(loaded.entries, loaded.text, filename, loaded.environment)
        except ConfigError as error:
            raise ConfigError(f"{os.fspath(filename)}: {error}") from None

    @classmethod
    def fromstring(cls, cfg_str: str, file_format: str) -> Self:
        """Read a configuration from its text.

        Args:
            cfg_str: the text; a relative ``_base_`` counts from the current folder.
            file_format: ``.py``, ``.yaml``, ``.yml``, ``.json`` or ``.toml``.
        """
        loaded = load(f"<text>{file_format}", Substitutions(), text=cfg_str)
        return cls(loaded.entries, loaded.text, None, loaded.environment)

    def merge_from_dict(self, options: Mapping[str, Any]) -> None:
        """Change entries: ``{"model.depth": 18, "train_pipeline.0.scale": 2, "optimizer": dict(_delete_=True)}``.

        Dicts merge as a child file merges into its base; the options are not changed.

        Raises:
            ConfigError: a dict meets a value that is none.
            UnknownNameError: (a KeyError) an index lies outside of a list.
        """
        self.__dict__["_cfg_dict"] = ConfigDict(merged(nested(options), self._cfg_dict.to_dict()))

    @property
    def filename(self) -> str | None:
        """The file that this was read from."""
        return self._filename

    @property
    def text(self) -> str:
        """The texts of the files that this was read from, bases first."""
        return self._text

    @property
    def env_variables(self) -> dict[str, str]:
        """The variables of the environment that the files used."""
        return self._env_variables

    @property
    def pretty_text(self) -> str:
        """The entries as the text of a Python file, in their order."""
        return python_text(self._cfg_dict)

    def dump(self, file: str | os.PathLike[str] | None = None) -> str | None:
        """Write the entries to a file, in the format of its suffix; without a file, return the text.

        The text has the format of ``filename``, and is Python where there is none. A ``.py`` file can be read again
        as it was; YAML and JSON hold no tuples and no classes.
        """
        suffix = Path(file if file is not None else self._filename or "cfg.py").suffix
        suffix = ".py" if suffix == ".toml" and file is None else suffix
        text = self.pretty_text if suffix == ".py" else write_document(self.to_dict(), suffix)
        if file is None:
            return text
        Path(file).write_text(text, encoding="utf-8")
        return None

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts, all the way down."""
        return self._cfg_dict.to_dict()

    def copy(self) -> Self:
        """Return a copy of the entries; what they hold besides dicts and lists is shared."""
        return type(self)(self._cfg_dict, self._text, self._filename, self._env_variables)

    __copy__ = copy

    def __getattr__(self, name: str) -> Any:
        if name in (
            "_cfg_dict",
            "_filename",
            "_text",
            "_env_variables",
        ):  # not there yet: while it is unpickled
            raise AttributeError(name)
        return getattr(self._cfg_dict, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if hasattr(type(self), name):
            raise AttributeError(f"{name!r} is a Config's own; write cfg[{name!r}] = ... for an entry.")
        setattr(self._cfg_dict, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._cfg_dict, name)

    def __getitem__(self, name: str) -> Any:
        return self._cfg_dict[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self._cfg_dict[name] = value

    def __delitem__(self, name: str) -> None:
        del self._cfg_dict[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._cfg_dict)

    def __len__(self) -> int:
        return len(self._cfg_dict)

    def __repr__(self) -> str:
        return f"Config (path: {self._filename}): {self.to_dict()!r}"
