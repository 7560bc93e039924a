"""A wrong argument of the checkpoint hook is an error where it is given, in words that help."""

from typing import Any

import pytest

from asynchooks.errors import ConfigError, UnknownOptionError
from asynchooks.hooks import CheckpointHook
from asynchooks.registry import HOOKS


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"internal": 5}, UnknownOptionError, "Did you mean 'interval'"),
        ({"max_keep_ckpt": 5}, UnknownOptionError, "Did you mean 'max_keep_ckpts'"),
        ({"create_symlink": False}, UnknownOptionError, "last_checkpoint"),
        ({"sync_buffer": True}, UnknownOptionError, "SyncBuffersHook"),
        ({"interval": "5"}, TypeError, "interval='5'"),
        ({"interval": True}, TypeError, "interval=True"),
        ({"interval": -2}, ValueError, "-1 for never"),
        ({"save_begin": -1}, ValueError, "save_begin=-1"),
        ({"max_keep_ckpts": 1.5}, TypeError, "max_keep_ckpts"),
        ({"save_best": 3}, TypeError, "save_best=3"),
        ({"save_best": []}, TypeError, "save_best"),
        ({"save_best": ["auto", "acc"]}, ValueError, "stands alone"),
        ({"save_best": ["acc", "acc"]}, ValueError, "twice"),
        ({"save_best": "speed"}, ValueError, "rule='greater' or rule='less'"),
        ({"save_best": "acc", "rule": "bigger"}, KeyError, "'greater', 'less' or None"),
        ({"save_best": ["a", "b"], "rule": ["less"] * 3}, ValueError, "3 rules for 2 metrics"),
        ({"rule": ["greater"]}, ValueError, "save_best"),
        ({"save_best": "acc", "greater_keys": 3}, TypeError, "greater_keys"),
        ({"filename_tmpl": "model.pth"}, ValueError, "one place for the number"),
        ({"filename_tmpl": "{}_{}.pth"}, ValueError, "one place for the number"),
        ({"filename_tmpl": "../{}.pth"}, ValueError, "out_dir"),
        ({"filename_tmpl": 7}, TypeError, "filename_tmpl"),
        ({"published_keys": ["meta", "meta"]}, ValueError, "twice"),
        ({"published_keys": 3}, TypeError, "published_keys"),
        ({"backend_args": [1]}, TypeError, "backend_args"),
        ({"backend_args": {}, "file_client_args": {}}, ValueError, "backend_args alone"),
        ({"when_busy": "drop"}, UnknownOptionError, "'wait' or 'skip' or 'coalesce'"),
        ({"on_error": "ignore"}, UnknownOptionError, "'raise' or 'warn'"),
        ({"deadline_s": 0}, ConfigError, "deadline_s=0): give a number of seconds above 0"),
        ({"deadline_s": "2m"}, TypeError, "deadline_s='2m'): give a number of seconds"),
    ],
)
def test_a_wrong_argument_is_named_at_construction(
    arguments: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error) as caught:
        CheckpointHook(**arguments)

    assert words in str(caught.value)


def test_the_registry_builds_the_hook_and_keeps_its_words() -> None:
    hook = HOOKS.build({"type": "CheckpointHook", "interval": 5, "save_best": "auto"})

    assert isinstance(hook, CheckpointHook)
    assert hook.interval == 5
    with pytest.raises(UnknownOptionError, match="Did you mean 'interval'"):
        HOOKS.build({"type": "CheckpointHook", "internal": 5})


def test_the_old_name_of_the_store_options_still_works() -> None:
    with pytest.warns(DeprecationWarning, match="backend_args"):
        hook = CheckpointHook(file_client_args={"backend": "disk"})

    assert hook.backend_args == {}


def test_an_unknown_option_of_the_store_is_an_error_before_training(train: Any) -> None:
    hook = CheckpointHook(interval=1, out_dir="s3://bucket", backend_args={"colour": "red"})
    with pytest.raises(ConfigError, match="colour"):
        train(hook, epochs=1)
