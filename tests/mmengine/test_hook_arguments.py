"""Every hook of MMEngine is here, under its name, with its priority, its arguments and their defaults."""

from __future__ import annotations

import inspect
from typing import Any

import mmengine.hooks
import pytest
from mmengine.runner.priority import get_priority as their_priority

from asynchooks.execution import get_priority
from asynchooks.registry import HOOKS

NOT_HERE = {
    "Hook",  # the base class: asynchooks.execution.Hook
    "NPUProfilerHook",  # for Ascend's processors
}
NAMES = sorted(set(mmengine.hooks.__all__) - NOT_HERE)
VARIADIC = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)


def arguments(kind: Any) -> dict[str, inspect.Parameter]:
    parameters = list(inspect.signature(kind).parameters.values())
    return {parameter.name: parameter for parameter in parameters if parameter.kind not in VARIADIC}


@pytest.mark.parametrize("name", NAMES)
def test_a_hook_has_the_priority_and_the_arguments_that_its_users_know(name: str) -> None:
    theirs, ours = getattr(mmengine.hooks, name), HOOKS.get(f"mmengine.{name}")
    known, taken = arguments(theirs), arguments(ours)

    assert get_priority(getattr(ours, "priority", "NORMAL")) == their_priority(theirs.priority)
    assert [each for each in taken if each in known] == list(known)
    assert {each: taken[each].default for each in known} == {each: p.default for each, p in known.items()}


@pytest.mark.parametrize("name", NAMES)
def test_arguments_may_be_given_by_position_where_they_could(name: str) -> None:
    theirs, ours = getattr(mmengine.hooks, name), HOOKS.get(name)
    by_position = [n for n, p in arguments(theirs).items() if p.kind is p.POSITIONAL_OR_KEYWORD]

    assert list(arguments(ours))[: len(by_position)] == by_position
    assert all(arguments(ours)[each].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD for each in by_position)


@pytest.mark.parametrize("name", NAMES)
def test_a_hook_works_at_the_same_points_or_at_more(name: str) -> None:
    theirs, ours = getattr(mmengine.hooks, name), HOOKS.get(name)
    base = mmengine.hooks.Hook
    points = [p for p in base.stages if getattr(theirs, p) is not getattr(base, p)]

    assert [p for p in points if getattr(ours, p, None) is None] == []
