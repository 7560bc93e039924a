"""`ProgressHook`: a progress line for whoever watches."""

from asynchooks.hooks.progress._hook import ProgressHook

__all__ = ["ProgressHook"]
