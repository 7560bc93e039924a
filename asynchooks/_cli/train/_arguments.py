"""Options as scripts with argparse take them: several values after one name, and a name that may stand alone.

``--cfg-options a=1 b=2`` and ``--resume`` without a value are what users of MMEngine's scripts type.
"""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

__all__ = ["ArgparseStyle", "with_values"]

_SEVERAL = "--cfg-options"
_OPTIONAL = {"--resume": "auto"}
_CONFIG_SUFFIXES = (".py", ".yaml", ".yml", ".json", ".toml")


class ArgparseStyle(TyperCommand):
    """A command whose options are first written out, one value each."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments."""
        return super().parse_args(ctx, with_values(args))


def with_values(arguments: list[str]) -> list[str]:
    """Return the arguments with one value for each option. Pure."""
    result: list[str] = []
    position = 0
    while position < len(arguments):
        argument = arguments[position]
        position += 1
        if argument == _SEVERAL:
            if not _is_value(arguments, position):
                result.append(f"{_SEVERAL}=")  # where the pairs are read, the empty one is refused
            while _is_value(arguments, position):
                result += [_SEVERAL, arguments[position]]
                position += 1
        elif argument in _OPTIONAL and not _is_value(arguments, position):
            result += [argument, _OPTIONAL[argument]]
        elif argument in _OPTIONAL:
            result += [argument, arguments[position]]
            position += 1
        else:
            result.append(argument)
    return result


def _is_value(arguments: list[str], position: int) -> bool:
    """Whether what stands there is a value of the option before it: not the next option, nor the configuration."""
    if position >= len(arguments) or arguments[position].startswith("-"):
        return False
    return "=" in arguments[position] or not arguments[position].endswith(_CONFIG_SUFFIXES)
