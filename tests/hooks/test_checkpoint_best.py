"""Which checkpoint is the best, and what becomes of the one before."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from asynchooks.checkpoint import list_checkpoints, read_pointer, restore
from asynchooks.hooks import CheckpointHook
from asynchooks.runner import TrainState

Names = Callable[[Path], list[str]]


def accuracies(*values: float | None) -> list[Mapping[str, Any]]:
    return [{"acc": value} for value in values]


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_the_best_is_kept_and_the_one_before_removed(
    train: Any, names: Names, tmp_path: Path, mode: str
) -> None:
    hook = CheckpointHook(save_best="acc", save_last=False)
    train(hook, metrics=accuracies(0.1, 0.5, 0.3, 0.5), mode=mode, work_dir=tmp_path)

    assert names(tmp_path) == ["best_acc_epoch_2.pth"]
    assert read_pointer(tmp_path, "best") == str(tmp_path / "best_acc_epoch_2.pth")
    assert list_checkpoints(tmp_path)[0].metrics == {"acc": 0.5}


def test_the_best_holds_weights_alone_unless_it_is_to_be_full(train: Any, tmp_path: Path) -> None:
    for full in (False, True):
        hook = CheckpointHook(save_best="acc", save_last=False, save_best_full=full)
        train(hook, epochs=1, metrics=accuracies(0.1), work_dir=tmp_path / str(full))

        saved = restore(tmp_path / str(full) / "best_acc_epoch_1.pth")
        assert ("optimizer" in saved, "param_schedulers" in saved) == (full, full)


def test_the_best_knows_its_score(train: Any, tmp_path: Path) -> None:
    state = train(CheckpointHook(save_best="acc"), epochs=2, metrics=accuracies(0.4, 0.2), work_dir=tmp_path)

    infos = restore(tmp_path / "best_acc_epoch_1.pth")["message_hub"]["runtime_info"]
    assert infos["best_score"] == 0.4
    assert infos["best_ckpt"] == str(tmp_path / "best_acc_epoch_1.pth")
    assert state.message_hub.get_info("best_score") == 0.4


def test_a_best_between_two_saves_of_the_interval_saves_its_step_too(
    train: Any, names: Names, tmp_path: Path
) -> None:
    hook = CheckpointHook(interval=2, save_best="acc", save_last=False)
    train(hook, epochs=3, metrics=accuracies(0.1, 0.2, 0.3), work_dir=tmp_path)

    assert names(tmp_path) == ["best_acc_epoch_3.pth", "epoch_2.pth", "epoch_3.pth"]
    step, best = (restore(tmp_path / name) for name in ("epoch_3.pth", "best_acc_epoch_3.pth"))
    assert step["message_hub"]["runtime_info"]["best_score"] == 0.3
    assert all(map(torch.equal, step["state_dict"].values(), best["state_dict"].values()))


def test_a_step_that_is_saved_already_is_not_saved_again_for_its_best(train: Any, tmp_path: Path) -> None:
    heard: list[str] = []

    class Listener:
        async def after_save_checkpoint(self, runner: Any, path: str, meta: Any) -> None:
            heard.append(Path(path).name)

    hook = CheckpointHook(interval=1, save_best="acc")
    train(hook, Listener(), epochs=2, metrics=accuracies(0.1, 0.2), work_dir=tmp_path)

    assert heard == ["epoch_1.pth", "best_acc_epoch_1.pth", "epoch_2.pth", "best_acc_epoch_2.pth"]


def test_several_metrics_have_a_best_each(train: Any, names: Names, tmp_path: Path) -> None:
    hook = CheckpointHook(save_best=["acc", "val/loss"], save_last=False)
    metrics = [{"acc": 0.1, "val/loss": 1.0}, {"acc": 0.3, "val/loss": 2.0}, {"acc": 0.2, "val/loss": 0.5}]
    state = train(hook, epochs=3, metrics=metrics, work_dir=tmp_path)

    assert names(tmp_path) == ["best_acc_epoch_2.pth", "best_val_loss_epoch_3.pth"]
    assert state.message_hub.get_info("best_score_acc") == 0.3
    assert state.message_hub.get_info("best_ckpt_val/loss") == str(tmp_path / "best_val_loss_epoch_3.pth")


def test_the_hook_says_where_its_checkpoints_are(train: Any, tmp_path: Path) -> None:
    one, two = CheckpointHook(save_best="acc"), CheckpointHook(save_best=["acc", "loss"])
    assert (one.last_ckpt, one.best_ckpt_path, two.best_ckpt_path_dict) == (
        None,
        None,
        {"acc": None, "loss": None},
    )
    for hook, folder in ((one, tmp_path / "one"), (two, tmp_path / "two")):
        train(hook, epochs=2, metrics=[{"acc": 0.5, "loss": 0.5}, {"acc": 0.4, "loss": 0.4}], work_dir=folder)

    assert one.last_ckpt == str(tmp_path / "one" / "epoch_2.pth")
    assert one.best_ckpt_path == str(tmp_path / "one" / "best_acc_epoch_1.pth")
    assert two.best_ckpt_path is None
    assert two.best_ckpt_path_dict == {
        "acc": str(tmp_path / "two" / "best_acc_epoch_1.pth"),
        "loss": str(tmp_path / "two" / "best_loss_epoch_2.pth"),
    }


def test_auto_takes_the_first_metric_of_the_first_validation(
    train: Any, names: Names, tmp_path: Path
) -> None:
    metrics = [{"mIoU": 0.1, "acc": 0.9}, {"mIoU": 0.2, "acc": 0.1}]
    train(CheckpointHook(save_best="auto", save_last=False), epochs=2, metrics=metrics, work_dir=tmp_path)

    assert names(tmp_path) == ["best_mIoU_epoch_2.pth"]


def test_iterations_name_the_best_where_they_are_counted(train: Any, names: Names, tmp_path: Path) -> None:
    hook = CheckpointHook(by_epoch=False, save_best="acc", save_last=False)
    train(hook, epochs=1, iters=3, metrics=accuracies(0.1), work_dir=tmp_path)

    assert names(tmp_path) == ["best_acc_iter_3.pth"]


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ((0.0,), "best_acc_epoch_1.pth"),
        ((None, 0.2), "best_acc_epoch_2.pth"),
        ((float("nan"), -1.0), "best_acc_epoch_2.pth"),
        ((torch.tensor(0.3), 0.1), "best_acc_epoch_1.pth"),
        ((np.float32(0.3), 0.4), "best_acc_epoch_2.pth"),
    ],
)
def test_zero_is_a_score_and_none_and_nan_are_not(
    train: Any, names: Names, tmp_path: Path, scores: Sequence[Any], best: str
) -> None:
    hook = CheckpointHook(save_best="acc", save_last=False)
    train(hook, epochs=len(scores), metrics=accuracies(*scores), work_dir=tmp_path)

    assert names(tmp_path) == [best]


def test_less_is_better_where_the_rule_says_so(train: Any, names: Names, tmp_path: Path) -> None:
    hook = CheckpointHook(save_best="accuracy", rule="less", save_last=False)
    train(hook, epochs=2, metrics=[{"accuracy": value} for value in (0.1, 0.2)], work_dir=tmp_path)

    assert names(tmp_path) == ["best_accuracy_epoch_1.pth"]


def test_one_rule_serves_all_metrics_and_a_list_each(train: Any, names: Names, tmp_path: Path) -> None:
    metrics = [{"a": 1.0, "b": 1.0}, {"a": 2.0, "b": 2.0}]
    for folder, rule in (("one", "greater"), ("each", ["greater", "less"])):
        hook = CheckpointHook(save_best=["a", "b"], rule=rule, save_last=False)
        train(hook, epochs=2, metrics=metrics, work_dir=tmp_path / folder)

    assert names(tmp_path / "one") == ["best_a_epoch_2.pth", "best_b_epoch_2.pth"]
    assert names(tmp_path / "each") == ["best_a_epoch_2.pth", "best_b_epoch_1.pth"]


def test_a_metric_that_no_validation_has_is_an_error_with_the_near_one(train: Any, tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="Did you mean 'accuracy'"):
        train(
            CheckpointHook(save_best="accuracyy", rule="greater"),
            epochs=1,
            metrics=[{"accuracy": 1.0}],
            work_dir=tmp_path,
        )


def test_one_of_several_metrics_may_be_missing_from_a_validation(
    train: Any, names: Names, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hook = CheckpointHook(save_best=["acc", "loss"], save_last=False)
    metrics = [{"acc": 0.1, "loss": 1.0}, {"acc": 0.2}]
    train(hook, epochs=2, metrics=metrics, work_dir=tmp_path)

    assert names(tmp_path) == ["best_acc_epoch_2.pth", "best_loss_epoch_1.pth"]
    assert "loss is not among this validation's metrics" in caplog.text


def test_a_validation_without_metrics_chooses_nothing_and_says_so(
    train: Any, names: Names, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hook = CheckpointHook(save_best="acc", save_last=False)
    train(hook, epochs=2, metrics=[None, {}], work_dir=tmp_path)

    assert names(tmp_path) == []
    assert caplog.text.count("has no metrics") == 2


def test_a_validation_outside_of_training_saves_nothing(
    train: Any, make_state: Callable[..., TrainState], names: Names, tmp_path: Path
) -> None:
    hook = CheckpointHook(save_best="acc", save_last=False)
    state = make_state(tmp_path)
    hook.before_run(state)
    assert hook.after_val_epoch(state, metrics={"acc": 1.0}) is None
    train(hook, epochs=1, metrics=accuracies(0.5), work_dir=tmp_path)
    hook.before_run(state)
    assert hook.after_val_epoch(state, metrics={"acc": 1.0}) is None

    assert names(tmp_path) == ["best_acc_epoch_1.pth"]


def test_a_resumed_run_compares_with_the_best_of_the_run_before(
    train: Any, make_state: Callable[..., TrainState], names: Names, tmp_path: Path
) -> None:
    train(
        CheckpointHook(interval=1, save_best="acc"),
        epochs=2,
        metrics=accuracies(0.1, 0.9),
        work_dir=tmp_path,
    )
    state = make_state(tmp_path)
    state.resume(tmp_path / "epoch_2.pth")  # captured before its validation, so it does not know 0.9
    train(
        CheckpointHook(interval=1, save_best="acc"),
        epochs=3,
        metrics=[None, None, {"acc": 0.5}],
        state=state,
    )

    assert [name for name in names(tmp_path) if name.startswith("best")] == ["best_acc_epoch_2.pth"]
    assert state.message_hub.get_info("best_score") == 0.9


def test_a_resumed_run_forgets_a_best_that_it_trains_again(
    train: Any, make_state: Callable[..., TrainState], names: Names, tmp_path: Path
) -> None:
    train(
        CheckpointHook(interval=1, save_best="acc"),
        epochs=3,
        metrics=accuracies(0.1, 0.2, 0.9),
        work_dir=tmp_path,
    )
    state = make_state(tmp_path)
    state.resume(tmp_path / "epoch_2.pth")
    train(
        CheckpointHook(interval=1, save_best="acc"),
        epochs=3,
        metrics=[None, None, {"acc": 0.5}],
        state=state,
    )

    assert state.message_hub.get_info("best_score") == 0.5
