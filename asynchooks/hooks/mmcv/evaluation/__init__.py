"""Evaluation of a data set during the training, as a hook."""

from asynchooks.hooks.mmcv.evaluation._dist import DistEvalHook
from asynchooks.hooks.mmcv.evaluation._hook import EvalHook

__all__ = ["EvalHook", "DistEvalHook"]
