"""A run that ends between a checkpoint and the evaluation after it makes up for that when it is resumed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from asynchooks.checkpoint import restore
from asynchooks.hooks import mmcv
from tests.runner.resuming import assert_equal

from .conftest import MakeRun, Numbers, loader
from .test_mmcv_resume_hooks import StopError

LIMITS = [pytest.param({"max_epochs": 4}, id="epochs"), pytest.param({"max_iters": 4}, id="iters")]


class Weighed(Numbers):
    """Evaluates to the sum of the model's parameters; notes after what, and raises there once where that is told."""

    def __init__(self) -> None:
        super().__init__(4)
        self.scores: list[float] = []
        self.stops_in: int | None = None  # this evaluation, counted from 1

    def evaluate(self, results: Any, logger: Any = None, **options: Any) -> dict[str, Any]:
        if len(self.scores) + 1 == self.stops_in:
            raise StopError
        self.scores.append(float(sum(results)))
        return {"acc": self.scores[-1]}


def _sum(model: Any, data_loader: Any) -> list[float]:
    return [float(parameter.detach().sum()) for parameter in model.parameters()]


Make = Callable[..., tuple[Any, Weighed]]


@pytest.fixture(params=[False, True], ids=["plain", "ema"])
def make(request: pytest.FixtureRequest, make_run: MakeRun, tmp_path: Path) -> Make:
    """Return a function that makes a runner, which saves and evaluates, and the data that it evaluates."""

    def make(folder: str, limit: dict[str, int], *, saves: Any = None, **options: Any) -> tuple[Any, Weighed]:
        data, by_epoch = Weighed(), "max_epochs" in limit
        out_dir = f"memory:/{tmp_path}"
        hooks = [
            mmcv.CheckpointHook(out_dir=out_dir, **(saves or {"interval": 1, "by_epoch": by_epoch})),
            mmcv.EvalHook(
                DataLoader(data),
                by_epoch=by_epoch,
                test_fn=_sum,
                save_best="acc",
                rule="less",
                out_dir=out_dir,
                **options,
            ),
            *([mmcv.EMAHook(momentum=0.3, warm_up=4)] if request.param else []),
        ]
        return make_run(*hooks, work_dir=tmp_path / folder, **limit), data

    return make


def stopped(make: Make, limit: dict[str, int], evaluation: int, **options: Any) -> tuple[str, list[float]]:
    """Return the last checkpoint of a run that ended in that evaluation, and the scores of those before."""
    runner, data = make("run", limit, **options)
    data.stops_in = evaluation
    with pytest.raises(StopError):
        runner.run([loader(12, shuffle=True)])
    return runner.message_hub.get_info("last_ckpt"), data.scores


def whole(make: Make, limit: dict[str, int], **options: Any) -> tuple[Any, list[float]]:
    runner, data = make("whole", limit, **options)
    runner.run([loader(12, shuffle=True)])
    return runner, data.scores


def resumed(make: Make, limit: dict[str, int], checkpoint: str, **options: Any) -> tuple[Any, list[float]]:
    runner, data = make("run", limit, **options)
    torch.manual_seed(1)  # another process has another random state
    runner.resume(checkpoint)
    runner.run([loader(12, shuffle=True)])
    return runner, data.scores


def saved(runner: Any, name: str) -> dict[str, Any]:
    content = restore(runner.message_hub.get_info(name))
    return {key: value for key, value in content.items() if key not in ("meta", "message_hub")}


@pytest.mark.parametrize("evaluation", [1, 3, 4])
@pytest.mark.parametrize("limit", LIMITS)
def test_an_evaluation_that_was_cut_off_is_made_up_for(
    make: Make, limit: dict[str, int], evaluation: int
) -> None:
    runner, scores = whole(make, limit)
    checkpoint, before = stopped(make, limit, evaluation)
    again, after = resumed(make, limit, checkpoint)

    assert before + after == scores
    assert_equal(saved(again, "last_ckpt"), saved(runner, "last_ckpt"))
    assert again.message_hub.get_info("best_score") == runner.message_hub.get_info("best_score")
    assert_equal(saved(again, "best_ckpt"), saved(runner, "best_ckpt"))


@pytest.mark.parametrize("limit", LIMITS)
def test_an_evaluation_that_was_not_due_is_not_made_up_for(make: Make, limit: dict[str, int]) -> None:
    runner, scores = whole(make, limit, interval=2)
    _, after = resumed(
        make, limit, runner.message_hub.get_info("last_ckpt").replace("_4.", "_3."), interval=2
    )

    assert len(scores) == 2
    assert after == scores[1:]


@pytest.mark.parametrize("limit", LIMITS)
def test_an_evaluation_that_has_finished_is_not_repeated(make: Make, limit: dict[str, int]) -> None:
    runner, scores = whole(make, limit)
    best = runner.message_hub.get_info("best_ckpt")  # saved after its evaluation
    number = int(Path(best).stem.rpartition("_")[2])
    _, after = resumed(make, limit, best)

    assert after == scores[number:]


def test_a_run_resumed_inside_an_epoch_repeats_no_evaluation(make: Make) -> None:
    limit, saves = {"max_epochs": 4}, {"interval": 4, "by_epoch": False, "save_last": False}
    runner, scores = whole(make, limit, saves=saves)
    last = runner.message_hub.get_info("last_ckpt")
    _, after = resumed(make, limit, last.replace("iter_12", "iter_8"), saves=saves)

    assert after == scores[2:]


def test_an_evaluation_made_up_for_is_the_one_before_a_training_too(make: Make) -> None:
    limit = {"max_epochs": 4}
    checkpoint, before = stopped(make, limit, 3, start=1)
    _, after = resumed(make, limit, checkpoint, start=1)

    assert len(before + after) == 4


def test_a_hook_that_served_another_run_evaluates_as_a_new_one(make: Make, make_run: MakeRun) -> None:
    runner, scores = whole(make, {"max_epochs": 2})
    hook = next(each for each in runner.hooks if isinstance(each, mmcv.EvalHook))
    make_run(hook, max_epochs=0).run([loader()])

    assert len(scores) == 2
    assert hook.state_dict() == {"last": None}
