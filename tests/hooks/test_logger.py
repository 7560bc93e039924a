"""What a run says, where it stands afterwards, and on which thread it was read."""

import json
import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from asynchooks.checkpoint import open_store
from asynchooks.errors import ConfigError, UnknownOptionError
from asynchooks.execution import HookExecutor
from asynchooks.hooks import CheckpointHook, LoggerHook, RuntimeInfoHook
from asynchooks.runner import TrainState


def log_folder(state: TrainState) -> Path:
    assert state.log_dir is not None
    return Path(state.log_dir)


def json_lines(state: TrainState) -> list[dict[str, Any]]:
    path = log_folder(state) / "vis_data" / f"{state.timestamp}.json"
    return [json.loads(line) for line in path.read_text().splitlines()]


def text_lines(state: TrainState) -> list[str]:
    path = log_folder(state) / f"{state.timestamp}.log"
    return [line.split(" ", 2)[2] for line in path.read_text().splitlines()]


def steps(state: TrainState, mode: str = "train") -> list[int]:
    return [line["step"] for line in json_lines(state) if line["mode"] == mode]


def test_every_so_many_iterations_of_an_epoch_are_filed(train: Any) -> None:
    state = train(RuntimeInfoHook(), LoggerHook(interval=2), epochs=2, iters=5)

    assert steps(state) == [2, 4, 7, 9]
    assert {"loss", "lr", "epoch", "iter", "mode", "step"} <= json_lines(state)[0].keys()


def test_the_rest_of_an_epoch_is_filed_where_it_is_not_ignored(train: Any) -> None:
    state = train(RuntimeInfoHook(), LoggerHook(interval=2, ignore_last=False), epochs=1, iters=5)

    assert steps(state) == [2, 4, 5]


def test_an_epoch_shorter_than_the_interval_is_filed_at_its_end(train: Any) -> None:
    state = train(RuntimeInfoHook(), LoggerHook(interval=10), epochs=1, iters=5)

    assert steps(state) == [5]


@pytest.mark.parametrize("sinks", [("terminal", "text", "json", "tensorboard")])
def test_sync_and_async_say_the_same_in_the_same_order(
    train: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, sinks: tuple[str, ...]
) -> None:
    said: dict[str, Any] = {}
    for mode in ("sync", "async"):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            state = train(
                RuntimeInfoHook(),
                LoggerHook(interval=1, interval_exp_name=-1, sinks=sinks),
                epochs=5,
                iters=3,
                metrics=[{"acc": 0.5}] * 5,
                mode=mode,
                work_dir=tmp_path / mode,
            )
        terminal = [r.message for r in caplog.records if r.message.startswith("Epoch")]
        without_names = [line for line in text_lines(state) if line.startswith("Epoch")]
        said[mode] = (terminal, without_names, json_lines(state), events(state))

    assert said["sync"] == said["async"]
    terminal, text, lines, recorded = said["sync"]
    assert text == terminal
    assert len(terminal) == 5 * 3 + 5 + 5
    assert [step for tag, step, _ in recorded if tag == "train/loss"] == list(range(1, 16))
    assert [line["step"] for line in lines if line["mode"] == "val"] == [1, 2, 3, 4, 5]


def events(state: TrainState) -> list[tuple[str, int, float]]:
    from tensorboard.backend.event_processing.event_file_loader import (  # type: ignore[import-untyped]
        LegacyEventFileLoader,
    )

    (path,) = (log_folder(state) / "vis_data").glob("events.*")
    return [
        (value.tag, event.step, round(value.simple_value, 5))
        for event in LegacyEventFileLoader(str(path)).Load()
        for value in event.summary.value
    ]


class Watched(torch.Tensor):
    """A loss that notes on which thread its number is read, as a read is what waits for a device."""

    readers: ClassVar[set[int]] = set()

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.__name__ in {"item", "tolist", "__float__", "__bool__", "numpy", "cpu", "to", "__format__"}:
            cls.readers.add(threading.get_ident())
        return super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]


@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="a loss on the CPU is read at no cost, and so at once"
)
def test_no_loss_is_read_on_the_training_thread(make_state: Callable[..., TrainState]) -> None:
    state = make_state()
    Watched.readers.clear()
    loss = torch.tensor(0.5, device="cuda").as_subclass(Watched)
    with HookExecutor([RuntimeInfoHook(), LoggerHook(interval=2)]) as executor:
        for step in range(8):
            executor.fire("before_train_iter", state, batch_idx=step)
            executor.fire("after_train_iter", state, batch_idx=step, outputs={"loss": loss})

    assert json_lines(state)[-1]["loss"] == 0.5
    assert Watched.readers
    assert threading.get_ident() not in Watched.readers


def test_a_loop_with_a_logger_and_a_checkpoint_hook_alone_logs_its_losses(
    make_state: Callable[..., TrainState], tmp_path: Path
) -> None:
    state = make_state(tmp_path)
    hooks = [LoggerHook(interval=2), CheckpointHook(interval=4, by_epoch=False)]
    with HookExecutor(hooks) as executor:
        for step in range(4):
            executor.fire("before_train_iter", state, batch_idx=step, data_batch=None)
            outputs = {"loss": torch.tensor(float(step))}
            executor.fire("after_train_iter", state, batch_idx=step, data_batch=None, outputs=outputs)

    assert [(line["step"], line["loss"]) for line in json_lines(state)] == [(2, 0.5), (4, 1.5)]
    assert json_lines(state)[0]["lr"] == pytest.approx(0.1)


