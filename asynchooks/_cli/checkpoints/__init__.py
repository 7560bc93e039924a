"""``asynchooks checkpoints``: what lies in a folder, whether it is whole, and what may go, from a terminal."""

from asynchooks._cli.checkpoints._commands import app

__all__ = ["app"]
