from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from asynchooks.errors import ConfigError, UnknownOptionError
from asynchooks.runner import LogProcessor, MessageHub


def run(**changes: Any) -> Any:
    hub = MessageHub()
    for number in range(20):
        hub.update_scalar("train/lr", 0.01)
        hub.update_scalar("train/loss", float(number))
        hub.update_scalar("train/acc", float(number))
        hub.update_scalar("train/time", 0.5)
        hub.update_scalar("train/data_time", 0.25)
    hub.update_scalar("val/loss", 3.0)
    hub.update_scalar("val/loss", 2.0)
    hub.update_scalar("val/time", 0.5)
    hub.update_info("val/table", "a|b")
    hub.update_info("eta", 3725.0)
    facts = {
        "message_hub": hub,
        "epoch": 0,
        "iter": 19,
        "max_epochs": 10,
        "max_iters": 1000,
        "by_epoch": True,
        "train_dataloader": [None] * 100,
        "val_dataloader": [None] * 5,
    }
    return SimpleNamespace(**{**facts, **changes})


@pytest.fixture(autouse=True)
def _without_memory() -> None:
    if torch.cuda.is_available():
        pytest.skip("the lines would show the device's memory")


def test_a_training_line_counts_epochs() -> None:
    tag, line = LogProcessor().get_log_after_iter(run(), 19, "train")

    assert line == (
        "Epoch(train)  [1][ 20/100]  lr: 1.0000e-02  eta: 1:02:05  time: 0.5000  data_time: 0.2500  "
        "loss: 14.5000  acc: 19.0000"
    )
    assert tag == {
        "lr": 0.01,
        "loss": 14.5,
        "acc": 19.0,
        "time": 0.5,
        "data_time": 0.25,
        "iter": 20,
        "epoch": 1,
    }


def test_a_training_line_counts_iterations() -> None:
    _, line = LogProcessor().get_log_after_iter(run(by_epoch=False), 19, "train")

    assert line.startswith("Iter(train) [  20/1000]  lr: 1.0000e-02  eta: ")


def test_a_line_without_loader_and_limits_says_where_it_is() -> None:
    state = run(by_epoch=False, max_iters=None, train_dataloader=None)

    assert LogProcessor().get_log_after_iter(state, 19, "train")[1].startswith("Iter(train) [20]  lr")


def test_a_summary_shows_the_newest_metrics_and_ends_with_the_times() -> None:
    tag, line = LogProcessor().get_log_after_epoch(run(epoch=1), 4, "val")

    assert line == "Epoch(val)  [1][5/5]  loss: 2.0000  table: a|b  time: 0.5000"
    assert tag == {"loss": 2.0, "time": 0.5}


def test_a_record_is_of_one_instant_and_read_later() -> None:
    state = run()
    processor = LogProcessor()
    record = processor.capture(state, 19, "train")
    before = processor.format(record)

    state.message_hub.update_scalar("train/loss", 1e6)
    state.iter = 500

    assert processor.format(record) == before


def test_custom_statistics_and_hierarchy() -> None:
    custom = [
        {"data_src": "loss", "log_name": "worst", "method_name": "max", "window_size": "epoch"},
        {"data_src": "loss", "method_name": "mean", "window_size": "global"},
    ]
    tag, _ = LogProcessor(custom_cfg=custom, log_with_hierarchy=True).get_log_after_iter(run(), 4, "train")

    assert tag["train/worst"] == 19.0
    assert tag["train/loss"] == 9.5


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"window_size": 0}, ConfigError, "window_size"),
        ({"num_digits": -1}, ConfigError, "num_digits"),
        ({"custom_cfg": [{"data_src": "loss", "windows": 3}]}, UnknownOptionError, "'windows'"),
        ({"custom_cfg": [{"log_name": "x"}]}, ConfigError, "data_src"),
        ({"custom_cfg": [{"data_src": "loss", "window_size": "all"}]}, ConfigError, "'all'"),
        ({"custom_cfg": [{"data_src": "loss", "method_name": "median"}]}, ConfigError, "'median'"),
    ],
)
def test_wrong_options_are_refused_at_construction(
    options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        LogProcessor(**options)
