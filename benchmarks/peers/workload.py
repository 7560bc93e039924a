"""The training that is disturbed: a transformer's parameters with Adam's state, and steps that change them.

A step is forward and backward in miniature (2,000 tiny operations, or matrix products), then an update in place. An
update touches the first and last elements of every tensor, so that a copy torn between two steps differs in each
tensor it tore, and a window of whole tensors that moves on with each step.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import xxhash

if TYPE_CHECKING:
    from peers.case import Workload

__all__ = ["Step", "Training", "digests", "named_tensors", "zeros_like"]

_LAYERS = 12
_EDGE = 8
_WINDOW_BYTES = 4 * 2**20
_LAUNCHES = 2_000
_MATRIX = 640


@dataclass(frozen=True, slots=True)
class Step:
    """Seconds of one step without its wait, that wait, and the processor's seconds of this thread."""

    step_s: float
    waited_s: float
    cpu_s: float


class Training:
    """The state, and the steps.

    Args:
        size_mb: parameters and both moments together.
        workload: "launch" for tiny operations, "compute" for matrix products.
        device: of the state and the steps.
    """

    def __init__(self, size_mb: int, workload: Workload, device: str) -> None:
        self._is_launch_bound = workload == "launch"
        self._is_cuda = device.startswith("cuda")
        generator = torch.Generator(device).manual_seed(0)
        self.state: dict[str, Any] = _state(size_mb, device, generator)
        self.iteration = 0
        tensors = [tensor.view(-1) for _, tensor in named_tensors(self.state)]
        self.nbytes = sum(tensor.nbytes for tensor in tensors)
        self._edges: dict[torch.device, list[torch.Tensor]] = {}  # one call for each device
        for tensor in tensors:
            self._edges.setdefault(tensor.device, []).extend((tensor[:_EDGE], tensor[-_EDGE:]))
        self._blocks = [
            block
            for tensor in tensors
            if tensor.numel() > 1
            for block in torch.split(tensor, _WINDOW_BYTES // 4)
        ]
        self._next_block = 0
        self._small = torch.ones(8, device=device)
        side = _MATRIX if not self._is_cuda else 8 * _MATRIX
        self._matrix = torch.randn(side, side, generator=generator, device=device) / side

    def step(self, updating: AbstractContextManager[object]) -> Step:
        """Do one step; the update of the state happens inside ``updating``."""
        cpu_s = time.thread_time()
        start = time.perf_counter()
        self._compute()
        asked = time.perf_counter()
        with updating:
            entered = time.perf_counter()
            self._update()
        if self._is_cuda:
            torch.cuda.current_stream().synchronize()  # a copy on a stream of its own is not the step's
        end = time.perf_counter()
        waited_s = entered - asked
        return Step(end - start - waited_s, waited_s, time.thread_time() - cpu_s)

    def _compute(self) -> None:
        if self._is_launch_bound:
            value = self._small
            for _ in range(_LAUNCHES // 2):
                value = torch.mul(torch.add(value, 1.0), 0.5)
            self._small = value
        else:
            value = self._matrix
            for _ in range(2 if not self._is_cuda else 10):
                value = value @ self._matrix

    def _update(self) -> None:
        self.iteration += 1
        for edges in self._edges.values():
            torch._foreach_add_(edges, 1.0)
        touched = 0
        while touched < _WINDOW_BYTES:
            block = self._blocks[self._next_block]
            block.mul_(0.999).add_(0.001)
            touched += block.nbytes
            self._next_block = (self._next_block + 1) % len(self._blocks)
        self.state["meta"]["step"] = self.iteration


def named_tensors(state: Any, path: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors of a nested state with their paths."""
    if isinstance(state, torch.Tensor):
        yield path, state
    elif isinstance(state, dict):
        for key, value in state.items():
            yield from named_tensors(value, f"{path}.{key}" if path else str(key))
    elif isinstance(state, list | tuple):
        for index, value in enumerate(state):
            yield from named_tensors(value, f"{path}[{index}]")


def digests(state: Any) -> dict[str, str]:
    """Return what every tensor of a state holds, briefly; it needs no second copy on the CPU."""
    found = {}
    for path, tensor in named_tensors(state):
        found[path] = xxhash.xxh3_64_hexdigest(tensor.detach().cpu().contiguous().view(-1).numpy().data)
    return found


def zeros_like(state: dict[str, Any]) -> dict[str, Any]:
    """Return a state of the same shapes that holds nothing, to load into."""
    target = copy.deepcopy(state)
    for _, tensor in named_tensors(target):
        tensor.zero_()
    return target


def _state(size_mb: int, device: str, generator: torch.Generator) -> dict[str, Any]:
    width = max(16, int((size_mb * 1e6 / 12 / _LAYERS / 12) ** 0.5))
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(_LAYERS):
        prefix = f"blocks.{layer}."
        for name, shape in (
            ("attention.qkv", (3 * width, width)),
            ("attention.out", (width, width)),
            ("mlp.up", (4 * width, width)),
            ("mlp.down", (width, 4 * width)),
        ):
            shapes[f"{prefix}{name}.weight"] = shape
            shapes[f"{prefix}{name}.bias"] = shape[:1]
        for name in ("norm1", "norm2"):
            shapes[f"{prefix}{name}.weight"] = shapes[f"{prefix}{name}.bias"] = (width,)

    def noise(shape: tuple[int, ...]) -> torch.Tensor:
        return torch.rand(shape, generator=generator, device=device)

    moments = {
        name: {"step": torch.zeros(()), "exp_avg": noise(shape), "exp_avg_sq": noise(shape)}
        for name, shape in shapes.items()
    }
    return {
        "state_dict": {name: noise(shape) for name, shape in shapes.items()},
        "optimizer": {"state": moments, "param_groups": [{"lr": 1e-3, "betas": [0.9, 0.95], "eps": 1e-8}]},
        "meta": {"step": 0},
    }
