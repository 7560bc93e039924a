"""A small but whole training run, and a program that starts such runs and ends them at given moments.

Run as a program it forks one training for every order on stdin and answers with what the training said and how it
ended. The parent imports everything once and starts no thread, so that a fork costs nothing and is safe.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from typing import Any, NoReturn

import torch
import xxhash
from torch import Tensor, nn

from asynchooks.execution import Effects, Hook
from asynchooks.runner import Runner

SIZE = 850  # with Adam's state, a checkpoint of 8.7 MB: more than one part of an upload


class Net(nn.Module):
    """Draws random numbers while it trains."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.layer = nn.Linear(size, size)
        self.dropout = nn.Dropout(0.2)

    def forward(self, batch: Tensor) -> Tensor:
        loss: Tensor = (self.dropout(self.layer(batch)) - batch).square().mean()
        return loss


def make_runner(
    work_dir: str, out_dir: str, options: Mapping[str, str], iters: int, *hooks: Hook, **changes: Any
) -> Runner:
    """A run with MMEngine's default hooks that saves every second iteration and keeps two and the best."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    size = changes.pop("size", SIZE)
    data = torch.randn(24, size)
    checkpoint = {
        "type": "CheckpointHook",
        "by_epoch": False,
        "interval": 2,
        "max_keep_ckpts": 2,
        "save_best": "loss",
        "out_dir": out_dir,
        "backend_args": dict(options),
        **changes.pop("checkpoint", {}),
    }
    arguments: dict[str, Any] = {
        "train_dataloader": {
            "batch_size": 4,
            "dataset": list(data),
            "sampler": {"type": "InfiniteSampler", "shuffle": True},
        },
        "val_dataloader": {"batch_size": 8, "dataset": list(data[:8])},
        "optim_wrapper": {"optimizer": {"type": "Adam", "lr": 0.003}},
        "param_scheduler": {"type": "MultiStepLR", "milestones": [iters // 2], "by_epoch": False},
        "train_cfg": {"by_epoch": False, "max_iters": iters, "val_interval": 5},
        "default_hooks": {"checkpoint": checkpoint, "logger": {"interval": 5}},
        "custom_hooks": list(hooks),
        "randomness": {"seed": 3},
        "resume": "auto",
        "staging_budget": 5 * state_bytes(size) // 2,  # two saves in flight; then training waits
        **changes,
    }
    return Runner(model=Net(size), work_dir=work_dir, **arguments)


def state_bytes(size: int) -> int:
    """Length of a checkpoint, nearly: the weights and twice as much of Adam's."""
    return 12 * size * size


def digest(state_dict: Mapping[str, Any], optimizer: Mapping[str, Any]) -> str:
    """A checksum of all tensors of a training state."""
    hasher = xxhash.xxh3_128()
    for name, tensor in sorted(state_dict.items()):
        hasher.update(name.encode() + tensor.numpy().tobytes())
    for index, state in sorted(optimizer["state"].items()):
        for name, value in sorted(state.items()):
            hasher.update(f"{index}{name}".encode() + value.numpy().tobytes())
    hasher.update(repr([group["lr"] for group in optimizer["param_groups"]]).encode())
    return hasher.hexdigest()


class Tell(Hook):
    """Says where the training starts and when a save is in flight."""

    effects = Effects()
    priority = "LOWEST"

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def before_train(self, runner: Any) -> None:
        say(self.descriptor, "started", runner.iter)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        done = runner.iter + 1
        if done % 2 == 0 and runner.executor.statistics().in_flight:  # a save is due at each second one
            say(self.descriptor, "busy", done)


class Act(Hook):
    """Does something to the disk, the clock or the system calls of this process, right after an iteration.

    Args: iteration: when; its saves are finished first. function: as in "disk.fill", of this folder's modules.
    """

    effects = Effects()
    priority = "LOWEST"

    def __init__(self, iteration: int, function: str, arguments: Mapping[str, Any]) -> None:
        module, _, name = function.partition(".")
        self.iteration = iteration
        self.function = getattr(importlib.import_module(f"{__package__}.{module}"), name)
        self.arguments = arguments

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        if runner.iter + 1 == self.iteration:
            runner.executor.drain()
            self.function(**self.arguments)


