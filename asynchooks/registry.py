"""Registries: from the name in a config dict to the class, and from its options to an object.

Decides which names exist and whether a class takes the options it is given, and says so when the object is
built, not when it is first used. Knows no hook and no tensor: a registry imports the module that fills it
when it is first asked.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from asynchooks.errors import (
    AsyncHooksError,
    ConfigError,
    DuplicateNameError,
    UnknownNameError,
    UnknownOptionError,
    did_you_mean,
)

__all__ = [
    "DATASETS",
    "DATA_SAMPLERS",
    "FUNCTIONS",
    "HOOKS",
    "LOG_PROCESSORS",
    "LOOPS",
    "METRICS",
    "MMCV_HOOKS",
    "MODELS",
    "OPTIMIZERS",
    "OPTIM_WRAPPERS",
    "OPTIM_WRAPPER_CONSTRUCTORS",
    "PARAM_SCHEDULERS",
    "RUNNERS",
    "Registry",
    "STRATEGIES",
    "TRANSFORMS",
    "VISBACKENDS",
    "VISUALIZERS",
    "check_handed_on",
    "check_options",
    "option_names",
]

Buildable: TypeAlias = Callable[..., Any]
_B = TypeVar("_B", bound=Buildable)

# Names that widely copied documents spell wrongly; the right one may be too far for a near match.
_SLIPS = {
    "OptimizerWrapper": "OptimWrapper",
    "SyncBufferHook": "SyncBuffersHook",
    "TextLoggerHook": "LoggerHook",
    "CheckPointHook": "CheckpointHook",
}


class Registry:
    """Maps names to classes, within a scope, under an optional parent that is asked next.

    A child registry belongs to another project: ``Registry("hook", parent=HOOKS, scope="mydet")``. It is
    asked first for a bare name and its parent after it; from anywhere in the family ``"mydet.MyHook"`` names
    its entry.

    Args:
        name: what the entries are, in the singular ("hook"); used in messages.
        parent: registry that is asked for what this one does not hold.
        scope: the family name of the entries; the caller's top-level package where it is left out.
        locations: modules whose import fills this registry; imported when it is first asked.
        stands_for: scopes of other projects whose entries this registry holds under the same names; a child with
            such a scope wins.
    """

    def __init__(
        self,
        name: str,
        *,
        parent: Registry | None = None,
        scope: str | None = None,
        locations: Sequence[str] = (),
        stands_for: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.parent = parent
        self.scope = scope if scope is not None else _calling_package()
        self.children: dict[str, Registry] = {}
        self._entries: dict[str, Buildable] = {}
        self._locations = tuple(locations)
        self._stands_for = tuple(stands_for)
        self._filled = not locations
        if "." in self.scope:
            raise ConfigError(f"A scope is one word, not {self.scope!r}.")
        if parent is not None:
            if self.scope in parent.children:
                raise DuplicateNameError(f"{parent!r} has a child with the scope {self.scope!r} already.")
            parent.children[self.scope] = self

    def register_module(
        self,
        name: str | Sequence[str] | None = None,
        force: bool = False,  # noqa: FBT001, FBT002 - MMEngine's signature
        module: Buildable | None = None,
    ) -> Any:
        """Register a class or function, as a decorator or, with ``module``, at once; return it.

        Raises:
            DuplicateNameError: (a KeyError) another object has this name, and ``force`` is not set.
            TypeError: used as a bare decorator, or the object cannot be called.
        """
        if name is not None and not isinstance(name, str | Sequence):
            raise TypeError(
                f"register_module takes a name, not {name!r}. Write `@...register_module()` with parentheses."
            )
        if module is not None:
            return self._register(module, name, force=force)
        return lambda decorated: self._register(decorated, name, force=force)

    def get(self, name: str, *, scope: str | None = None) -> Buildable:
        """Return what is registered under a name, here or in the family.

        Args:
            name: a bare name, or ``"scope.Name"``.
            scope: scope that is asked first for a bare name.

        Raises:
            UnknownNameError: (a KeyError) nothing is.
        """
        found = self._find(name, scope)
        if found is None:
            raise UnknownNameError(self._unknown(name))
        return found

    def build(self, cfg: Mapping[str, Any], *, scope: str | None = None, **provided: Any) -> Any:
        """Build the object that a config dict describes; the dict is not changed.

        Args:
            cfg: ``{"type": name or class, **options}``.
            scope: scope that is asked first for a bare name.
            provided: arguments that the caller adds; options of the same name win.

        Raises:
            UnknownNameError: the type is not registered.
            UnknownOptionError: the class takes no such option.
            ConfigError: ``type`` is missing, or a needed argument is.
        """
        target, options = self.resolve(cfg, scope=scope)
        arguments = {**provided, **options}
        check_options(target, arguments)
        try:
            return target(**arguments)
        except AsyncHooksError:
            raise
        except TypeError as error:
            raise _explain(target, arguments, error) from error
        except Exception as error:  # whatever the class raises goes on, with the config it came from
            error.add_note(f"while building the {self.name} {_name_of(target)} from {dict(cfg)!r}")
            raise

    def check(
        self, cfg: Mapping[str, Any], *, scope: str | None = None, provided: Iterable[str] = ()
    ) -> None:
        """Raise what `build` would raise about names and options, without building anything."""
        target, options = self.resolve(cfg, scope=scope)
        check_options(target, {**dict.fromkeys(provided), **options})

    def resolve(
        self, cfg: Mapping[str, Any], *, scope: str | None = None
    ) -> tuple[Buildable, dict[str, Any]]:
        """Return the class that a config dict names, and a copy of its options; its ``_scope_`` wins."""
        if not isinstance(cfg, Mapping):
            raise ConfigError(f"A {self.name} is configured by a dict such as dict(type=...), not {cfg!r}.")
        options = dict(cfg)
        scope = options.pop("_scope_", scope)
        kind = options.pop("type", None)
        if kind is None:
            raise ConfigError(
                f"dict(type=...) says which {self.name} to build; 'type' is missing in {cfg!r}."
            )
        if isinstance(kind, str):
            return self.get(kind, scope=scope), options
        if not callable(kind):
            raise ConfigError(f"The type of a {self.name} is a registered name or a class, not {kind!r}.")
        return kind, options

    def names(self) -> list[str]:
        """Return the names that a bare name may have here, own entries and the parents', sorted."""
        self._fill()
        inherited = self.parent.names() if self.parent else []
        return sorted({*self._entries, *inherited})

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._find(name, None) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        self._fill()
        return len(self._entries)

    def __repr__(self) -> str:
        return f"Registry({self.name!r}, scope={self.scope!r}, {len(self._entries)} entries)"

    def _register(self, module: _B, name: str | Sequence[str] | None, *, force: bool) -> _B:
        if not callable(module):
            raise TypeError(f"A {self.name} is a class or a function, not {module!r}.")
        names = [_name_of(module)] if name is None else [name] if isinstance(name, str) else list(name)
        for each in names:
            present = self._entries.get(each)
            if present is not None and present is not module and not force:
                raise DuplicateNameError(
                    f"The {self.name} {each!r} is registered already, as {present!r}. "
                    f"Choose another name, or pass force=True to replace it."
                )
            self._entries[each] = module
        return module

    def _find(self, name: str, scope: str | None) -> Buildable | None:
        if "." in name:
            family, _, bare = name.partition(".")
            member = self._root()._member(family)  # noqa: SLF001 - its own kind
            return member._own(bare) if member else None  # noqa: SLF001
        if scope is not None and (member := self._root()._descendant(scope)):  # noqa: SLF001
            return member._find(name, None)  # noqa: SLF001
        own = self._own(name)
        return own if own is not None or self.parent is None else self.parent._find(name, None)  # noqa: SLF001

    def _own(self, name: str) -> Buildable | None:
        self._fill()
        return self._entries.get(name)

    def _fill(self) -> None:
        if not self._filled:
            self._filled = True  # before the imports: they may ask this registry
            for location in self._locations:
                importlib.import_module(location)

    def _root(self) -> Registry:
        return self if self.parent is None else self.parent._root()  # noqa: SLF001

    def _descendant(self, scope: str) -> Registry | None:
        if scope == self.scope:
            return self
        found = (child._descendant(scope) for child in self.children.values())  # noqa: SLF001
        return next((each for each in found if each is not None), None)

    def _member(self, scope: str) -> Registry | None:
        """Return who answers for a scope: a registry of that scope, or this root where it stands for it."""
        found = self._descendant(scope)
        return self if found is None and scope in self._stands_for else found

    def _family_names(self) -> Iterator[str]:
        self._fill()
        for child in self.children.values():
            yield from child._family_names()  # noqa: SLF001
        for name in self._entries:
            yield name if self.parent is None else f"{self.scope}.{name}"

    def _unknown(self, name: str) -> str:
        known = sorted({*self.names(), *self._root()._family_names()})  # noqa: SLF001
        if name in _SLIPS:
            hint = f" It is spelled {_SLIPS[name]!r}."
        else:
            elsewhere = [each for each in known if each.rpartition(".")[2] == name]
            scope = name.rpartition(".")[0]
            if elsewhere:
                hint = f" Did you mean {elsewhere[0]!r}?"
            elif scope and self._root()._member(scope) is None:  # noqa: SLF001 - its own kind
                hint = did_you_mean(name, known, cutoff=0.85) or (
                    f" Nothing is registered for {scope!r}: import the module that does it, which "
                    f"custom_imports=dict(imports=[...]) does too, or leave the entry out."
                )
            else:
                hint = did_you_mean(name, known)
        listed = ", ".join(known[:30]) + (", ..." if len(known) > 30 else "")
        return f"No {self.name} is called {name!r}.{hint} Known: {listed or 'none'}."


