"""A training in a process of its own, which is preempted and resumed: prints each iteration, writes its weights."""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from asynchooks import Hook, Runner
from asynchooks.errors import Preempted


class Net(nn.Module):
    """Draws random numbers while it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.dropout = nn.Dropout(0.2)

    def forward(self, batch: Tensor) -> Tensor:
        loss: Tensor = (self.dropout(self.layer(batch)) - batch).square().mean()
        return loss


class TensorRows(Dataset[Tensor]):
    """The rows of a tensor."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Tensor:
        return self.rows[index]


class Says(Hook):
    """Says where the training is, and goes on when a line comes back."""

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        sys.stdout.write(f"{runner.iter}\n")
        sys.stdout.flush()
        sys.stdin.readline()


def main(folder: str, workers: int, options: dict[str, Any]) -> None:
    """Train, or go on; write the weights when all is trained."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    data = torch.randn(12, 4)
    runner = Runner(
        model=Net(),
        work_dir=folder,
        train_dataloader=DataLoader(TensorRows(data), batch_size=2, shuffle=True, num_workers=workers),
        train_cfg={"by_epoch": True, "max_epochs": 2},
        optim_wrapper={"optimizer": {"type": "Adam", "lr": 0.1}},
        default_hooks={"logger": None},
        custom_hooks=[{"type": "PreemptionHook", **options}, Says()],
        visualizer={"vis_backends": []},
        resume="auto",
        randomness={"seed": 3},
    )
    runner.train()
    weights = {name: tensor.tolist() for name, tensor in runner.model.state_dict().items()}
    Path(folder, "weights.json").write_text(json.dumps(weights))


if __name__ == "__main__":
    try:
        main(sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]))
    except Preempted as ended:
        sys.stderr.write(f"{ended}\n")
        raise