class TellSaved(Hook):
    """Says what is committed. Not the hook above: that would wait at each iteration for what it is to be told."""

    effects = Effects()

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    async def after_save_checkpoint(self, runner: Any, path: str, meta: Mapping[str, Any]) -> None:
        say(self.descriptor, "best" if "best_" in path.rpartition("/")[2] else "saved", meta["iter"])


def say(descriptor: int, word: str, number: int | str) -> None:
    """Tell the program that watches: a number, or any JSON."""
    os.write(descriptor, f"{word} {number}\n".encode())


def train(order: Mapping[str, Any], descriptor: int) -> int:
    """Train in this process; return its exit status."""
    acts = [Act(*act) for act in order["acts"]]
    hooks = (Tell(descriptor), TellSaved(descriptor), *acts)
    logging.getLogger("asynchooks.execution").addHandler(TellLogged(descriptor))
    try:
        make_runner(
            order["work_dir"], order["out_dir"], order["options"], order["iters"], *hooks, **order["changes"]
        ).train()
    except KeyboardInterrupt:
        return 130
    except BaseException as error:  # whatever ends the run is told to the test
        traceback.print_exc()
        say(descriptor, "error", json.dumps(told(error)))
        return 1
    return 0


def told(error: BaseException) -> dict[str, Any]:
    """What a failure tells: of a group, its first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return {
        "text": str(error),
        "kind": type(error.__cause__ or error).__name__,
        "hook": getattr(error, "hook", ""),
        "notes": getattr(error.__cause__ or error, "__notes__", []),
    }


class TellLogged(logging.Handler):
    """Says that the executor has taken note of a Ctrl-C, and which failures it has only warned of."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self.descriptor = descriptor

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if "finishing in-flight work" in message:
            say(self.descriptor, "finishing", 0)
        elif "Training goes on" in message:
            say(self.descriptor, "warned", json.dumps(message))


class Watch:
    """Follows one training and sends it a signal at a moment of a save.

    The moment is `share` of a save's duration, as measured so far, or `delay_s`, after the training has said `word`.
    """

    save_s = 0.05

    def __init__(self, pid: int, descriptor: int, signals: list[Mapping[str, Any]]) -> None:
        self.pid = pid
        self.descriptor = descriptor
        self.signals = list(signals)
        self.said: list[tuple[str, Any]] = []
        self.sent_at = 0.0

    def follow(self) -> int:
        """Return the training's exit status, negative for a signal."""
        send_at: float | None = None
        saved_at: float | None = None
        rest = b""
        while True:
            timeout = None if send_at is None else max(0.0, send_at - time.monotonic())
            if not select.select([self.descriptor], [], [], timeout)[0]:
                os.kill(self.pid, self.signals.pop(0)["number"])
                send_at, self.sent_at = None, time.monotonic()
                continue
            received = os.read(self.descriptor, 4096)
            if not received:
                return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            *lines, rest = (rest + received).split(b"\n")
            for line in lines:
                word, number = line.decode().split(maxsplit=1)
                self.said.append((word, json.loads(number)))
                if word in ("saved", "best"):
                    now = time.monotonic()
                    if saved_at is not None:
                        Watch.save_s = 0.8 * Watch.save_s + 0.2 * (now - saved_at)
                    saved_at = now
            if send_at is None and self.signals and any(w == self.signals[0]["word"] for w, _ in self.said):
                delay_s = self.signals[0].get("delay_s", self.signals[0].get("share", 0) * Watch.save_s)
                send_at = time.monotonic() + delay_s


def leave(status: int) -> NoReturn:
    """End this process as the interpreter does, threads first, but for tearing torch down: that takes a second."""
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join()
    os._exit(status)


def warm_up() -> None:
    """Load what a run loads when it is first needed."""
    importlib.import_module("obstore.store")
    make_runner("unused", "unused", {}, 1)
    assert threading.active_count() == 1


def main() -> None:
    warm_up()
    for line in sys.stdin:
        order = json.loads(line)
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            os.close(reader)
            leave(train(order, writer))
        os.close(writer)
        watch = Watch(child, reader, order["signals"])
        status = watch.follow()
        os.close(reader)
        lasted_s = time.monotonic() - watch.sent_at
        sys.stdout.write(json.dumps({"status": status, "said": watch.said, "lasted_s": lasted_s}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started us ignoring it
    main()
