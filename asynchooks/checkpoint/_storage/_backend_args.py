"""A store's options as MMEngine's and MMCV's users write them.

Decides the old name, the key that only MMEngine needs, and the words of the errors; who takes the argument is the
caller's to say. What the options mean is decided when the store is opened.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from asynchooks.errors import ConfigError

__all__ = ["store_options"]


def store_options(taker: str, backend_args: Any, file_client_args: Any = None) -> dict[str, Any]:
    """The options to open a store with, from an argument ``backend_args`` or, as MMCV named it, ``file_client_args``.

    `taker` names the class that was given them, in messages.

    Raises:
        ConfigError: both were given.
        TypeError: no mapping.
    """
    if file_client_args is not None:
        if backend_args is not None:
            raise ConfigError(
                f"{taker}: file_client_args is the old name of backend_args; give backend_args alone."
            )
        warnings.warn(
            f"{taker}: file_client_args is the old name of backend_args.", DeprecationWarning, stacklevel=3
        )
        backend_args = file_client_args
    if not isinstance(backend_args, Mapping | None):
        raise TypeError(f"{taker}(backend_args={backend_args!r}): give a dict of fsspec's options.")
    return {str(key): value for key, value in (backend_args or {}).items() if key != "backend"}
