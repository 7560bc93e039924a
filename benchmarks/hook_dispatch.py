"""What one firing of a hook point costs: asynchooks beside MMEngine, MMCV, Lightning and transformers.

Each contender gets 20 hooks of which 2 (or none) do something at the point, and does it the way its own
training loop does. All are measured in one run, in rounds, in an order that rotates, so that a noisy machine
disturbs all alike; ratios are taken inside each round. Asserts nothing.

    python benchmarks/hook_dispatch.py --json hook_dispatch.json
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import statistics
import timeit
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from asynchooks._cli.demo._environment import describe_environment, environment_line
from asynchooks.execution import Effects, Hook, HookExecutor

# The statement that a training loop would contain, and the names in it: a lambda around it would cost as much
# as the firing itself.
Firing: TypeAlias = tuple[str, dict[str, object]]
HOOKS = 20
OURS = "asynchooks"


def make_hooks(active: type, idle: type, overriding: int) -> list[Any]:
    """Return `HOOKS` hooks, each of a class of its own, as the hooks of a real run are."""
    bases = [active] * overriding + [idle] * (HOOKS - overriding)
    return [type(f"{base.__name__}{i}", (base,), {})() for i, base in enumerate(bases)]


def fire_asynchooks(overriding: int, stack: contextlib.ExitStack) -> Firing:
    class Idle(Hook):
        effects = Effects()

    class Active(Idle):
        def before_train_iter(self, runner: object, batch_idx: int, data_batch: object = None) -> None:
            pass

    executor = stack.enter_context(HookExecutor(make_hooks(Active, Idle, overriding)))
    statement = "executor.fire('before_train_iter', context, batch_idx=0, data_batch=None)"
    return statement, {"executor": executor, "context": object()}


def fire_mmengine(overriding: int, _: contextlib.ExitStack) -> Firing:
    from mmengine.hooks import Hook as MMEngineHook
    from mmengine.runner import Runner

    class Active(MMEngineHook):  # type: ignore[misc]
        def before_train_iter(self, runner: object, batch_idx: int, data_batch: object = None) -> None:
            pass

    runner = object.__new__(Runner)  # call_hook needs nothing but the list of hooks
    runner._hooks = make_hooks(Active, MMEngineHook, overriding)
    statement = "runner.call_hook('before_train_iter', batch_idx=0, data_batch=None)"
    return statement, {"runner": runner}


def fire_mmcv_style(overriding: int, _: contextlib.ExitStack) -> Firing:
    """MMCV 1.x has no build for this Python; its dispatch, a loop over getattr, is written out here."""

    class MMCVHook:
        def before_iter(self, runner: object) -> None:
            pass

        def before_train_iter(self, runner: object) -> None:
            self.before_iter(runner)

    class Active(MMCVHook):
        def before_train_iter(self, runner: object) -> None:
            pass

    class Runner:
        def __init__(self, hooks: list[MMCVHook]) -> None:
            self._hooks = hooks

        def call_hook(self, name: str) -> None:
            for hook in self._hooks:
                getattr(hook, name)(self)

    runner = Runner(make_hooks(Active, MMCVHook, overriding))
    return "runner.call_hook('before_train_iter')", {"runner": runner}


def fire_lightning(overriding: int, _: contextlib.ExitStack) -> Firing:
    import lightning.pytorch as pl
    from lightning.pytorch.trainer import call

    class Active(pl.Callback):  # type: ignore[misc]
        def on_train_batch_start(
            self, trainer: object, pl_module: object, batch: object, batch_idx: int
        ) -> None:
            pass

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.strategy.connect(pl.LightningModule())
    trainer.callbacks = make_hooks(Active, pl.Callback, overriding)
    statement = "call(trainer, 'on_train_batch_start', None, 0)"
    return statement, {"call": call._call_callback_hooks, "trainer": trainer}  # noqa: SLF001 - what its loop calls


def fire_transformers(overriding: int, _: contextlib.ExitStack) -> Firing:
    from transformers import TrainerCallback, TrainerControl, TrainerState
    from transformers.trainer_callback import CallbackHandler

    class Active(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, args: object, state: object, control: object, **kwargs: object) -> None:
            pass

    logging.getLogger("transformers").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        handler: Any = CallbackHandler(
            make_hooks(Active, TrainerCallback, overriding), None, None, None, None
        )
    names = {"handler": handler, "state": TrainerState(), "control": TrainerControl()}
    return "handler.on_step_begin(None, state, control)", names


CONTENDERS: dict[str, Callable[[int, contextlib.ExitStack], Firing]] = {
    OURS: fire_asynchooks,
    "MMEngine Runner.call_hook": fire_mmengine,
    "MMCV-style call_hook": fire_mmcv_style,
    "Lightning callback hooks": fire_lightning,
    "transformers CallbackHandler": fire_transformers,
}


def calls_for(timer: timeit.Timer, sample_s: float) -> int:
    """Return how many calls fill one sample."""
    timer.timeit(100)  # warm
    return max(10, int(sample_s * 100 / timer.timeit(100)))


def measure(firings: dict[str, Firing], rounds: int, sample_s: float) -> dict[str, list[float]]:
    """Return ns per firing for each contender, one number per round."""
    timers = {name: timeit.Timer(statement, globals=names) for name, (statement, names) in firings.items()}
    calls = {name: calls_for(timer, sample_s) for name, timer in timers.items()}
    names = list(timers)
    samples: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            samples[name].append(timers[name].timeit(calls[name]) / calls[name] * 1e9)
    return samples


def summarize(samples: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    summary = {}
    for name, values in samples.items():
        low, middle, high = statistics.quantiles(values, n=4)
        ratios = [value / ours for value, ours in zip(values, samples[OURS], strict=True)]
        summary[name] = {
            "median_ns": middle,
            "quartile_low_ns": low,
            "quartile_high_ns": high,
            "times_asynchooks": statistics.median(ratios),
        }
    return summary


def build(overriding: int, stack: contextlib.ExitStack) -> dict[str, Firing]:
    firings: dict[str, Firing] = {}
    for name, contender in CONTENDERS.items():
        try:
            firings[name] = contender(overriding, stack)
        except ImportError as missing:
            print(f"left out: {name} ({missing})")
    return firings


def print_table(title: str, summary: dict[str, dict[str, float]]) -> None:
    print(f"\n{title}\n")
    print("| contender | median ns | quartiles ns | x asynchooks |")
    print("|---|---:|---:|---:|")
    for name, row in summary.items():
        spread = f"{row['quartile_low_ns']:,.0f} - {row['quartile_high_ns']:,.0f}"
        print(f"| {name} | {row['median_ns']:,.0f} | {spread} | {row['times_asynchooks']:.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--sample-ms", type=float, default=5.0, help="length of one sample")
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    options = parser.parse_args()

    environment = describe_environment("torch", "mmengine", "lightning", "transformers")
    print(environment_line(environment))
    results: dict[str, Any] = {"environment": environment, "hooks": HOOKS, "rounds": options.rounds}
    for overriding in (2, 0):
        with contextlib.ExitStack() as stack:
            samples = measure(build(overriding, stack), options.rounds, options.sample_ms / 1e3)
        summary = summarize(samples)
        print_table(
            f"One firing of the point before a step, {HOOKS} hooks, {overriding} of which override it",
            summary,
        )
        results[f"{overriding}_overriding"] = {"summary": summary, "samples_ns": samples}
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
