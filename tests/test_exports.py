"""What is public can be imported, is documented, and stays as small as it was meant to be."""

import importlib
import inspect
import pkgutil
import subprocess
import sys

import pytest

import asynchooks

PACKAGES = [
    "asynchooks",
    *(
        f"asynchooks.{module.name}"
        for module in pkgutil.iter_modules(asynchooks.__path__)
        if not module.name.startswith("_")
    ),
]


@pytest.mark.parametrize("name", PACKAGES)
def test_every_public_name_exists_and_is_documented(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} says what it is"
    for public in module.__all__:
        thing = getattr(module, public)
        if inspect.isclass(thing) or inspect.isroutine(thing):
            assert inspect.getdoc(thing), f"{name}.{public} has a docstring"


def test_the_top_level_stays_small() -> None:
    assert len(asynchooks.__all__) <= 20
    assert set(asynchooks.__all__) <= set(dir(asynchooks))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Runer'"):
        asynchooks.Runer  # noqa: B018


@pytest.mark.parametrize("name", ["asynchooks", "asynchooks.checkpoint", "asynchooks.checkpoint._storage"])
def test_what_needs_no_torch_loads_none(name: str) -> None:
    program = f"import {name}, sys; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_a_hook_that_only_mmcv_has_is_found_beside_the_others() -> None:
    hooks = importlib.import_module("asynchooks.hooks")

    assert hooks.EvalHook is importlib.import_module("asynchooks.hooks.mmcv").EvalHook
    with pytest.raises(AttributeError, match="no hook 'EvallHook'"):
        hooks.EvallHook  # noqa: B018
