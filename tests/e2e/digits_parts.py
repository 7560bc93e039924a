"""What the digits' configurations name: a model, the data and a metric. Imported by them, as a user's package is."""

from __future__ import annotations

from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchmetrics.classification import MulticlassAccuracy

from asynchooks.registry import DATASETS, METRICS, MODELS

METRICS.register_module("MulticlassAccuracy", module=MulticlassAccuracy)


@DATASETS.register_module()
class Digits(Dataset[tuple[Tensor, int]]):
    """1,797 handwritten digits of 8 x 8 pixels; every fourth is for validation."""

    def __init__(self, split: str = "train") -> None:
        images, labels = load_digits(return_X_y=True)
        chosen = [i for i in range(len(labels)) if (i % 4 == 0) is (split == "val")]
        self.images = torch.from_numpy(images[chosen]).float().reshape(-1, 1, 8, 8) / 16
        self.labels = [int(label) for label in labels[chosen]]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], self.labels[index]


@MODELS.register_module()
class ConvNet(nn.Module):
    """Two convolutions with BatchNorm, dropout, one linear layer."""

    def __init__(self, width: int = 12, dropout: float = 0.1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(dropout), nn.Linear(8 * width, 10))

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.head(self.body(images))
        return scores

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, Tensor]:
        images, labels = data
        with optim_wrapper.optim_context(self):
            scores = self(images)
            loss = nn.functional.cross_entropy(scores, labels)
        optim_wrapper.update_params(loss)
        return {"loss": loss.detach(), "acc": (scores.argmax(1) == labels).float().mean()}

    def val_step(self, data: Any) -> tuple[Tensor, Tensor]:
        images, labels = data
        return self(images).argmax(1), labels
