"""A model's results on a data set, on this process alone or gathered from all ranks."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

from asynchooks.distributed import is_distributed

__all__ = ["multi_gpu_test", "single_gpu_test"]


@torch.no_grad()
def single_gpu_test(model: nn.Module, data_loader: Any) -> list[Any]:
    """Return one result per sample; the model is in evaluation mode then.

    A dict of data is handed over as MMCV does, ``model(return_loss=False, **data)``, where the model takes
    ``return_loss``; otherwise ``model.test_step(data)`` is called, or ``model(data)``.
    """
    model.eval()
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    results: list[Any] = []
    for data in data_loader:
        result = _infer(model, _moved(data, device))
        is_batch = isinstance(result, list | tuple) or (isinstance(result, Tensor) and result.ndim > 0)
        results.extend(result if is_batch else [result])
    return results


def multi_gpu_test(
    model: nn.Module,
    data_loader: Any,
    tmpdir: str | None = None,
    gpu_collect: bool = False,  # noqa: FBT001, FBT002 - MMCV's signature
) -> list[Any] | None:
    """Return on rank 0 the results of all ranks, in the order of the data set; None on the others.

    The ranks' samples are taken in turns, as a distributed sampler deals them out. Results travel through
    `torch.distributed`, so the ranks need no folder in common.

    Args:
        model: the model.
        data_loader: this rank's part of the data set.
        tmpdir: accepted; not needed.
        gpu_collect: accepted; the process group's backend decides.
    """
    del tmpdir, gpu_collect
    results = single_gpu_test(model, data_loader)
    distributed = torch.distributed
    if not is_distributed():
        return results
    is_first = distributed.get_rank() == 0
    parts: list[Any] | None = [None] * distributed.get_world_size() if is_first else None
    distributed.gather_object(results, parts, dst=0)
    if parts is None:
        return None
    longest = max(len(part) for part in parts)
    ordered = [part[i] for i in range(longest) for part in parts if i < len(part)]
    return ordered[: len(data_loader.dataset)]  # without the samples that filled up the last ranks


def _infer(model: nn.Module, data: Any) -> Any:
    if isinstance(data, Mapping) and _takes_return_loss(model):
        return model(return_loss=False, **data)
    own = getattr(model, "test_step", None)
    return model(data) if own is None else own(data)


def _takes_return_loss(model: nn.Module) -> bool:
    inner = (
        model.module if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel) else model
    )
    parameters = inspect.signature(inner.forward).parameters.values()
    return any(p.name == "return_loss" or p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)


def _moved(data: Any, device: torch.device) -> Any:
    if isinstance(data, Tensor):
        return data.to(device, non_blocking=True)
    if isinstance(data, Mapping):
        return {key: _moved(value, device) for key, value in data.items()}
    if isinstance(data, list | tuple) and not hasattr(data, "_fields"):
        return type(data)(_moved(value, device) for value in data)
    return data
