"""The documentation's tables of the hooks are what their classes say."""

from __future__ import annotations

from pathlib import Path

import pytest

import asynchooks.hooks
from asynchooks._cli.hooks._catalogue import catalogue, paragraph_of
from asynchooks._cli.hooks._markdown import BEGIN, END, markdown, update
from asynchooks.errors import ConfigError

README = Path(asynchooks.hooks.__file__).with_name("README.md")
ENTRIES = [entry for entry in catalogue() if entry.is_builtin]


def test_the_tables_are_those_of_the_classes() -> None:
    between = README.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]

    assert between.strip() == markdown(), (
        "asynchooks/hooks/README.md is not what the hooks say; run: "
        "python -m asynchooks hooks --update asynchooks/hooks/README.md"
    )


@pytest.mark.parametrize("entry", ENTRIES, ids=[entry.name for entry in ENTRIES])
def test_every_hook_says_what_it_does_and_touches(entry: object) -> None:
    (found,) = [each for each in ENTRIES if each is entry]

    assert paragraph_of(found.kind), "a docstring"
    if found.shapes:  # a hook whose points are its arguments touches what nobody knows
        assert found.effects is not None or found.by_arguments, "effects = Effects(...)"


def test_the_tables_are_put_between_the_marks_and_nothing_else_changes(tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    file.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")

    assert update(file)
    assert not update(file)
    assert file.read_text() == f"before\n{BEGIN}\n{markdown()}\n{END}\nafter\n"


def test_a_file_without_marks_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    file.write_text("nothing here")

    with pytest.raises(ConfigError, match="catalogue:begin"):
        update(file)