def test_a_loss_that_is_no_number_any_more_is_still_standard_json(
    make_state: Callable[..., TrainState],
) -> None:
    state = make_state()
    with HookExecutor([LoggerHook(interval=1)]) as executor:
        executor.fire("after_train_iter", state, batch_idx=0, outputs={"loss": float("nan")})

    assert json_lines(state)[0]["loss"] == "nan"


def test_metrics_are_filed_under_the_epoch_or_the_iteration(train: Any, tmp_path: Path) -> None:
    for by_epoch, step in ((True, 1), (False, 3)):
        hook = LoggerHook(log_metric_by_epoch=by_epoch)
        state = train(
            RuntimeInfoHook(),
            hook,
            epochs=1,
            iters=3,
            metrics=[{"acc": 0.25}],
            work_dir=tmp_path / str(by_epoch),
        )

        (line,) = (line for line in json_lines(state) if line["mode"] == "val")
        assert (line["step"], line["acc"]) == (step, 0.25)


def test_the_metrics_of_a_test_are_added_to_the_file(
    train: Any, make_state: Callable[..., TrainState]
) -> None:
    state = make_state(epochs=1)
    hook = LoggerHook(interval=1)
    train(hook, state=state, epochs=1)
    before = len(json_lines(state))
    with HookExecutor([hook]) as executor:
        executor.fire("after_test_epoch", state, metrics={"acc": 0.5})

    assert len(json_lines(state)) == before + 1
    assert json_lines(state)[-1]["acc"] == 0.5


def test_the_experiment_is_named_every_so_often_and_at_the_end_of_an_epoch(train: Any) -> None:
    state = train(LoggerHook(interval=2, interval_exp_name=2), epochs=2, iters=3)

    named = [line for line in text_lines(state) if not line.startswith("Epoch")]
    assert named == [f"Exp name: {state.experiment_name}"] * 4  # iterations 2, 3, 4, 6


def test_logs_are_copied_to_a_store_while_the_run_goes_on(
    make_state: Callable[..., TrainState], tmp_path: Path
) -> None:
    state = make_state(tmp_path / "run")
    hook = LoggerHook(interval=1, out_dir="memory://copied", sync_interval_s=1e-9)
    with HookExecutor([hook]) as executor:
        for step in range(3):
            executor.fire("after_train_iter", state, batch_idx=step, outputs={"loss": 1.0})

    # no after_run: the run has stopped in the middle
    assert list(open_store("memory://copied/run").entries()) == [f"{state.timestamp}.log"]
    store = open_store("memory://copied/run/vis_data")
    assert sorted(store.entries()) == [f"{state.timestamp}.json", "scalars.json"]
    copied = b"".join(bytes(piece) for piece in store.read(f"{state.timestamp}.json"))
    assert copied.decode().count("\n") == 3


def test_local_logs_go_when_they_are_copied_and_not_to_be_kept(train: Any, tmp_path: Path) -> None:
    hook = LoggerHook(interval=1, out_dir=str(tmp_path / "out"), keep_local=False)
    state = train(hook, epochs=2, work_dir=tmp_path / "run")

    assert [path for path in log_folder(state).rglob("*") if path.is_file()] == []
    copied = tmp_path / "out" / "run" / "vis_data" / f"{state.timestamp}.json"
    assert len(copied.read_text().splitlines()) == 4


def test_a_sink_that_fails_neither_stops_the_run_nor_the_other_sinks(
    train: Any, make_state: Callable[..., TrainState], caplog: pytest.LogCaptureFixture
) -> None:
    state = make_state(epochs=2)
    in_the_way = log_folder(state) / "vis_data" / "scalars.json"
    in_the_way.mkdir(parents=True)
    train(LoggerHook(interval=1, interval_exp_name=-1), state=state, epochs=2)

    assert len([line for line in text_lines(state) if line.startswith("Epoch")]) == 4
    assert "LoggerHook.after_train_iter failed in the background" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"intervall": 5}, UnknownOptionError, "Did you mean 'interval'"),
        ({"interval": 0}, ConfigError, ">= 1"),
        ({"interval": "10"}, TypeError, "interval='10'"),
        ({"interval_exp_name": 1.5}, TypeError, "interval_exp_name"),
        ({"ignore_last": 1}, TypeError, "ignore_last=1"),
        ({"keep_local": "no"}, TypeError, "keep_local='no'"),
        ({"keep_local": False}, ConfigError, "out_dir"),
        ({"backend_args": {"key": "x"}}, ConfigError, "out_dir is missing"),
        ({"out_dir": "memory://x", "sync_interval_s": 0}, ConfigError, "above 0"),
        ({"out_dir": 3}, TypeError, "out_dir=3"),
        ({"out_dir": "memory://x", "out_suffix": [1]}, TypeError, "out_suffix"),
        ({"out_dir": "nosuch://x"}, ConfigError, "nosuch"),
        ({"sinks": ["jason"]}, UnknownOptionError, "Did you mean 'json'"),
        ({"out_dir": "a", "backend_args": {}, "file_client_args": {}}, ConfigError, "old name"),
    ],
)
def test_a_wrong_argument_is_named_at_construction(
    arguments: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error) as caught:
        LoggerHook(**arguments)

    assert words in str(caught.value)


def test_tensorboard_without_its_package_is_an_error_at_construction() -> None:
    script = (
        "import sys; sys.modules['tensorboard'] = None\n"
        "from asynchooks.hooks import LoggerHook\n"
        "LoggerHook(sinks=['tensorboard'])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert "pip install 'asynchooks[tensorboard]'" in done.stderr
