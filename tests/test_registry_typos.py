"""A misspelled argument of any registered hook is an error when the hook is built, and names the right one.

The cases are read off the registries, so a hook that is added is covered.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import pytest
from torch.utils.data import DataLoader

from asynchooks.errors import UnknownOptionError, did_you_mean
from asynchooks.registry import HOOKS, MMCV_HOOKS, Registry, option_names


def built_in(registry: Registry, scope: str) -> Iterator[tuple[str, Any]]:
    for name in registry.names():
        kind = registry.get(name)
        package = "asynchooks.hooks.mmcv" if scope else "asynchooks.hooks"
        if isinstance(kind, type) and kind.__module__.startswith(package):
            yield scope + name, kind


KINDS = dict([*built_in(HOOKS, ""), *built_in(MMCV_HOOKS, "mmcv.")])
ARGUMENTS = [(name, argument) for name, kind in KINDS.items() for argument in option_names(kind)[0]]

VALUES: dict[str, Any] = {"dataloader": DataLoader([0])}  # type: ignore[arg-type]  # a list will do
# What resembles no argument of these is handed on: to the data set's evaluate(), to the client of a service.
HANDS_ON = {"mmcv.EvalHook", "mmcv.DistEvalHook", "mmcv.DvcliveLoggerHook"}


def misspelled(argument: str, known: list[str]) -> str:
    """Return the argument with a slip of the pen that is nearest to it, and no argument itself."""
    middle = max(1, len(argument) // 2)
    slips = [
        argument + argument[-1],
        argument[:middle] + argument[middle] + argument[middle:],
        argument + "s",
    ]
    return next(s for s in slips if s not in known and f"'{argument}'" in did_you_mean(s, known))


def needed(kind: Any) -> dict[str, Any]:
    """Return something for each argument that a class cannot do without: a value where it is looked at first."""
    parameters = inspect.signature(kind).parameters.values()
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {p.name: VALUES.get(p.name) for p in parameters if p.kind in named and p.default is p.empty}


@pytest.mark.parametrize(("name", "argument"), ARGUMENTS, ids=[".".join(each) for each in ARGUMENTS])
def test_a_misspelled_argument_is_refused_with_the_right_name(name: str, argument: str) -> None:
    kind = KINDS[name]
    slip = misspelled(argument, option_names(kind)[0])

    with pytest.raises(UnknownOptionError, match=rf"(?s)\b{kind.__name__}\b.*'{slip}'.*'{argument}'"):
        HOOKS.build({"type": name, **needed(kind), slip: None})


@pytest.mark.parametrize("name", sorted(KINDS.keys() - HANDS_ON))
def test_an_argument_that_resembles_none_is_refused_too(name: str) -> None:
    with pytest.raises(UnknownOptionError, match="zzz_no_such_thing"):
        HOOKS.build({"type": name, **needed(KINDS[name]), "zzz_no_such_thing": None})


def test_every_built_in_hook_is_among_the_cases() -> None:
    assert {"CheckpointHook", "LoggerHook", "IterTimerHook"} <= KINDS.keys()
    assert ("CheckpointHook", "max_keep_ckpts") in ARGUMENTS