def option_names(target: Buildable) -> tuple[list[str], bool]:
    """Return the argument names that a class or function takes, and whether it may take others too.

    Where ``__init__`` takes ``**kwargs``, the names of its base classes' constructors are added; whether
    ``kwargs`` go there is not knowable from outside, so such a class is said to take others too.
    """
    mro = target.__mro__[:-1] if isinstance(target, type) else ()  # the last one, object, takes nothing
    inits = [vars(base)["__init__"] for base in mro if "__init__" in vars(base)]
    names: list[str] = []
    for function in inits or [target]:
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except (TypeError, ValueError):  # a constructor in C without a signature
            return names, True
        named = [p for p in (parameters[1:] if inits else parameters) if p.kind in _BY_NAME]
        names += [p.name for p in named if p.name not in names]
        if all(p.kind is not inspect.Parameter.VAR_KEYWORD for p in parameters):
            return names, function is not (inits or [target])[0]
    return names, True


def check_options(target: Buildable, options: Mapping[str, Any], *, also: Iterable[str] = ()) -> None:
    """Raise if a class or function does not take one of the options, or needs one that is not there.

    Args:
        target: what will be called with the options.
        options: the keyword arguments.
        also: further names to suggest for a misspelled option.

    Raises:
        UnknownOptionError: it takes no such argument.
        ConfigError: it needs an argument that is missing.
    """
    names, open_ended = option_names(target)
    unknown = [] if open_ended else [name for name in options if name not in names]
    if unknown:
        raise UnknownOptionError(_no_such_option(target, unknown[0], [*dict.fromkeys([*names, *also])]))
    missing = [name for name in _required(target) if name not in options]
    if missing:
        raise ConfigError(
            f"{_name_of(target)} needs {', '.join(map(repr, missing))}; it got {list(options)}."
        )


