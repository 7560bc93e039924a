"""A Runner on several ranks trains as one process does with their batches together."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from asynchooks import Runner
from asynchooks.errors import ConfigError
from asynchooks.testing import run_ranks
from tests.distributed.runs import DATA, Lines, Net, StepNet, run_of, seeded, trained, weights

pytestmark = pytest.mark.ranks

TOLERANCE = 1e-6  # sums of float32 in another order
EVALUATED = {"val_dataloader": {"dataset": DATA[:19], "batch_size": 3}}  # 10 and 9 samples, 4 and 3 batches


def trains(rank: int, folder: str, options: dict[str, Any]) -> Any:
    model = seeded(StepNet if options.pop("own_step", False) else Net)
    if rank:
        nn.init.zeros_(model.head.weight)  # type: ignore[arg-type, union-attr]
    return trained(folder, model=model, **options)


def trains_wrapped(rank: int, folder: str, how: str, own_step: bool) -> Any:
    model = seeded(StepNet if own_step else Net)
    if how == "DDP":
        model = nn.parallel.DistributedDataParallel(model)
    else:
        from torch.distributed.fsdp import fully_shard

        fully_shard(model)
    losses, whole, metrics = trained(folder, model=model, **EVALUATED)
    return losses, {name.removeprefix("module."): value for name, value in whole.items()}, metrics


class PassedBy(Net):
    def train_step(self, data: Any, optim_wrapper: Any) -> None:
        optim_wrapper.update_params(((self.head(data[0]) - data[1]) ** 2).mean())


def passes_by(rank: int, folder: str) -> str:
    with pytest.raises(ConfigError) as raised:
        run_of(folder, model=PassedBy()).train()
    return str(raised.value)


def names_modules(rank: int, folder: str) -> Any:
    runner = run_of(folder, model=PassedBy(), strategy={"type": "DDP", "modules": ["head"]})
    runner.train()
    return weights(runner.model)


def warns(rank: int, folder: str) -> list[str]:
    lines = Lines()
    data: Any = DATA
    loader: Any = torch.utils.data.DataLoader(data, batch_size=4, shuffle=True)
    run_of(folder, train_dataloader=loader).train()
    return lines.lines


class Samples:
    """Counts its own rank's samples."""

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.count = getattr(self, "count", 0) + len(data_batch[0])

    def evaluate(self, size: int) -> dict[str, int]:
        return {"samples": self.count}


class Predicts(Net):
    def val_step(self, data: Any) -> Any:
        return data


def measures(rank: int, folder: str) -> Any:
    lines = Lines()
    runner = run_of(
        folder,
        model=Predicts(),
        val_dataloader={"dataset": DATA[:23], "batch_size": 3},
        val_evaluator=Samples(),
    )
    return runner.val(), lines.lines


def logs(rank: int, folder: str) -> Any:
    lines = Lines()
    hooks = {"checkpoint": None, "logger": {"type": "LoggerHook", "interval": 1}}
    runner = run_of(folder, default_hooks=hooks)
    runner.train()
    return runner.log_dir, lines.lines


def check_alike(ranks: list[Any], one: Any) -> None:
    for losses in zip(*(rank[0] for rank in ranks), one[0], strict=True):
        *each, whole = losses
        assert sum(each) / len(each) == pytest.approx(whole, abs=TOLERANCE)
    assert all(rank[1:] == ranks[0][1:] for rank in ranks)
    for name, numbers in one[1].items():
        assert ranks[0][1][name] == pytest.approx(numbers, abs=TOLERANCE), name
    assert ranks[0][2] == pytest.approx(one[2], abs=TOLERANCE)


@pytest.mark.parametrize("own_step", [False, True], ids=["forward", "train_step"])
@pytest.mark.parametrize("strategy", ["DDP", "FSDP2"])
def test_two_ranks_train_and_evaluate_as_one_with_their_batches_together(
    tmp_path: Path, strategy: str, own_step: bool
) -> None:
    one = trained(tmp_path / "one", batch_size=8, model=seeded(StepNet if own_step else Net), **EVALUATED)

    options = {"strategy": {"type": strategy}, "own_step": own_step, **EVALUATED}
    ranks = run_ranks(2, trains, str(tmp_path / "two"), options, with_group=False)

    check_alike(ranks, one)


@pytest.mark.parametrize("own_step", [False, True], ids=["forward", "train_step"])
@pytest.mark.parametrize("how", ["DDP", "FSDP2"])
def test_a_model_that_was_wrapped_before_is_used_as_it_is(tmp_path: Path, how: str, own_step: bool) -> None:
    one = trained(tmp_path / "one", batch_size=8, model=seeded(StepNet if own_step else Net), **EVALUATED)

    ranks = run_ranks(2, trains_wrapped, str(tmp_path / "two"), how, own_step)

    check_alike(ranks, one)


def test_a_rank_may_have_nothing_to_evaluate(tmp_path: Path) -> None:
    options = {"strategy": {"type": "FSDP2"}, "val_dataloader": {"dataset": DATA[:1], "batch_size": 3}}
    first, second = run_ranks(2, trains, str(tmp_path), options, with_group=False)

    assert first[2] == second[2]


def test_a_loader_that_is_not_shared_is_said_once_and_loudly(tmp_path: Path) -> None:
    first, second = run_ranks(2, warns, str(tmp_path), with_group=False)

    assert len(first) == 1
    assert "every one of the 2 ranks draws all samples" in first[0]
    assert second == []


def test_a_metric_that_is_not_gathered_is_the_first_ranks_and_said(tmp_path: Path) -> None:
    (metrics, _), (of_second, said) = run_ranks(2, measures, str(tmp_path), with_group=False)

    assert metrics == of_second == {"samples": 12}
    assert any("metrics differ from the first rank's" in line for line in said)


def test_the_first_rank_alone_writes_and_logs(tmp_path: Path) -> None:
    first, second = run_ranks(2, logs, str(tmp_path), with_group=False)

    assert first[0] == second[0]  # folder
    assert any("Epoch(train)" in line for line in first[1])
    assert second[1] == []


def test_a_train_step_that_goes_past_the_forward_is_an_error(tmp_path: Path) -> None:
    first, _ = run_ranks(2, passes_by, str(tmp_path), with_group=False)

    assert "the ranks would train apart" in first


def test_a_train_step_may_call_submodules_that_are_named(tmp_path: Path) -> None:
    first, second = run_ranks(2, names_modules, str(tmp_path), with_group=False)

    assert first["head.weight"] == second["head.weight"]


def test_a_wrong_strategy_is_an_error_where_it_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"No strategy is called 'FSDP3'. Did you mean 'FSDP2'"):
        Runner(Net(), tmp_path, strategy={"type": "FSDP3"})
    with pytest.raises(ConfigError, match="takes no argument 'find_unused'"):
        Runner(Net(), tmp_path, strategy={"type": "DDP", "find_unused": True})
