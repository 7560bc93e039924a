"""The hooks of MMCV 1.x, for its runners: registered as `mmcv.<Name>`, one per module; none knows another.

A hook is added by writing its module: what this folder holds is found, registered and importable from here.
"""

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

_found = {
    name: vars(module)[name]
    for module in (import_module(f"{__name__}.{m.name}") for m in iter_modules(__path__) if m.name[0] != "_")
    for name in module.__all__
}
globals().update(_found)
__all__ = sorted(_found)  # noqa: PLE0605 - what the modules say


def __getattr__(name: str) -> Any:
    raise AttributeError(f"module {__name__!r} has no hook {name!r}")