def check_handed_on(target: Buildable, options: Iterable[str]) -> None:
    """Raise if one of the options that a class hands on to another is a slip of an argument of its own.

    Raises:
        UnknownOptionError: it is nearly one.
    """
    names, _ = option_names(target)
    for name in options:
        if hint := did_you_mean(name, names, cutoff=0.87):
            raise UnknownOptionError(f"{_name_of(target)} takes no argument {name!r}.{hint}")


_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def _required(target: Buildable) -> list[str]:
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return []
    return [p.name for p in parameters if p.kind in _BY_NAME and p.default is inspect.Parameter.empty]


def _explain(target: Buildable, arguments: Mapping[str, Any], error: TypeError) -> TypeError:
    """Turn Python's complaint about one of our arguments into ours; return any other TypeError as it is."""
    for name in arguments:
        if f"unexpected keyword argument '{name}'" in str(error):
            return UnknownOptionError(_no_such_option(target, name, option_names(target)[0]))
    error.add_note(f"while building {_name_of(target)} with {sorted(arguments)}")
    return error


def _no_such_option(target: Buildable, name: str, names: Sequence[str]) -> str:
    takes = ", ".join(names) if names else "no arguments"
    return f"{_name_of(target)} takes no argument {name!r}.{did_you_mean(name, names)} It takes: {takes}."


def _name_of(target: Buildable) -> str:
    return getattr(target, "__name__", None) or repr(target)


def _calling_package() -> str:
    frame = inspect.currentframe()
    for _ in range(2):  # this function, the constructor
        frame = frame.f_back if frame else None
    return str(frame.f_globals.get("__name__", "__main__")).partition(".")[0] if frame else "__main__"


# Configurations of these projects name what is here by their own scopes: `mmdet.CheckInvalidLossHook`.
_OPENMMLAB = ("mmengine", "mmdet", "mmyolo")


def _registry(name: str, *locations: str) -> Registry:
    return Registry(name, scope="asynchooks", locations=locations, stands_for=_OPENMMLAB)


HOOKS = _registry("hook", "asynchooks.hooks")
# MMCV 1.x has hooks of the same names with other arguments, so its names have a scope: `mmcv.EMAHook`.
MMCV_HOOKS = Registry("hook", parent=HOOKS, scope="mmcv", locations=["asynchooks.hooks.mmcv"])
MODELS = _registry("model", "asynchooks.optim")
DATASETS = _registry("dataset")
DATA_SAMPLERS = _registry("data sampler", "asynchooks.runner")
TRANSFORMS = _registry("transform", "asynchooks.data")
FUNCTIONS = _registry("function", "asynchooks.runner")
OPTIMIZERS = _registry("optimizer", "asynchooks.optim")
OPTIM_WRAPPERS = _registry("optimizer wrapper", "asynchooks.optim")
OPTIM_WRAPPER_CONSTRUCTORS = _registry("optimizer wrapper constructor", "asynchooks.optim")
PARAM_SCHEDULERS = _registry("parameter scheduler", "asynchooks.optim")
METRICS = _registry("metric")
LOOPS = _registry("loop", "asynchooks.runner")
RUNNERS = _registry("runner", "asynchooks.runner")
STRATEGIES = _registry("strategy", "asynchooks.runner")
LOG_PROCESSORS = _registry("log processor", "asynchooks.runner")
VISUALIZERS = _registry("visualizer", "asynchooks.visualization")
VISBACKENDS = _registry("visualization backend", "asynchooks.visualization")
