"""What the executor knows of a registered hook, checked when it is registered.

Decides whether an object can be a hook as it is; a mistake that can be known here is never left for the run.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from functools import partial
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from asynchooks.errors import HookDefinitionError, UnknownOptionError, did_you_mean
from asynchooks.execution._effects import Effects
from asynchooks.execution._hook import Hook, OnError, WhenBusy, overridden_method, shape_of
from asynchooks.execution._points import ARGUMENTS, POINTS, check_point_name, nearest_point
from asynchooks.execution._priority import PriorityLike, get_priority, priority_name

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["HookMode", "Registration", "check_choice", "check_positive", "registration_of"]

HookMode: TypeAlias = Literal["background"]

_FUNCTIONS = (FunctionType, MethodType, staticmethod, classmethod, partial)


@dataclass(frozen=True, slots=True, eq=False)
class Registration:
    """A hook as it was registered.

    Attributes:
        hook: the instance.
        name: its class name, as errors and statistics show it.
        number: order of registration, which breaks ties of priority.
        priority: 0 (first) to 100.
        effects: what the hook says it touches; None is unknown.
        fires: points that its background parts fire.
        changes_state: its foreground parts may change training state.
        on_error: what a background failure does.
        when_busy: what happens when there is no room.
        max_in_flight: the hook's own limit of background parts, or None.
        in_background: blocking methods run in a worker thread (``register(..., mode="background")``).
        has_background: some method that could be fired as a point, custom ones included, has a background part.
        methods: the points that it defines, as far as they were known.
    """

    hook: object
    name: str
    number: int
    priority: int
    effects: Effects | None
    fires: tuple[str, ...]
    changes_state: bool
    on_error: OnError
    when_busy: WhenBusy
    max_in_flight: int | None
    in_background: bool
    has_background: bool = False
    methods: frozenset[str] = field(default_factory=frozenset)

    def __str__(self) -> str:
        return f"{self.name} ({priority_name(self.priority)})"


def registration_of(
    hook: object,
    *,
    number: int,
    priority: PriorityLike | None,
    mode: HookMode | None,
    custom_points: Collection[str],
) -> Registration:
    """Check a hook and return what the executor needs to know of it.

    Raises:
        HookDefinitionError: the object, one of its methods or one of its attributes cannot work.
        UnknownOptionError: ``mode``, ``on_error`` or ``when_busy`` is no known word.
        ValueError, TypeError, UnknownNameError: the priority is none.
    """
    if isinstance(hook, type):
        raise HookDefinitionError(f"{hook.__name__} is a class; register an instance: {hook.__name__}(...).")
    name = type(hook).__name__
    if mode is not None:
        check_choice(f"register({name}, mode=...)", mode, get_args(HookMode))
    methods = _check_methods(hook, name, custom_points)
    effects = getattr(hook, "effects", None)
    if not isinstance(effects, Effects | None):
        raise HookDefinitionError(
            f"{name}.effects is {effects!r}; give Effects(reads={{...}}, writes={{...}}) or None."
        )
    fires = getattr(hook, "fires", ())
    if isinstance(fires, str):
        raise HookDefinitionError(f"{name}.fires is a string; give a tuple of points: ({fires!r},).")
    changes_state = getattr(hook, "changes_state", True)
    if not isinstance(changes_state, bool):
        raise HookDefinitionError(
            f"{name}.changes_state is {changes_state!r}; give False for a hook that changes no tensor of the "
            f"training state, or True."
        )
    own_limit = getattr(hook, "max_in_flight", None)
    if own_limit is not None and (
        isinstance(own_limit, bool) or not isinstance(own_limit, int) or own_limit < 1
    ):
        raise HookDefinitionError(f"{name}.max_in_flight is {own_limit!r}; give an int >= 1, or None.")
    if priority is None:
        priority = getattr(hook, "priority", "NORMAL")
    return Registration(
        hook=hook,
        name=name,
        number=number,
        priority=get_priority(priority),
        effects=effects,
        fires=tuple(check_point_name(point) for point in fires),
        changes_state=changes_state,
        on_error=check_choice(f"{name}.on_error", getattr(hook, "on_error", "raise"), get_args(OnError)),
        when_busy=check_choice(f"{name}.when_busy", getattr(hook, "when_busy", "wait"), get_args(WhenBusy)),
        max_in_flight=own_limit,
        in_background=mode == "background",
        has_background=mode == "background" or _has_background(hook),
        methods=methods,
    )


def check_choice(what: str, value: Any, choices: tuple[str, ...]) -> Any:
    """Return ``value`` if it is one of ``choices``; raise `UnknownOptionError` otherwise."""
    if value in choices:
        return value
    known = " or ".join(repr(choice) for choice in choices)
    raise UnknownOptionError(f"{what} is {value!r}; give {known}.{did_you_mean(str(value), choices)}")


def check_positive(name: str, value: Any, kind: type[int | float]) -> Any:
    """Return ``value`` if it is a positive number of the kind; raise ValueError otherwise."""
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float) if kind is float else kind)
        or not value > 0
    ):
        raise ValueError(f"HookExecutor({name}={value!r}): give a positive {kind.__name__}.")
    return value


def _has_background(hook: object) -> bool:
    """Whether a public method is async or a capture: a custom point is known only when it is fired."""
    for name in dir(hook):
        attribute = inspect.getattr_static(hook, name, None)  # no property runs
        if not name.startswith("_") and isinstance(attribute, _FUNCTIONS):
            method: Any = attribute
            if shape_of(method) != "blocking":
                return True
    return False


def _check_methods(hook: object, name: str, custom_points: Collection[str]) -> frozenset[str]:
    for attribute in dir(hook):
        if attribute in custom_points or not attribute.startswith(("before_", "after_")):
            continue
        meant = nearest_point(attribute)
        if meant is not None and callable(getattr(hook, attribute, None)):
            raise HookDefinitionError(
                f"{name}.{attribute} is at no hook point, so it would never run. Did you mean {meant!r}? "
                f"(A custom point of this name: declare it with HookExecutor(points={{{attribute!r}}}).)"
            )
    found: set[str] = set()
    for point in (*POINTS, *custom_points):
        found_there = getattr(hook, point, None)
        if found_there is not None and not callable(found_there):
            raise HookDefinitionError(f"{name}.{point} is {found_there!r}; a hook point needs a method.")
        overridden = overridden_method(hook, point)
        if overridden is not None:
            found.add(point)
            _check_method(name, point, *overridden)
    if not found and not isinstance(hook, Hook):
        raise HookDefinitionError(
            f"{name} has no method named after a hook point ({POINTS[0]}, {POINTS[4]}, ...), so it would never "
            f"run. A hook with custom points only: subclass Hook, or declare HookExecutor(points=...)."
        )
    return frozenset(found)


def _check_method(name: str, point: str, method: Any, mode: str | None) -> None:
    if inspect.isgeneratorfunction(method) or inspect.isasyncgenfunction(method):
        raise HookDefinitionError(
            f"{name}.{point} is a generator: calling it would run nothing. Use return instead of yield."
        )
    arguments = dict.fromkeys(ARGUMENTS.get(point, ()))
    if mode is not None:
        arguments = {k: v for k, v in arguments.items() if k != "metrics"} | {"mode": None}
    try:
        signature = inspect.signature(method)
    except ValueError:  # a builtin without a signature: only the call can tell
        return
    try:
        signature.bind(None, **arguments)
    except TypeError as error:
        expected = ", ".join(["runner", *arguments])
        raise HookDefinitionError(
            f"{name}.{point}{signature} cannot be called as this point is fired, with ({expected}): {error}."
        ) from None
