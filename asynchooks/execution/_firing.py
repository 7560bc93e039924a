"""A callable that fires one point: the shortest way from a loop to the methods of its hooks.

Decides when nobody needs to be asked: the plan is compiled, no step of it can wait, and nothing has failed or is
deferred. Everything else goes through `HookExecutor.fire`. The function is made from a template, as `dataclasses`
makes its own, so that it has the parameters of its point: arguments handed through as ``**arguments`` cost more than
the hooks themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from asynchooks.execution._foreground import add_origin, check_blocking_result
from asynchooks.execution._points import ARGUMENTS, COUNTED, STEP

if TYPE_CHECKING:
    from collections.abc import Callable

    from asynchooks.execution._flight import Flight
    from asynchooks.execution._plans import Cell

__all__ = ["bind_firing"]

_TEMPLATE = """
def firing(context{parameters}):
    methods = cell.methods
    if methods is None or flight.attention:
        fire(point, context{keywords})
        return
    if methods:
        cell.plan.firings += 1
        index = 0
        try:
            for method in methods:
                result = method(context{arguments})
                if result is not None:
                    check_blocking_result(cell.plan.steps[index], result)
                index += 1
        except BaseException as error:
            add_origin(error, cell.plan.steps[index])
            raise
{after}"""
_COUNT_STEP = """    flight.ledger.steps += 1
"""
_TELL_CONTEXT = """    fired = getattr(context, "hook_point_fired", None)
    if fired is not None:
        fired(point)
"""


class _Fires(Protocol):
    def fire(self, point: str, context: object, **arguments: Any) -> None: ...


def bind_firing(executor: _Fires, point: str, cell: Cell, flight: Flight) -> Callable[..., None]:
    """Return the callable of `HookExecutor.firing`."""
    names = ARGUMENTS.get(point, ())
    source = _TEMPLATE.format(
        parameters="".join(f", {name}=None" for name in names),
        keywords="".join(f", {name}={name}" for name in names),
        arguments="".join(f", {name}" for name in names),
        after=(_COUNT_STEP if point == STEP else "") + (_TELL_CONTEXT if point in COUNTED else ""),
    )
    namespace: dict[str, Any] = {
        "cell": cell,
        "flight": flight,
        "point": point,
        "fire": executor.fire,
        "add_origin": add_origin,
        "check_blocking_result": check_blocking_result,
    }
    exec(compile(source, f"<firing of {point}>", "exec"), namespace)  # noqa: S102 - our own template and names
    firing: Callable[..., None] = namespace["firing"]
    return firing
