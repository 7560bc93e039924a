"""The ``asynchooks`` command. Importing it loads no torch: each command loads what it needs."""

from asynchooks._cli._app import main

__all__ = ["main"]
