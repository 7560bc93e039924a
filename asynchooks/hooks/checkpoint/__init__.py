"""`CheckpointHook`: when a checkpoint is saved, which one is the best, and what is published at the end."""

from asynchooks.hooks.checkpoint._hook import CheckpointHook

__all__ = ["CheckpointHook"]
