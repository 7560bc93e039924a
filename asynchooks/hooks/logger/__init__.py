"""`LoggerHook`: what a run says, to the terminal, to files and to a remote copy of them."""

from asynchooks.hooks.logger._hook import LoggerHook

__all__ = ["LoggerHook"]
