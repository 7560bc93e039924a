"""Configurations beside mmengine's own: the same files give the same entries."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from mmengine.config import Config as Reference
from mmengine.config import DictAction as ReferenceAction

from asynchooks.config import Config, parse_options

KEYS = ("model", "depth", "head", "type", "lr")
atoms = st.sampled_from([0, 1, -2.5, True, None, "SGD", "a b"])
plain = st.recursive(
    atoms,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=8,
)
children = st.recursive(
    plain,
    lambda inner: st.builds(
        lambda entries, delete: {**entries, "_delete_": True} if delete else entries,
        st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
        st.booleans(),
    ),
    max_leaves=8,
)
files = st.lists(
    st.tuples(
        st.sampled_from([".py", ".json", ".yaml"]),
        st.dictionaries(st.sampled_from(KEYS[:3]), children, max_size=3),
    ),
    min_size=1,
    max_size=4,
)
common = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def unmarked(value: Any) -> Any:
    """Without ``_delete_``, which mmengine leaves where there was nothing to delete, and ours does not."""
    if isinstance(value, Mapping):
        return {key: unmarked(each) for key, each in value.items() if key != "_delete_"}
    return [unmarked(each) for each in value] if isinstance(value, list) else value


def outcome(read: Any) -> Any:
    """Return the entries, or that it is an error."""
    try:
        return unmarked(read().to_dict())
    except (TypeError, KeyError, ValueError):
        return "an error"


def both(path: Path) -> tuple[Any, Any]:
    return outcome(lambda: Config.fromfile(path)), outcome(lambda: Reference.fromfile(str(path)))


def write_chain(folder: Path, chain: list[tuple[str, dict[str, Any]]]) -> Path:
    """Write files of which each is the base of the next."""
    base: str | None = None
    for number, (suffix, entries) in enumerate(chain):
        own = {**({} if base is None else {"_base_": base}), **entries}
        path = folder / f"f{number}{suffix}"
        lines = "".join(f"{name} = {value!r}\n" for name, value in own.items())
        path.write_text(lines if suffix == ".py" else json.dumps(own))
        base = path.name
    return path


@common
@given(files)
def test_a_chain_of_files_gives_the_same_entries(
    tmp_path: Path, chain: list[tuple[str, dict[str, Any]]]
) -> None:
    ours, theirs = both(write_chain(tmp_path, chain))

    assert ours == theirs


@common
@given(files, files)
def test_two_bases_give_the_same_entries_or_the_same_refusal(
    tmp_path: Path, left: list[tuple[str, dict[str, Any]]], right: list[tuple[str, dict[str, Any]]]
) -> None:
    bases = []
    for name, chain in (("left", left), ("right", right)):
        (tmp_path / name).mkdir(exist_ok=True)
        bases.append(f"{name}/{write_chain(tmp_path / name, chain).name}")
    child = tmp_path / "child.json"
    child.write_text(json.dumps({"_base_": bases, "lr": 1}))
    ours, theirs = both(child)

    assert ours == theirs


HAND_WRITTEN = {
    "references": """
        _base_ = ['base.py', 'more.yaml']
        a = {{_base_.model.head.classes}}
        b = {{ _base_.pipeline }}
        c = [*_base_.pipeline[:1], dict(type='New')]
        d = dict(inner={{ _base_.schedule.milestones }})
        model = dict(head=dict(classes=_base_.model.head.classes + 1, loss=None))
    """,
    "delete": """
        _base_ = 'base.py'
        model = dict(_delete_=True, type='Other')
        optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=1e-4), clip_grad=dict(max_norm=35))
    """,
    "code": """
        _base_ = ['./base.py']
        import os.path as osp
        from math import pi
        folds = [dict(k=k) for k in range(3)]
        def scaled(x):
            return [x * pi, osp.join('a', 'b'), folds]
        value = scaled(2)
        _private = 1
        model = dict(head=dict(extra={1: 'int key', 'a-b': (1, 2)}))
    """,
    "facts": """
        name = '{{ fileBasenameNoExtension }}'
        other = ['{{fileDirname}}/x', '{{ fileBasename }}', '{{ fileExtname }}']
        root = '{{$CONFIG_TEST_UNSET:/data}}/coco'
        classes = {{'$CONFIG_TEST_UNSET:80'}}
    """,
    "in_place": """
        _base_ = 'base.py'
        _base_.model.head.classes = 7
        _base_.pipeline.append(dict(type='Last'))
        trailing = dict(type='MultiStepLR'),
    """,
}


@pytest.mark.parametrize("name", HAND_WRITTEN)
def test_files_as_their_users_write_them_give_the_same_entries(tmp_path: Path, name: str) -> None:
    (tmp_path / "base.py").write_text(
        "model = dict(type='Net', head=dict(type='Head', classes=80, loss=dict(w=1.0)))\n"
        "optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1, momentum=0.9))\n"
        "pipeline = [dict(type='Load'), dict(type='Flip', prob=0.5)]\n"
    )
    (tmp_path / "more.yaml").write_text("schedule: {milestones: [8, 11], by_epoch: true}\n")
    path = tmp_path / "child.py"
    path.write_text(textwrap.dedent(HAND_WRITTEN[name]))
    ours, theirs = both(path)

    assert ours == theirs != "an error"


options = st.dictionaries(
    st.lists(st.sampled_from((*KEYS, "0", "1")), min_size=1, max_size=3).map(".".join),
    atoms | plain,
    max_size=3,
)


@common
@given(st.dictionaries(st.sampled_from(KEYS), plain, max_size=4), options)
def test_options_change_the_same_entries(entries: dict[str, Any], changes: dict[str, Any]) -> None:
    assume(
        "{}" not in json.dumps(list(changes.values()))
    )  # ours refuses one in a list's place, theirs ignores it

    def merged(kind: Any) -> Any:
        cfg = kind(json.loads(json.dumps(entries)))
        cfg.merge_from_dict(json.loads(json.dumps(changes)))
        return cfg

    ours = outcome(lambda: merged(Config))
    try:
        theirs = outcome(lambda: merged(Reference))
    except (
        AttributeError
    ):  # theirs fails where an index gets a value that is no dict, and where a key is both
        return

    if theirs != "an error":
        assert ours == theirs


texts = st.lists(
    st.sampled_from(
        ["1", "-2", "0.5", "1e-3", "true", "False", "None", "abc", "a/b:c", ",", "[", "]", "(", ")"]
    ),
    min_size=1,
    max_size=6,
).map("".join)


@common
@given(texts)
def test_values_on_a_command_line_are_read_alike(text: str) -> None:
    balanced = re.sub(r"[^\[\]()]", "", text)
    while "[]" in balanced or "()" in balanced:
        balanced = balanced.replace("[]", "").replace("()", "")
    try:
        theirs = ReferenceAction._parse_iterable(text)
    except (AssertionError, RecursionError):
        return
    if balanced or re.search(r"[^\[(,][\[(]|[\])][^\]),]|(^|[\[(,]),", text):
        return  # brackets inside of a word, or a place without a value

    assert parse_options([f"key={text}"]) == {"key": theirs}


def test_files_that_import_their_bases_give_the_same_entries(tmp_path: Path) -> None:
    (tmp_path / "bases").mkdir()
    (tmp_path / "bases/model.py").write_text(
        "from torch.nn import Linear\nmodel = dict(type=Linear, in_features=4, head=dict(a=1, b=[1, 2]))\nother = 1\n"
    )
    (tmp_path / "bases/run.py").write_text("lr = 0.1\ntrain_cfg = dict(by_epoch=True, max_epochs=3)\n")
    path = tmp_path / "child.py"
    path.write_text(
        textwrap.dedent("""
            from mmengine.config import read_base
            with read_base():
                from .bases.model import *
                from .bases.run import train_cfg, lr as base_lr
            from torch.optim import SGD

            model.update(dict(head=dict(a=2)))
            model.head.b.append(3)
            train_cfg.max_epochs = 12
            optim_wrapper = dict(optimizer=dict(type=SGD, lr=base_lr * 2))
        """)
    )
    ours, theirs = Config.fromfile(path), Reference.fromfile(str(path))
    kinds = [ours.model.pop("type"), ours.optim_wrapper.optimizer.pop("type")]

    assert [theirs.model.pop("type"), theirs.optim_wrapper.optimizer.pop("type")] == kinds
    assert ours.to_dict() == theirs.to_dict()
