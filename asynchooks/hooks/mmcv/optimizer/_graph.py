"""Which parameters a loss depends on."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

__all__ = ["parameters_outside"]


def parameters_outside(loss: Tensor, model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Return the trained parameters of a model, by name, that have no part in the graph of a loss."""
    reached: set[int] = set()
    seen: set[Any] = set()
    waiting = [loss.grad_fn]
    while waiting:  # a loop: the graph of a deep model is deeper than Python's stack
        node: Any = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            reached.add(id(node.variable))
        waiting += [parent for parent, _ in node.next_functions]
    return [(name, p) for name, p in model.named_parameters() if p.requires_grad and id(p) not in reached]
