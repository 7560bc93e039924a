"""The base class of hooks in MMCV's manner, under its name."""

from asynchooks.execution import RunnerHook as Hook

__all__ = ["Hook"]
