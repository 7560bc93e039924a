"""The registered hooks as facts, read off their classes.

A class is asked without building one, except for effects that its constructor sets: these are a default hook's, where
it can be built without arguments.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from asynchooks.execution import POINTS, Effects, get_priority, shapes_of
from asynchooks.registry import HOOKS, Registry

if TYPE_CHECKING:
    from asynchooks.execution._hook import Shape

__all__ = ["Argument", "Entry", "catalogue", "paragraph_of"]


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument of a hook's constructor; ``default`` is its text, or None where it is needed."""

    name: str
    default: str | None


@dataclass(frozen=True, slots=True)
class Entry:
    """A registered hook.

    Attributes:
        name: as configurations name it, with the scope of a child registry (``mmcv.``).
        kind: the class.
        priority: 0 to 100.
        shapes: for each point at which it does something, how its method runs.
        effects: what it touches; None is unknown.
        by_arguments: whether its arguments decide what it touches; ``effects`` are the default's then.
        fires: the points that its background parts fire.
        changes_state: whether it may change training state.
        on_error, when_busy: see `asynchooks.Hook`.
        arguments: those of its constructor.
        takes_others: whether it may take arguments that are not known by name.
    """

    name: str
    kind: type
    priority: int
    shapes: dict[str, Shape]
    effects: Effects | None
    by_arguments: bool
    fires: tuple[str, ...]
    changes_state: bool
    on_error: str
    when_busy: str
    arguments: tuple[Argument, ...]
    takes_others: bool

    @property
    def is_builtin(self) -> bool:
        """Whether it comes with this package."""
        return self.kind.__module__.startswith("asynchooks.hooks.")

    @property
    def blocking(self) -> tuple[str, ...]:
        """The points at which it runs on the training thread, whole."""
        return tuple(point for point, shape in self.shapes.items() if shape == "blocking")

    @property
    def background(self) -> tuple[str, ...]:
        """The points at which it may leave work for the background."""
        return tuple(point for point, shape in self.shapes.items() if shape != "blocking")


def catalogue() -> list[Entry]:
    """Return every registered hook class of HOOKS and its children, by scope, priority and name."""
    entries = [_entry(name, kind) for name, kind in _family(HOOKS, "")]
    return sorted(entries, key=lambda entry: (entry.name.rpartition(".")[0], entry.priority, entry.name))


def paragraph_of(kind: type) -> str:
    """Return the first paragraph of a class's docstring on one line."""
    return " ".join((inspect.getdoc(kind) or "").partition("\n\n")[0].split())


def _family(registry: Registry, scope: str) -> Iterator[tuple[str, type]]:
    """Yield the classes of a registry and of its children, under the names that configurations give them."""
    inherited = registry.parent
    for name in registry.names():
        kind = registry.get(name)
        is_own = inherited is None or name not in inherited or inherited.get(name) is not kind
        if isinstance(kind, type) and is_own:
            yield f"{scope}{name}", kind
    for child in registry.children.values():
        yield from _family(child, f"{child.scope}.")


def _entry(name: str, kind: type) -> Entry:
    arguments, takes_others = _arguments(kind)
    by_arguments = _sets(kind, "effects")
    shapes = shapes_of(kind)
    return Entry(
        name=name,
        kind=kind,
        priority=get_priority(getattr(kind, "priority", "NORMAL")),
        shapes={point: shapes[point] for point in POINTS if point in shapes},
        effects=_default_effects(kind) if by_arguments else getattr(kind, "effects", None),
        by_arguments=by_arguments,
        fires=tuple(getattr(kind, "fires", ())),
        changes_state=bool(getattr(kind, "changes_state", True)),
        on_error=_default_of("on_error", arguments, kind, "raise"),
        when_busy=_default_of("when_busy", arguments, kind, "wait"),
        arguments=arguments,
        takes_others=takes_others,
    )


def _arguments(kind: type) -> tuple[tuple[Argument, ...], bool]:
    """Return the arguments by name, and whether there may be others.

    Hooks take ``**unknown`` to name misspelled arguments; such a name takes nothing.
    """
    try:
        parameters = inspect.signature(kind).parameters.values()
    except (TypeError, ValueError):  # no signature
        return (), True
    named = tuple(
        Argument(p.name, None if p.default is p.empty else repr(p.default))
        for p in parameters
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    )
    return named, any(p.kind is p.VAR_KEYWORD and p.name != "unknown" for p in parameters)


def _default_of(name: str, arguments: tuple[Argument, ...], kind: type, otherwise: str) -> str:
    given = [argument.default for argument in arguments if argument.name == name and argument.default]
    return given[0].strip("'") if given else str(getattr(kind, name, otherwise))


def _sets(kind: type, attribute: str) -> bool:
    """Whether a constructor of the class names an attribute, to set it."""
    inits: list[Any] = [vars(base)["__init__"] for base in kind.__mro__ if "__init__" in vars(base)]
    codes = [getattr(inspect.unwrap(init), "__code__", None) for init in inits]
    return any(code is not None and attribute in code.co_names for code in codes)


def _default_effects(kind: type) -> Effects | None:
    try:
        effects = getattr(kind(), "effects", None)
    except Exception:  # noqa: BLE001 - a hook that cannot be built without arguments; its class is asked instead
        effects = getattr(kind, "effects", None)
    return effects if isinstance(effects, Effects) else None
