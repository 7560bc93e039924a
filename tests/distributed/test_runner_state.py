"""A run's state on ranks: whole in one file or in parts, taken up by any number of ranks."""

import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from asynchooks import Hook, Runner
from asynchooks.testing import run_ranks
from tests.distributed.runs import DATA, Lines, Losses, Net, run_of, seeded, weights

pytestmark = pytest.mark.ranks

TOLERANCE = 1e-6  # sums of float32 in another order
SAVES = {"format": "single", "type": "CheckpointHook", "by_epoch": False, "interval": 2, "save_last": False}


class StoppedError(Exception):
    """Ends a run in the middle of an epoch."""


class Stopper(Losses):
    """Stops the run after so many iterations."""

    priority = "LOWEST"

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after

    def after_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        if runner.iter + 1 == self.after:
            raise StoppedError


def run_that_saves(folder: str, strategy: str | None, hooks: list[Any], **options: Any) -> Runner:
    return run_of(
        folder,
        model=seeded(Net, dropout=0.5),
        strategy=strategy and {"type": strategy},
        custom_hooks=hooks,
        default_hooks={"checkpoint": SAVES, "logger": None},
        randomness={"seed": 3, "diff_rank_seed": True},
        optim_wrapper={"optimizer": {"type": "AdamW", "lr": 0.01}, "accumulative_counts": 3},
        **options,
    )


def stops_and_resumes(rank: int, folder: str, strategy: str) -> Any:
    """Train without an interruption, and again with one after a save, resumed; losses and weights of both.

    The save is in the middle of an epoch, and of losses whose gradients are summed up.
    """
    whole = Losses()
    runner = run_that_saves(f"{folder}/whole", strategy, [whole])
    runner.train()
    expected = whole.values, weights(runner.model)
    first, second = Losses(), Losses()
    with pytest.raises(StoppedError):
        run_that_saves(f"{folder}/parts", strategy, [first, Stopper(4)]).train()
    runner = run_that_saves(f"{folder}/parts", strategy, [second], resume=True)
    lines = Lines()
    runner.train()
    return expected, (first.values + second.values, weights(runner.model)), lines.lines


@pytest.mark.parametrize("strategy", ["DDP", "FSDP2"])
def test_a_run_resumed_on_as_many_ranks_is_bit_identical(tmp_path: Path, strategy: str) -> None:
    for expected, came, said in run_ranks(2, stops_and_resumes, str(tmp_path), strategy, with_group=False):
        assert came == expected
        assert not any("without the gradients" in line for line in said)


