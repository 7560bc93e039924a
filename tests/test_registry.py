from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from asynchooks.errors import ConfigError, DuplicateNameError, UnknownNameError, UnknownOptionError
from asynchooks.registry import HOOKS, Registry, check_handed_on, option_names


@pytest.fixture
def hooks() -> Registry:
    return Registry("hook", scope="base")


class Plain:
    def __init__(self, interval: int, *, start: int = 0) -> None:
        self.interval = interval
        self.start = start


class Open(Plain):
    def __init__(self, extra: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.extra = extra


class Bare:
    pass


def test_a_class_is_registered_under_its_name_or_another_one(hooks: Registry) -> None:
    @hooks.register_module()
    class Mine:
        pass

    hooks.register_module(name=["one", "two"], module=Plain)

    assert hooks.get("Mine") is Mine
    assert hooks.get("one") is hooks.get("two") is Plain
    assert len(hooks) == 3


def test_a_name_is_taken_once_unless_forced(hooks: Registry) -> None:
    hooks.register_module("name", module=Plain)

    with pytest.raises(DuplicateNameError, match="force=True"):
        hooks.register_module("name", module=Open)
    with pytest.raises(KeyError):
        hooks.register_module("name", module=Open)
    hooks.register_module("name", module=Open, force=True)
    assert hooks.get("name") is Open


def test_a_decorator_without_parentheses_is_an_error(hooks: Registry) -> None:
    with pytest.raises(TypeError, match="with parentheses"):
        hooks.register_module(Plain)  # type: ignore[arg-type]


def test_building_leaves_the_config_as_it_was(hooks: Registry) -> None:
    hooks.register_module(module=Plain)
    cfg = {"type": "Plain", "interval": 3}

    built = hooks.build(cfg)

    assert (type(built), built.interval) == (Plain, 3)
    assert cfg == {"type": "Plain", "interval": 3}


def test_a_type_may_be_a_class(hooks: Registry) -> None:
    assert hooks.build({"type": Plain, "interval": 2}).interval == 2


def test_an_unknown_name_names_the_nearest(hooks: Registry) -> None:
    hooks.register_module("CheckpointHook", module=Plain)

    with pytest.raises(UnknownNameError, match="Did you mean 'CheckpointHook'"):
        hooks.build({"type": "ChekpointHook"})


@pytest.mark.parametrize(
    ("wrong", "right"), [("OptimizerWrapper", "OptimWrapper"), ("SyncBufferHook", "SyncBuffersHook")]
)
def test_known_slips_name_the_right_form(hooks: Registry, wrong: str, right: str) -> None:
    with pytest.raises(UnknownNameError, match=f"spelled '{right}'"):
        hooks.get(wrong)


@pytest.mark.parametrize("target", [Plain, Open])
def test_an_unknown_option_names_the_class_and_the_nearest(hooks: Registry, target: type) -> None:
    with pytest.raises(
        UnknownOptionError, match=f"{target.__name__} takes no argument 'internal'.*'interval'"
    ):
        hooks.build({"type": target, "interval": 1, "internal": 5})


def test_a_class_without_a_constructor_takes_no_option(hooks: Registry) -> None:
    assert isinstance(hooks.build({"type": Bare}), Bare)
    with pytest.raises(UnknownOptionError, match="Bare takes no argument 'interval'"):
        hooks.build({"type": Bare, "interval": 1})


def test_an_open_constructor_passes_options_on(hooks: Registry) -> None:
    built = hooks.build({"type": Open, "interval": 1, "extra": 2})

    assert (built.interval, built.extra) == (1, 2)
    assert option_names(Open) == (["extra", "interval", "start"], True)


def test_a_missing_argument_is_named(hooks: Registry) -> None:
    with pytest.raises(ConfigError, match="Plain needs 'interval'"):
        hooks.build({"type": Plain})


def test_a_missing_type_is_named(hooks: Registry) -> None:
    with pytest.raises(ConfigError, match="'type' is missing"):
        hooks.build({"interval": 1})


def test_what_the_class_raises_goes_on_with_a_note(hooks: Registry) -> None:
    def refuse(interval: int) -> None:
        raise RuntimeError(f"no {interval}")

    with pytest.raises(RuntimeError, match="no 3") as caught:
        hooks.build({"type": refuse, "interval": 3})

    assert "while building the hook refuse" in caught.value.__notes__[0]


def test_check_says_what_build_would_say_without_building(hooks: Registry) -> None:
    def explode(interval: int) -> None:
        raise AssertionError(interval)

    hooks.check({"type": explode}, provided=["interval"])
    with pytest.raises(UnknownOptionError, match="'intervall'"):
        hooks.check({"type": explode, "intervall": 1}, provided=["interval"])


def test_a_child_asks_its_parent_and_is_reached_by_its_scope(hooks: Registry) -> None:
    child = Registry("hook", parent=hooks, scope="mydet")
    hooks.register_module("Shared", module=Plain)
    child.register_module("Own", module=Open)

    assert child.get("Shared") is Plain
    assert hooks.get("mydet.Own") is Open
    assert child.get("base.Shared") is Plain
    assert hooks.get("Own", scope="mydet") is Open
    with pytest.raises(UnknownNameError, match=r"Did you mean 'mydet\.Own'"):
        hooks.get("Own")


def test_a_childs_entry_goes_before_its_parents(hooks: Registry) -> None:
    child = Registry("hook", parent=hooks, scope="mydet")
    hooks.register_module("Same", module=Plain)
    child.register_module("Same", module=Open)

    assert (hooks.get("Same"), child.get("Same"), child.get("base.Same")) == (Plain, Open, Plain)


def test_a_scope_is_the_callers_package_where_none_is_given() -> None:
    assert Registry("thing").scope == __name__.partition(".")[0]


def test_two_children_of_one_scope_are_an_error(hooks: Registry) -> None:
    Registry("hook", parent=hooks, scope="mydet")

    with pytest.raises(DuplicateNameError, match="mydet"):
        Registry("hook", parent=hooks, scope="mydet")


def test_the_hooks_fill_the_registry_when_it_is_first_asked() -> None:
    assert {"CheckpointHook", "LoggerHook", "IterTimerHook"} <= set(HOOKS)


def test_importing_the_registry_loads_no_torch() -> None:
    code = "import sys, asynchooks.registry; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_what_is_handed_on_is_no_slip_of_an_argument() -> None:
    check_handed_on(Open, ["anything", "else"])

    with pytest.raises(
        UnknownOptionError, match=r"Open takes no argument 'intervall'\. Did you mean 'interval'"
    ):
        check_handed_on(Open, ["intervall"])
