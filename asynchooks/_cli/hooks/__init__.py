"""``asynchooks hooks``: which hooks there are, and how those of a configuration run together."""

from asynchooks._cli.hooks._command import EXIT_CODES, hooks

__all__ = ["EXIT_CODES", "hooks"]
