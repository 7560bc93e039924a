"""What a file takes over from its bases."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from asynchooks.config import Config
from asynchooks.errors import ConfigError, DuplicateNameError

Write = Callable[[dict[str, str]], Path]


def test_files_of_all_formats_inherit_from_one_another(write: Write) -> None:
    child = write(
        {
            "a.json": '{"model": {"type": "Net", "depth": 1}, "seed": 0}',
            "sub/b.toml": '_base_ = "../a.json"\n[model]\ndepth = 2\nwidth = 3',
            "c.yaml": "_base_: [sub/b.toml]\nmodel: {width: 4}\nlr: 1e-4",
            "d.py": "_base_ = './c.yaml'\nmodel = dict(heads=5)",
        }
    )
    cfg = Config.fromfile(child)

    assert cfg.to_dict() == {
        "model": {"type": "Net", "depth": 2, "width": 4, "heads": 5},
        "seed": 0,
        "lr": 1e-4,
    }


def test_delete_replaces_what_the_base_says_and_leaves_no_trace(write: Write) -> None:
    child = write(
        {
            "base.py": "optimizer = dict(type='SGD', lr=0.1, extra=dict(a=1))",
            "child.py": """
                _base_ = 'base.py'
                optimizer = dict(_delete_=True, type='Adam', extra=dict(_delete_=True, b=2))
                fresh = dict(_delete_=True, c=3)
            """,
        }
    )
    cfg = Config.fromfile(child)

    assert cfg.optimizer == {"type": "Adam", "extra": {"b": 2}}
    assert cfg.fresh == {"c": 3}


def test_lists_are_replaced_and_a_dict_of_indices_changes_items(write: Write) -> None:
    files = {"base.py": "a = [dict(x=1, y=2), 5]\nb = [1, 2, 3]"}
    replaced = Config.fromfile(write({**files, "child.py": "_base_ = 'base.py'\nb = [4]"}))
    changed = Config.fromfile(write({"child.yaml": '_base_: base.py\na: {"0": {y: 9}, "1": 6}'}))

    assert replaced.b == [4]
    assert changed.a == [{"x": 1, "y": 9}, 6]


def test_a_dict_over_something_else_is_an_error_that_says_what_to_do(write: Write) -> None:
    child = write(
        {"base.py": "model = dict(depth=5)", "child.py": "_base_ = 'base.py'\nmodel = dict(depth=dict(a=1))"}
    )

    with pytest.raises(ConfigError, match=rf"{child}: model\.depth is a dict in the child.*_delete_=True"):
        Config.fromfile(child)


def test_two_bases_with_the_same_entry_are_an_error(write: Write) -> None:
    child = write({"a.py": "x = 1", "b.yaml": "x: 1", "child.py": "_base_ = ['a.py', 'b.yaml']"})

    with pytest.raises(DuplicateNameError, match=r"two bases set 'x': .*a\.py and .*b\.yaml"):
        Config.fromfile(child)


def test_a_diamond_is_no_contradiction_until_one_side_changes_an_entry(write: Write) -> None:
    files = {
        "root.py": "x = dict(a=1)",
        "left.py": "_base_ = 'root.py'\nleft = 1",
        "right.py": "_base_ = 'root.py'\nright = 1",
        "child.py": "_base_ = ['left.py', 'right.py']\nx = dict(b=2)",
    }
    assert Config.fromfile(write(files)).to_dict() == {"x": {"a": 1, "b": 2}, "left": 1, "right": 1}

    write({"right.py": "_base_ = 'root.py'\nx = dict(a=2)"})
    with pytest.raises(DuplicateNameError, match=r"'x'.*root\.py and .*right\.py"):
        Config.fromfile(write({"child.py": files["child.py"]}))


def test_a_cycle_is_an_error_that_shows_the_chain(write: Write) -> None:
    child = write(
        {"sub/c.json": '{"_base_": "../a.py"}', "b.yaml": "_base_: sub/c.json", "a.py": "_base_ = ['b.yaml']"}
    )

    with pytest.raises(
        ConfigError,
        match=r"a\.py -> .*b\.yaml -> .*sub/\.\./a\.py|a\.py -> .*b\.yaml -> .*c\.json -> .*a\.py",
    ):
        Config.fromfile(child)


def test_references_to_bases_stand_for_whole_values(write: Write) -> None:
    child = write(
        {
            "base.py": "model = dict(head=dict(classes=80))\npipeline = [dict(type='Load'), 1]",
            "middle.yaml": "_base_: base.py\nclasses: {{ _base_.model.head.classes }}",
            "child.py": """
                _base_ = 'middle.yaml'
                first = {{_base_.pipeline.0}}
                quoted = '{{ _base_.pipeline }}'
                plain = _base_.model.head.classes + _base_.classes
                _base_.model.head.classes = 3
            """,
        }
    )
    cfg = Config.fromfile(child)

    assert (cfg.classes, cfg.plain) == (80, 160)
    assert (cfg.first, cfg.quoted) == ({"type": "Load"}, [{"type": "Load"}, 1])
    assert cfg.model.head.classes == 3


def test_values_taken_from_a_base_are_copies(write: Write) -> None:
    cfg = Config.fromfile(write({"base.py": "a = dict(x=1)", "child.py": "_base_ = 'base.py'\nb = _base_.a"}))
    cfg.b.x = 2

    assert cfg.a.x == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "a = {{ _base_.model.dept }}",
            r"_base_\.model\.dept: no base has 'dept' there\. Did you mean 'depth'",
        ),
        ("a = 'x/{{ _base_.model.depth }}'", "stands for a whole value"),
        ("a = _base_.modexl", r"line 2: AttributeError: .*'modexl'.* Did you mean 'model'"),
    ],
)
def test_a_wrong_reference_is_named(write: Write, text: str, words: str) -> None:
    child = write({"base.py": "model = dict(depth=5)", "child.py": f"_base_ = 'base.py'\n{text}"})

    with pytest.raises(ConfigError, match=words) as caught:
        Config.fromfile(child)
    assert str(child) in str(caught.value)


def test_read_base_imports_entries_and_types_are_classes(write: Write) -> None:
    child = write(
        {
            "base/model.py": "model = dict(depth=5, head=dict(a=1))\nother = 1",
            "base/run.py": "lr = 0.1\ntrain_cfg = dict(max_epochs=3)",
            "child.py": """
                from fractions import Fraction
                from asynchooks.config import read_base

                with read_base():
                    from .base.model import *
                    from .base.run import lr as base_lr, train_cfg

                model.update(dict(head=dict(b=2)))
                train_cfg.max_epochs = 5
                optim = dict(type=Fraction, numerator=1, lr=base_lr)
            """,
        }
    )
    cfg = Config.fromfile(child)

    assert cfg.model == {"depth": 5, "head": {"a": 1, "b": 2}}
    assert cfg.train_cfg == {"max_epochs": 5}
    assert cfg.optim.lr == 0.1
    assert "Fraction" not in cfg
    assert "from fractions import Fraction" in cfg.pretty_text
    assert Config.fromstring(cfg.pretty_text, ".py") == cfg


def test_a_base_of_an_installed_package_is_named_with_colons(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = write(
        {
            "pkg_with_configs/__init__.py": "raise RuntimeError('not imported')",
            "pkg_with_configs/configs/run.py": "seed = 3",
            "child.py": "_base_ = 'pkg_with_configs::run.py'",
        }
    )
    monkeypatch.syspath_prepend(child.parent)

    assert Config.fromfile(child).seed == 3
    with pytest.raises(ConfigError, match=r"pkg_with_configs::none\.py"):
        Config.fromfile(write({"other.py": "_base_ = 'pkg_with_configs::none.py'"}))