class Noise(Dataset[Tensor]):
    """Samples that every generator of the process that makes them has drawn."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Tensor:
        return torch.tensor([float(torch.rand(())), random.random(), np.random.random()])  # noqa: NPY002


class Keeps(Hook):
    """Keeps the batches."""

    def __init__(self) -> None:
        self.batches: list[Any] = []

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        self.batches.append(data_batch.tolist())


class Averages(nn.Linear):
    def forward(self, batch: Tensor) -> Tensor:
        return super().forward(batch).mean()


def draws_in_workers(rank: int, folder: str) -> Any:
    """Train two epochs, and the second one again from a checkpoint; the batches of both."""
    keeps = Keeps(), Keeps()
    workers = {"num_workers": 1, "multiprocessing_context": "fork"}  # which has torch loaded
    for each in keeps:
        run_of(
            folder,
            model=Averages(3, 1),
            train_dataloader={"dataset": Noise(), "batch_size": 2, **workers},
            randomness={"seed": 0},
            custom_hooks=[each],
            default_hooks={"checkpoint": {"type": "CheckpointHook", "interval": 1}, "logger": None},
            load_from=f"{folder}/epoch_1.pth" if each is keeps[1] else None,
            resume=each is keeps[1],
        ).train()
    return [each.batches for each in keeps]


def test_workers_draw_other_random_numbers_on_each_rank_and_the_same_after_a_resume(tmp_path: Path) -> None:
    ranks = run_ranks(2, draws_in_workers, str(tmp_path), with_group=False)

    ((first, second), resumed), (of_other, resumed_of_other) = ranks
    assert [resumed, resumed_of_other] == [[second], of_other[1:]]
    assert len({value for batch in (first, second, *of_other) for noise in batch for value in noise}) == 24


def saves(rank: int, folder: str, strategy: str | None, batch_size: int) -> None:
    """Save after two iterations, and stop."""
    runner = run_of(
        folder,
        batch_size=batch_size,
        strategy=strategy and {"type": strategy},
        custom_hooks=[Stopper(2)],
        default_hooks={"checkpoint": SAVES, "logger": None},
    )
    with pytest.raises(StoppedError):
        runner.train()


def resumes(rank: int, folder: str, strategy: str | None, batch_size: int) -> Any:
    losses = Losses()
    runner = run_of(
        folder,
        batch_size=batch_size,
        strategy=strategy and {"type": strategy},
        custom_hooks=[losses],
        resume=True,
    )
    runner.train()
    return losses.values, weights(runner.model)


class Drawn(Losses):
    """Keeps which samples a rank has trained on."""

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        self.values += [float(value) for value in data_batch[0][:, 0]]


def draws(rank: int, folder: str, batch_size: int, resume: bool, sampler: str) -> Any:
    """Train an epoch, to its end where it is resumed; the samples, and whether the run knew its last iteration."""
    drawn = Drawn()
    iterations = {"by_epoch": False, "max_iters": 6} if sampler == "InfiniteSampler" else None
    runner = run_of(
        folder,
        train_dataloader={"dataset": DATA, "batch_size": batch_size, "sampler": {"type": sampler}},
        train_cfg=iterations or {"by_epoch": True, "max_epochs": 1},
        custom_hooks=[drawn] if resume else [drawn, Stopper(2)],
        default_hooks={"checkpoint": SAVES, "logger": None},
        resume=resume,
    )
    with suppress(StoppedError):
        runner.train()
    return drawn.values, runner.iter == runner.max_iters


def all_drawn(ranks: list[Any]) -> list[float]:
    return sorted(value for values, _ in ranks for value in values)


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (3, 2)])
def test_other_ranks_go_on_after_the_samples_that_are_done(tmp_path: Path, before: int, after: int) -> None:
    options = (str(tmp_path), 3, False, "DefaultSampler")
    first = run_ranks(before, draws, *options, with_group=False)
    second = run_ranks(after, draws, *options[:2], True, options[3], with_group=False)

    together = all_drawn(first) + all_drawn(second)
    expected = sorted(float(sample[0][0]) for sample in DATA)
    assert set(together) == set(expected)
    assert len(together) - len(expected) < after  # filled up for the last batch of all ranks
    assert all(knew for _, knew in second)


@pytest.mark.parametrize(("saved_by", "taken_up_by"), [("FSDP2", None), (None, "FSDP2"), ("FSDP2", "DDP")])
def test_a_single_file_is_taken_up_by_any_strategy(
    tmp_path: Path, saved_by: str | None, taken_up_by: str | None
) -> None:
    """The global batch is the same, so the losses are, but for the order of sums."""
    saver, taker = 2 if saved_by else 1, 2 if taken_up_by else 1
    run_ranks(saver, saves, str(tmp_path), saved_by, 8 // saver, with_group=False)
    one = run_ranks(1, resumes, str(tmp_path), None, 8, with_group=False)

    ranks = run_ranks(taker, resumes, str(tmp_path), taken_up_by, 8 // taker, with_group=False)

    for losses in zip(*(rank[0] for rank in ranks), one[0][0], strict=True):
        *each, whole = losses
        assert sum(each) / len(each) == pytest.approx(whole, abs=TOLERANCE)
    for name, numbers in one[0][1].items():
        assert all(rank[1][name] == pytest.approx(numbers, abs=TOLERANCE) for rank in ranks), name


def test_a_single_file_of_a_sharded_run_is_one_for_plain_torch(tmp_path: Path) -> None:
    run_ranks(2, saves, str(tmp_path), "FSDP2", 4, with_group=False)
    content = torch.load(tmp_path / "iter_2.pth", weights_only=True)
    model = Net()
    optimizer = torch.optim.AdamW(model.parameters())

    model.load_state_dict(content["state_dict"])
    optimizer.load_state_dict(content["optimizer"])

    state = optimizer.state[model.head.weight]
    assert state["exp_avg"].shape == (1, 4)
    assert float(state["step"]) == 2
