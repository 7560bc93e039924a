from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from asynchooks.errors import ConfigError, ForeignCheckpointError
from asynchooks.runner import HistoryBuffer, MessageHub


class Elsewhere(Tensor):
    """A tensor that says it is on a device, and refuses to be read number by number."""

    device = property(lambda _: torch.device("cuda"))
    is_cpu = property(lambda _: False)

    def item(self) -> Any:
        raise AssertionError("this would wait for the device")

    __float__ = item


def elsewhere(value: float) -> Tensor:
    return torch.tensor(value).as_subclass(Elsewhere)


@pytest.fixture
def hub() -> MessageHub:
    return MessageHub()


def test_statistics_cover_the_newest_values() -> None:
    history = HistoryBuffer([4.0, 1.0, 3.0, 2.0])

    assert (history.current(), history.mean(), history.mean(2)) == (2.0, 2.5, 2.5)
    assert (history.min(3), history.max(2), history.statistics("max", window_size=3)) == (1.0, 3.0, 3.0)


def test_a_mean_is_weighted_by_counts() -> None:
    history = HistoryBuffer()
    history.update(9.0, 10)
    history.update(1.0, 5)

    assert history.mean() == pytest.approx(10 / 15)


def test_a_history_is_bounded() -> None:
    history = HistoryBuffer(max_length=100)
    for number in range(1005):
        history.update(number)

    assert history.data[0].tolist() == list(range(905, 1005))
    assert len(history._values) <= 200


def test_an_update_takes_no_longer_late_than_early() -> None:
    history = HistoryBuffer(max_length=1_000_000)

    def seconds(count: int) -> float:
        started = time.perf_counter()
        for _ in range(count):
            history.update(1.0)
        return time.perf_counter() - started

    early = seconds(2_000)
    seconds(300_000)
    assert seconds(2_000) < 20 * early + 0.05


def test_a_device_tensor_is_kept_and_read_only_when_asked() -> None:
    history = HistoryBuffer()
    for number in range(200):
        history.update(elsewhere(number) if number % 3 else float(number))

    window = history.window(100)
    state = history.state_dict()

    assert window.read().tolist() == list(range(100, 200))
    assert history.data[0].tolist() == list(range(200))
    assert HistoryBuffer.from_state_dict(state).data[0].tolist() == list(range(200))
    assert isinstance(history.newest(), Tensor)


def test_a_window_is_of_one_instant() -> None:
    history = HistoryBuffer()
    value = elsewhere(1.0)
    history.update(value)

    window = history.window()
    value.fill_(5.0)
    history.update(2.0)

    assert window.read().tolist() == [1.0]


def test_device_values_are_forgotten_with_their_history() -> None:
    history = HistoryBuffer(max_length=10)
    for number in range(1000):
        history.update(elsewhere(number))

    assert len(history._blocks) <= 2
    assert history.data[0].tolist() == list(range(990, 1000))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_values_on_a_real_device_are_read_in_a_window() -> None:
    history = HistoryBuffer()
    for number in range(100):
        history.update(torch.tensor(float(number), device="cuda"))

    assert history.window(70).read().tolist() == list(range(30, 100))


@pytest.mark.parametrize("value", [torch.zeros(2), "high", None])
def test_what_is_no_scalar_is_refused_with_its_name(hub: MessageHub, value: Any) -> None:
    with pytest.raises(ConfigError, match="'train/loss'"):
        hub.update_scalar("train/loss", value)


def test_an_empty_history_and_an_unknown_statistic_are_errors() -> None:
    with pytest.raises(ConfigError, match="without values"):
        HistoryBuffer().mean()
    with pytest.raises(ConfigError, match="Did you mean 'mean'"):
        HistoryBuffer([1.0]).statistics("men")


def test_scalars_and_infos_have_mmengines_methods(hub: MessageHub) -> None:
    hub.update_scalars({"loss": 0.5, "acc": {"value": 9.0, "count": 10}})
    hub.update_info_dict({"epoch": 3})

    assert hub.get_scalar("acc").mean() == 0.9
    assert (hub.get_info("epoch"), hub.get_info("iter", 0)) == (3, 0)
    assert hub.pop_info("epoch") == 3
    assert set(hub.log_scalars) == {"loss", "acc"}
    with pytest.raises(KeyError, match="no scalar 'lr'"):
        hub.get_scalar("lr")
    with pytest.raises(ConfigError, match="'value' is missing"):
        hub.update_scalars({"acc": {"count": 1}})


def test_a_state_survives_a_safe_checkpoint(hub: MessageHub, tmp_path: Path) -> None:
    for number in range(5):
        hub.update_scalar("train/loss", torch.tensor(float(number)))
    hub.update_info("plain", {"names": ["a", "b"], "size": (1, 2), "array": np.arange(3), "path": tmp_path})
    torch.save(hub.state_dict(), tmp_path / "hub.pth")

    loaded = MessageHub()
    loaded.load_state_dict(torch.load(tmp_path / "hub.pth", weights_only=True))

    assert loaded.get_scalar("train/loss").data[0].tolist() == [0, 1, 2, 3, 4]
    assert loaded.get_info("plain")["names"] == ["a", "b"]
    assert loaded.get_info("plain")["path"] == str(tmp_path)


def test_an_info_that_needs_code_to_load_is_left_out_aloud_once(
    hub: MessageHub, caplog: pytest.LogCaptureFixture
) -> None:
    hub.update_info("handle", io.BytesIO())

    states = [hub.state_dict(), hub.state_dict()]

    assert all("handle" not in state["runtime_info"] for state in states)
    assert caplog.text.count("leave out the info 'handle'") == 1


def test_what_is_not_resumed_stays_out_of_checkpoints(hub: MessageHub) -> None:
    hub.update_scalar("train/time", 1.0, resumed=False)
    hub.update_info("stage", "train", resumed=False)

    state = hub.state_dict()

    assert not state["log_scalars"]
    assert not state["runtime_info"]
    with pytest.raises(ConfigError, match="a key stays what it is"):
        hub.update_info("stage", "val", resumed=True)


def test_many_updates_leave_a_bounded_state(hub: MessageHub) -> None:
    for _ in range(50_000):
        hub.update_scalar("train/loss", 1.0)

    state = hub.state_dict()["log_scalars"]["train/loss"]

    assert sum(tensor.nbytes for tensor in state.values()) <= 160_000


def test_a_foreign_state_is_an_error_and_a_foreign_history_is_not(
    hub: MessageHub, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ForeignCheckpointError, match="log_scalars"):
        hub.load_state_dict({"scalars": {}})
    hub.load_state_dict({"log_scalars": {"loss": [1]}, "runtime_info": {"epoch": 2}, "resumed_keys": {}})
    assert hub.get_info("epoch") == 2
    assert "starts anew" in caplog.text
