"""A small GPT in plain torch: what the demo and the benchmarks train.

Decides the model's sizes alone. Pre-norm blocks, learned positions, the output layer tied to the embedding
(Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"). No dropout: a step is a pure
function of the weights and the batch, so that two runs can be compared bit by bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["GPT", "GPTSize"]


@dataclass(frozen=True, slots=True)
class GPTSize:
    """Sizes of a `GPT`; the default has 10.7 million parameters.

    Attributes:
        width: channels of the residual stream.
        layers: number of blocks.
        heads: attention heads, a divisor of ``width``.
        context: longest window in bytes.
        vocabulary: number of tokens; 256 for bytes.
    """

    width: int = 384
    layers: int = 6
    heads: int = 6
    context: int = 64
    vocabulary: int = 256

    def __post_init__(self) -> None:
        """Check that the heads divide the width."""
        if self.width % self.heads:
            raise ValueError(f"GPTSize.heads must divide width, but {self.heads=} and {self.width=}.")


class GPT(nn.Module):
    """A decoder-only transformer over bytes."""

    def __init__(self, size: GPTSize | None = None) -> None:
        super().__init__()
        self.size = size = size or GPTSize()
        self.token = nn.Embedding(size.vocabulary, size.width)
        self.position = nn.Parameter(torch.zeros(size.context, size.width))
        self.blocks = nn.ModuleList(_Block(size) for _ in range(size.layers))
        self.norm = nn.LayerNorm(size.width)
        self._initialize()

    def forward(self, batch: Tensor) -> Tensor:
        """Return the mean cross-entropy in nats per byte, a scalar.

        Args:
            batch: int64 windows of shape ``[batch, context + 1]``; each byte is predicted from those before it.
        """
        logits = self.logits(batch[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())

    def logits(self, inputs: Tensor) -> Tensor:
        """Return the scores of the next byte, ``[batch, length, vocabulary]``, for int64 ``[batch, length]``."""
        hidden = self.token(inputs) + self.position[: inputs.shape[1]]
        for block in self.blocks:
            hidden = block(hidden)
        return F.linear(self.norm(hidden), self.token.weight)

    def parameter_count(self) -> int:
        """Return the number of trained numbers."""
        return sum(p.numel() for p in self.parameters())

    def _initialize(self) -> None:
        for name, parameter in self.named_parameters():
            if parameter.ndim < 2:
                continue
            depth_scaled = name.endswith(("project.weight", "contract.weight"))
            nn.init.normal_(parameter, std=0.02 / ((2 * self.size.layers) ** 0.5 if depth_scaled else 1.0))


class _Block(nn.Module):
    def __init__(self, size: GPTSize) -> None:
        super().__init__()
        self.heads = size.heads
        self.norm_attention = nn.LayerNorm(size.width)
        self.qkv = nn.Linear(size.width, 3 * size.width, bias=False)
        self.project = nn.Linear(size.width, size.width, bias=False)
        self.norm_mlp = nn.LayerNorm(size.width)
        self.expand = nn.Linear(size.width, 4 * size.width, bias=False)
        self.contract = nn.Linear(4 * size.width, size.width, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = hidden + self._attend(self.norm_attention(hidden))
        added: Tensor = self.contract(F.gelu(self.expand(self.norm_mlp(hidden))))
        return hidden + added

    def _attend(self, hidden: Tensor) -> Tensor:
        batch, length, width = hidden.shape
        q, k, v = (
            part.view(batch, length, self.heads, width // self.heads).transpose(1, 2)
            for part in self.qkv(hidden).chunk(3, dim=-1)
        )
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        projected: Tensor = self.project(attended.transpose(1, 2).reshape(batch, length, width))
        return projected
