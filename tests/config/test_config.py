"""A configuration in the hand: attributes, changes, options of a command line, texts."""

from __future__ import annotations

import argparse
import copy
import json
import pickle
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asynchooks.config import Config, ConfigDict, DictAction, parse_options
from asynchooks.errors import ConfigError, UnknownNameError


def make() -> Config:
    return Config({"model": {"type": "Net", "layers": [{"a": 1}, ({"b": 2},)]}, "seed": 0}, filename="x.py")


def test_entries_are_attributes_all_the_way_down() -> None:
    cfg = make()
    cfg.model.layers[1][0].b = 3
    cfg.added = {"deep": {"er": 1}}
    del cfg.seed

    assert cfg["model"]["layers"][1][0]["b"] == 3
    assert cfg.added.deep.er == 1
    assert list(cfg) == ["model", "added"]
    assert isinstance(cfg.model, dict)


def test_a_missing_attribute_suggests_the_nearest() -> None:
    with pytest.raises(AttributeError, match=r"no entry 'modexl' here\. Did you mean 'model'"):
        make().modexl  # noqa: B018
    assert not hasattr(make().model, "depth")
    assert make().get("depth", 5) == 5


def test_an_attribute_that_would_hide_a_method_is_refused() -> None:
    for cfg in (make(), make().model):
        with pytest.raises(AttributeError, match=r"write cfg\['items'\]"):
            cfg.items = 1  # type: ignore[method-assign]
        cfg["items"] = 1
        assert cfg["items"] == 1


def test_dict_and_to_dict_give_plain_dicts() -> None:
    cfg = make()

    assert type(dict(cfg)) is dict
    assert dict(cfg) == cfg.to_dict()
    assert type(cfg.to_dict()["model"]["layers"][1][0]) is dict
    assert json.loads(json.dumps(cfg.model)) == {"type": "Net", "layers": [{"a": 1}, [{"b": 2}]]}


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, Config.copy, lambda c: pickle.loads(pickle.dumps(c))]
)
def test_a_copy_is_equal_and_changes_alone(copied: Any) -> None:
    cfg = make()
    other = copied(cfg)
    other.model.type = "Other"

    assert (cfg.model.type, other.model.layers, other.filename) == ("Net", cfg.model.layers, "x.py")


def test_update_merges_and_merge_knows_delete() -> None:
    cfg = ConfigDict(a={"x": 1, "y": {"z": 2}}, b=1)
    cfg.update({"a": {"y": {"w": 3}}})
    assert cfg == {"a": {"x": 1, "y": {"z": 2, "w": 3}}, "b": 1}

    cfg.merge({"a": {"_delete_": True, "q": 4}})
    assert cfg == {"a": {"q": 4}, "b": 1}
    cfg |= OrderedDict(c={"d": 5})
    assert cfg.c.d == cfg.setdefault("c", None)["d"] == 5


def test_options_change_entries_by_their_dotted_names() -> None:
    cfg = make()
    options = {"model.layers.0.a": 7, "model.layers.1": "x", "train.cfg.max": 3, "model.type": "B"}
    cfg.merge_from_dict(options)
    cfg.merge_from_dict({"train": {"_delete_": True, "new": 1}})

    assert cfg.to_dict() == {
        "model": {"type": "B", "layers": [{"a": 7}, "x"]},
        "seed": 0,
        "train": {"new": 1},
    }
    assert options["model.type"] == "B"


def test_a_wrong_option_is_named() -> None:
    with pytest.raises(UnknownNameError, match=r"model\.layers has 2 items, so there is no model\.layers\.5"):
        make().merge_from_dict({"model.layers.5": 1})
    with pytest.raises(ConfigError, match=r"seed is a dict in the child and 0 \(int\) in the base"):
        make().merge_from_dict({"seed.a": 1})
    with pytest.raises(ConfigError, match="goes below 'a', which another option sets"):
        make().merge_from_dict({"a": 1, "a.b": 2})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("-1e-3", -1e-3),
        ("true", True),
        ("None", None),
        ("s3://bucket/run=1", "s3://bucket/run=1"),
        ("a,2,None", ["a", 2, None]),
        ("[(1,2), [a, 'b, c']]", [(1, 2), ["a", "b, c"]]),
        ("(1,)", (1,)),
        ("[]", []),
        ("'5'", "5"),
        ('"with space, and comma"', "with space, and comma"),
        ("{'a': [1, 2]}", {"a": [1, 2]}),
        ("it's", "it's"),
        ("", ""),
    ],
)
def test_values_of_a_command_line(text: str, value: Any) -> None:
    (read,) = parse_options([f"a.b={text}"]).values()

    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize("pair", ["novalue", "=1", "a..b=1", "a=[1,2", "a={x}"])
def test_a_wrong_pair_of_a_command_line_is_shown(pair: str) -> None:
    with pytest.raises(ConfigError, match=r"config option"):
        parse_options([pair])


def test_an_argparse_script_has_an_action_for_it() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cfg-options", nargs="+", action=DictAction)
    options = parser.parse_args(["--cfg-options", "a=1", "b=x,y", "--cfg-options", "c=[2]"]).cfg_options

    assert options == {"a": 1, "b": ["x", "y"], "c": [2]}


def test_a_dump_can_be_read_again(tmp_path: Path) -> None:
    cfg = make()
    for name in ("a.py", "a.yaml", "a.json"):
        cfg.dump(tmp_path / name)

    assert Config.fromfile(tmp_path / "a.py") == cfg
    assert Config.fromfile(tmp_path / "a.json") == Config.fromfile(tmp_path / "a.yaml")
    assert yaml.safe_load(Config(cfg.to_dict(), filename="b.yaml").dump() or "")["seed"] == 0
    with pytest.raises(ConfigError, match=r"not '\.ini'"):
        cfg.dump(tmp_path / "a.ini")


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.binary(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=8) | st.sampled_from(["type", "class", "a_b"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@settings(deadline=None)
@example({"model": {"\u00aa": None}})  # a name that Python reads as "a"
@given(st.dictionaries(st.sampled_from(["model", "b", "train_cfg"]), values))
def test_the_pretty_text_of_any_values_is_python_that_says_the_same(entries: dict[str, Any]) -> None:
    names: dict[str, Any] = {}
    exec(Config(entries).pretty_text, names)
    del names["__builtins__"]

    assert names == entries
    assert list(names) == list(entries)


def test_what_has_no_literal_form_becomes_its_text() -> None:
    text = Config({"a": object(), "kind": OrderedDict, "n": float("nan")}).pretty_text

    assert "from collections import OrderedDict" in text
    assert "a = '<object object at" in text
    compile(text, "cfg", "exec")


def test_configurations_load_no_torch() -> None:
    program = "import asynchooks.config, sys; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
