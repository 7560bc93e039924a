"""A wrong hook, or a wrong option, is refused where it is given, with the fix."""

from typing import Any

import pytest

from asynchooks import Hook, HookExecutor, background
from asynchooks.errors import (
    HookDefinitionError,
    UnknownNameError,
    UnknownOptionError,
    UnknownPointError,
)


def fire(hook: Any, point: Any = "before_train", context: Any = None, **arguments: Any) -> None:
    with HookExecutor([hook]) as executor:
        executor.fire(point, context, **arguments)
        executor.drain()


class Probe(Hook):
    def before_run(self, runner: Any) -> None:
        pass


class ReturnsCoroutine(Hook):
    def before_train(self, runner: Any) -> Any:
        async def part() -> None:
            pass

        return part()


class ReturnsAsyncFunction(Hook):
    def before_train(self, runner: Any) -> Any:
        async def part() -> None:
            pass

        return part


class CallsThePart(Hook):
    @background
    def before_train(self, runner: Any) -> Any:
        async def part() -> None:
            pass

        return part()


class ReturnsValue(Hook):
    @background
    def before_train(self, runner: Any) -> Any:
        return 3


class PartWithArguments(Hook):
    @background
    def before_train(self, runner: Any) -> Any:
        async def part(path: Any) -> None:
            pass

        return part


@pytest.mark.parametrize(
    ("hook", "match"),
    [
        (ReturnsCoroutine(), r"ReturnsCoroutine\.before_train returns a coroutine but is not @background"),
        (ReturnsAsyncFunction(), r"returns an async function but is not @background"),
        (CallsThePart(), r"returns a coroutine; return the async function, without calling it"),
        (ReturnsValue(), r"returns 3; return None or a zero-argument async function"),
        (PartWithArguments(), r"takes arguments"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Hook) else "",
)
def test_a_wrong_result_is_refused_at_the_firing(hook: Any, match: Any) -> None:
    with pytest.raises(HookDefinitionError, match=match):
        fire(hook)


class Generator(Hook):
    def before_train(self, runner: Any) -> Any:
        yield


class Misspelt(Hook):
    def after_train_itr(self, runner: Any) -> None:
        pass


class WrongArguments(Hook):
    def after_train_iter(self, runner: Any) -> None:  # type: ignore[override]
        pass


class NoMethod(Hook):
    before_train = 3  # type: ignore[assignment]


class NoHook:
    pass


def with_attribute(**attributes: Any) -> Any:
    return type("Configured", (Hook,), attributes)()


@pytest.mark.parametrize(
    ("hook", "error", "match"),
    [
        (Hook, HookDefinitionError, r"Hook is a class; register an instance"),
        (Generator(), HookDefinitionError, r"before_train is a generator"),
        (Misspelt(), HookDefinitionError, r"after_train_itr is at no hook point.*'after_train_iter'"),
        (WrongArguments(), HookDefinitionError, r"cannot be called as this point is fired.*batch_idx"),
        (NoMethod(), HookDefinitionError, r"before_train is 3"),
        (NoHook(), HookDefinitionError, r"NoHook has no method named after a hook point"),
        (with_attribute(effects={"checkpoints"}), HookDefinitionError, r"give Effects\(reads"),
        (with_attribute(fires="after_save_checkpoint"), HookDefinitionError, r"fires is a string"),
        (with_attribute(max_in_flight=0), HookDefinitionError, r"max_in_flight is 0"),
        (with_attribute(on_error="warm"), UnknownOptionError, r"on_error is 'warm'.*Did you mean 'warn'"),
        (with_attribute(when_busy="drop"), UnknownOptionError, r"when_busy is 'drop'"),
        (with_attribute(priority="NORMALL"), UnknownNameError, r"'NORMALL'.*Did you mean 'NORMAL'"),
        (with_attribute(priority=101), ValueError, r"between 0 \(first\) and 100 \(last\)"),
        (with_attribute(priority=1.5), TypeError, r"an int from 0 to 100 or a name"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Hook) else "",
)
def test_a_wrong_hook_is_refused_when_it_is_registered(hook: Any, error: Any, match: Any) -> None:
    with pytest.raises(error, match=match):
        HookExecutor([hook])


def test_a_hook_is_registered_once() -> None:
    hook = Probe()
    with pytest.raises(HookDefinitionError, match="registered already"):
        HookExecutor([hook, hook])


def test_an_unknown_registration_mode_is_refused() -> None:
    with pytest.raises(UnknownOptionError, match="'backgroud'.*Did you mean 'background'"):
        HookExecutor().register(Probe(), mode="backgroud")  # type: ignore[arg-type]


def test_background_and_async_together_are_refused() -> None:
    with pytest.raises(HookDefinitionError, match="both @background and async def"):

        class Both(Hook):
            @background  # type: ignore[type-var]
            async def before_train(self, runner: Any) -> None:
                pass


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"mode": "asnyc"}, UnknownOptionError, "Did you mean 'async'"),
        ({"ordering": "loose"}, UnknownOptionError, "'priority' or 'strict'"),
        ({"max_in_flight": 0}, ValueError, "positive int"),
        ({"staging_budget": "4GB"}, ValueError, "positive int"),
        ({"grace_period": -1}, ValueError, "positive float"),
        ({"points": "mine"}, TypeError, "collection of names"),
        ({"points": ["not a name"]}, UnknownPointError, "public identifier"),
    ],
)
def test_wrong_executor_options_are_refused(options: Any, error: Any, match: Any) -> None:
    with pytest.raises(error, match=match):
        HookExecutor(**options)
