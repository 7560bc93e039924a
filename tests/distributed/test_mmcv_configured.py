"""A configuration of MMCV 1.x's form, run by several ranks."""

from pathlib import Path
from typing import Any

import pytest
from torch import Tensor
from torch.utils.data import Dataset

from asynchooks.errors import ConfigError
from asynchooks.runner.mmcv import ConfiguredRun
from asynchooks.testing import run_ranks
from tests.distributed.runs import DATA, Lines, Net, seeded, weights

pytestmark = pytest.mark.ranks


class Samples(Dataset[tuple[Tensor, Tensor]]):
    """Data that say how many results came, and in which order."""

    def __init__(self, size: int) -> None:
        self._size = size
        self.evaluated: list[list[float]] = []

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return DATA[index]

    def evaluate(self, results: list[Tensor], logger: Any = None) -> dict[str, float]:
        self.evaluated.append([float(result) for result in results])
        return {"acc": 0.5}


class OldNet(Net):
    """Has MMCV's steps."""

    def train_step(self, data: Any, optimizer: Any) -> dict[str, Any]:
        loss = self(data)
        return {"loss": loss, "log_vars": {"loss": loss.detach()}, "num_samples": len(data[0])}

    def test_step(self, data: Any) -> Tensor:
        return data[1].flatten()  # type: ignore[no-any-return]


class PastForward(OldNet):
    """Its step does not call the model, so that nothing exchanges its gradients."""

    def train_step(self, data: Any, optimizer: Any) -> dict[str, Any]:
        return {"loss": self.forward(data), "log_vars": {}, "num_samples": 1}


def configured(folder: str, batch_size: int, val: Samples | None = None, **changes: Any) -> ConfiguredRun:
    return ConfiguredRun.from_cfg(
        {
            "model": seeded(OldNet),
            "data": {
                "samples_per_gpu": batch_size,
                "train": Samples(24),
                "val": val,
                "train_dataloader": {"shuffle": False},
            },
            "optimizer": {"type": "SGD", "lr": 0.1},
            "optimizer_config": {"grad_clip": {"max_norm": 0.5}},
            "lr_config": {"policy": "fixed"},
            "runner": {"type": "EpochBasedRunner", "max_epochs": 1},
            "checkpoint_config": {"interval": 1},
            "log_config": {"interval": 1, "hooks": [{"type": "TextLoggerHook"}]},
            "evaluation": {"interval": 1, "save_best": "acc"},
            "dist_params": {"backend": "gloo"},
            "launcher": "pytorch",
            "work_dir": folder,
            **changes,
        }
    )


def trains(rank: int, folder: str, batch_size: int) -> Any:
    """Train an epoch, and another one in a run that finds its checkpoint."""
    val = Samples(5)
    configured(folder, batch_size, val).train()
    longer = {"type": "EpochBasedRunner", "max_epochs": 2}
    run = configured(folder, batch_size, val, resume="auto", runner=longer)
    run.train()
    return weights(run.runner.model), run.runner.iter, val.evaluated


def falls_back(rank: int, folder: str) -> tuple[Any, Any, list[str]]:
    """Train two epochs, damage the checkpoint of the second, and train on; the weights of both runs, and its log."""
    options: dict[str, Any] = {
        "runner": {"type": "EpochBasedRunner", "max_epochs": 2},
        "checkpoint_config": {"interval": 1, "format": "sharded"},
    }
    whole = configured(folder, 4, **options).train()
    if rank == 0:  # which alone looks for a checkpoint
        data = next(Path(folder, "epoch_2").glob("__1_0.*.distcp"))
        content = data.read_bytes()
        middle = len(content) // 2
        data.write_bytes(content[:middle] + b"damage" + content[middle + 6 :])
    run, said = configured(folder, 4, resume="auto", **options), Lines()
    return weights(whole), weights(run.train()), said.lines


def passes_by(rank: int, folder: str) -> str:
    with pytest.raises(ConfigError) as raised:
        configured(folder, 4, model=PastForward()).train()
    return str(raised.value)


def test_ranks_train_together_as_one_process_on_their_batches(tmp_path: Path) -> None:
    expected, iterations, evaluated = trains(0, str(tmp_path / "one"), 8)

    first, second = run_ranks(2, trains, str(tmp_path / "two"), 4, with_group=False)

    assert first[1] == second[1] == iterations
    assert first[0] == second[0]
    for name, numbers in expected.items():
        assert first[0][name] == pytest.approx(numbers, abs=1e-6), name
    assert first[2] == evaluated  # in the data set's order, once each
    assert second[2] == []
    logs = [path.read_text() for path in (tmp_path / "two").rglob("*.log.json")]
    lines = [line for text in logs for line in text.splitlines() if '"train"' in line]
    assert len(lines) == iterations


def test_a_step_that_passes_by_the_exchange_is_refused(tmp_path: Path) -> None:
    first, second = run_ranks(2, passes_by, str(tmp_path), with_group=False)

    assert "exchanged" in first
    assert first == second


def test_ranks_fall_back_past_shards_that_are_damaged(tmp_path: Path) -> None:
    for whole, resumed, said in run_ranks(2, falls_back, str(tmp_path), with_group=False):
        assert resumed == whole
        assert any("falling back past" in line and "epoch_2" in line for line in said)
