"""`ProfilerHook`: PyTorch's profiler over the first epoch or iterations of a training."""

from asynchooks.hooks.profiler._hook import ProfilerHook

__all__ = ["ProfilerHook"]
