"""One file: what it may hold, what of it is an entry, and what is said about a wrong one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from asynchooks.config import Config
from asynchooks.errors import ConfigError, CustomImportError, UnknownOptionError

Write = Callable[[dict[str, str]], Path]


def test_facts_about_the_file_and_the_environment_are_filled_in(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONFIG_TEST_ROOT", "/data")
    path = write(
        {
            "run.one.py": """
                work_dir = './work_dirs/{{ fileBasenameNoExtension }}'
                places = ('{{fileDirname}}', '{{ fileBasename }}', '{{ fileExtname }}')
                root = '{{$CONFIG_TEST_ROOT:/nowhere}}/coco'
                classes = {{'$CONFIG_TEST_CLASSES:80'}}
            """
        }
    )
    cfg = Config.fromfile(path)

    assert cfg.work_dir == "./work_dirs/run.one"
    assert cfg.places == (str(path.parent), "run.one.py", ".py")
    assert (cfg.root, cfg.classes) == ("/data/coco", 80)
    assert cfg.env_variables == {"CONFIG_TEST_ROOT": "/data"}


def test_modules_functions_and_classes_of_a_script_are_no_entries(write: Write) -> None:
    path = write(
        {
            "a.py": """
                from __future__ import annotations
                import os.path as osp
                from collections import OrderedDict
                from math import pi, sin

                class Mine: pass
                def join(*parts): return osp.join(*parts)

                __hidden = 1
                _kept = 2
                kind = dict(type=Mine)
                path = join('a', 'b')
            """
        }
    )
    cfg = Config.fromfile(path)

    assert set(cfg) == {"pi", "_kept", "kind", "path"}
    assert cfg.kind.type.__name__ == "Mine"


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.py", "x = 1\ny = dict(\n", r"a\.py, line \d: no Python"),
        ("a.py", "x = 1\ny = 1 / 0\n", r"a\.py, line 2: ZeroDivisionError"),
        ("a.py", "def f():\n    return nothing\nx = f()\n", r"a\.py, line 2: NameError: .*'nothing'"),
        ("a.py", "_base_ = name", r"a\.py, line 1: _base_ is a text or a list"),
        ("a.py", "_base_ = 5", r"a\.py: _base_ is a path or a list of paths, not 5"),
        ("a.py", "_base_ = 'none.py'", r"none\.py, which .*a\.py inherits from, does not exist"),
        ("a.py", "with read_base():\n    x = 1", r"a\.py, line 2: inside of `with read_base\(\):`"),
        ("a.py", "filename = 1", r"a\.py: 'filename' cannot be an entry"),
        ("a.py", "x = '{{$CONFIG_TEST_UNSET:}}'", r"a\.py: .*CONFIG_TEST_UNSET is not set"),
        ("a.json", '{"x": 1,\n"y": }', r"a\.json, line 2: no JSON"),
        ("a.json", '{"x": 1, "x": 2}', r"a\.json: the key 'x' stands twice"),
        ("a.json", "[1]", r"a\.json: expected a mapping of entries, not a list"),
        ("a.yaml", "x: 1\ny: [", r"a\.yaml, line \d: no YAML"),
        ("a.yaml", "x:\n  k: 1\n  k: 2", r"a\.yaml, line 3: the key 'k' stands there twice"),
        ("a.yaml", "x: !!python/object/apply:os.system ['echo']", r"a\.yaml, line 1: no YAML: .*python"),
        ("a.toml", "x = ", r"a\.toml: no TOML"),
        ("a.txt", "x", r"a\.txt is no configuration: its name ends with none of \.py"),
    ],
)
def test_a_wrong_file_is_named_with_its_line(write: Write, name: str, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Config.fromfile(write({name: text}))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.py does not exist"):
        Config.fromfile(tmp_path / "none.py")


def test_custom_imports_are_imported(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(
        {
            "config_test_hooks.py": "loaded = True",
            "one.yaml": "custom_imports: {imports: config_test_hooks}",
            "a.py": "custom_imports = dict(imports=['config_test_hooks'], allow_failed_imports=False)",
        }
    )
    monkeypatch.syspath_prepend(path.parent)

    assert Config.fromfile(path).custom_imports.imports == ["config_test_hooks"]
    assert Config.fromfile(path.with_name("one.yaml")).custom_imports.imports == "config_test_hooks"


def test_a_failed_custom_import_names_file_and_module(write: Write) -> None:
    path = write({"a.py": "custom_imports = dict(imports=['os', 'no_such_module_here'])"})

    with pytest.raises(CustomImportError, match=r"a\.py: custom_imports: 'no_such_module_here'.*PYTHONPATH"):
        Config.fromfile(path)
    with pytest.raises(ImportError):
        Config.fromfile(path)
    assert Config.fromfile(path, import_custom_modules=False).custom_imports


def test_a_custom_import_may_be_allowed_to_fail(write: Write) -> None:
    path = write({"a.py": "custom_imports = dict(imports='no_such_module_here', allow_failed_imports=True)"})

    with pytest.warns(UserWarning, match=r"a\.py: custom_imports: no_such_module_here cannot be imported"):
        Config.fromfile(path)


@pytest.mark.parametrize(
    ("custom_imports", "words"),
    [
        ("dict(import_='a')", "no option 'import_'. Did you mean 'imports'"),
        ("['a']", "custom_imports is a dict"),
        ("dict(imports=[1])", "imports is a module's name, or a list of them, not \\[1\\]"),
    ],
)
def test_a_wrong_custom_imports_names_the_right_form(write: Write, custom_imports: str, words: str) -> None:
    with pytest.raises((ConfigError, UnknownOptionError), match=words):
        Config.fromfile(write({"a.py": f"custom_imports = {custom_imports}"}))


def test_a_file_may_say_that_it_is_deprecated(write: Write) -> None:
    path = write({"a.py": "_deprecation_ = dict(expected='b.py', reference='https://x.org')\nseed = 1"})

    with pytest.warns(FutureWarning, match=r"a\.py is deprecated\. expected: b\.py\. reference"):
        cfg = Config.fromfile(path)
    assert cfg.to_dict() == {"seed": 1}
