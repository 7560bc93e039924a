"""Optimizers and schedules: accumulation and clipping around torch's optimizers, torch's schedulers in ranges."""

from asynchooks.optim._build import build_optim_wrapper
from asynchooks.optim._build_schedulers import build_param_schedulers
from asynchooks.optim._schedulers import ParamScheduler
from asynchooks.optim._wrapper import OptimWrapper

__all__ = ["OptimWrapper", "ParamScheduler", "build_optim_wrapper", "build_param_schedulers"]
