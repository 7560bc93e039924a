"""The training that the demo and the benchmarks compare: one model, one data order, with and without saving.

Decides everything that must be the same in all runs. A *run* saves to a store in one mode; a *block* is the same
training without the hooks that do I/O: pure compute.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import Dataset, Subset

from asynchooks._cli.demo._clock import LossKeeper, StepClock
from asynchooks._cli.demo._gpt import GPT, GPTSize
from asynchooks._cli.demo._measure import Arm, Block, measure_arm, measure_block
from asynchooks._cli.demo._text import Windows, read_corpus, split_corpus
from asynchooks.distributed import world_size
from asynchooks.runner import Runner
from asynchooks.trace import Recorder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Literal

    from torch import Tensor

    from asynchooks.instrument import Span

__all__ = ["MODELS", "Run", "Training"]

MODELS = {
    "small": GPTSize(),
    "tiny": GPTSize(width=64, layers=2, heads=2, context=32),
}
_VALIDATION_BATCHES = 4
_KEEP = 2


@dataclass(frozen=True, slots=True)
class Run:
    """One finished run that saved.

    Attributes:
        mode: "sync" or "async".
        spans: everything that was recorded.
        end_ns: when everything was committed and the run returned.
        url: the folder of its checkpoints.
        losses: this rank's, one for each step.
    """

    mode: str
    spans: tuple[Span, ...]
    end_ns: int
    url: str
    losses: tuple[float, ...] = ()

    def measure(self, validation_s: float) -> Arm:
        """Return the run's numbers, given the seconds of a validation in pure compute."""
        return measure_arm(self.mode, self.spans, end_ns=self.end_ns, validation_s=validation_s)


@dataclass(frozen=True)
class Training:
    """What all runs share.

    Args:
        size: sizes of the model.
        device: where to train.
        seed: seed of the weights and of the data's order.
        batch_size: windows per step, of all ranks together.
        strategy: "DDP" or "FSDP2" on ranks; None in one process.
    """

    size: GPTSize = field(default_factory=GPTSize)
    device: str = "cpu"
    seed: int = 0
    batch_size: int = 4
    strategy: str | None = None

    @cached_property
    def _data(self) -> tuple[Dataset[Tensor], Dataset[Tensor]]:
        """The training and the validation windows; read once."""
        text, held_out = split_corpus(read_corpus())
        few = range(_VALIDATION_BATCHES * self.batch_size)
        return (
            Windows(text, self.size.context, stride=self.size.context // 2),
            Subset(Windows(held_out, self.size.context, stride=self.size.context), few),
        )

    @property
    def save_bytes(self) -> int:
        """Bytes of one save: weights and two moments of AdamW, and the weights again as the best checkpoint."""
        return 4 * 4 * GPT(self.size).parameter_count()

    def block(self, steps: int, interval: int, on_step: Callable[[], None] | None = None) -> Block:
        """Train and validate without checkpoints and logs."""
        recorder = Recorder()
        clock = self._clock(recorder, on_step)
        with tempfile.TemporaryDirectory(prefix="asynchooks-") as work_dir:
            quiet = {"checkpoint": None, "logger": None}
            self._runner(Path(work_dir), steps, interval, default_hooks=quiet, custom_hooks=[clock]).train()
        return measure_block(recorder.spans, loop_ns=(clock.loop_start_ns, clock.loop_end_ns))

    def losses(
        self, steps: int, interval: int, *, resume_from: str | None = None, options: Mapping[str, Any]
    ) -> list[float]:
        """Train without saving; return the losses. The arguments are those of `run`."""
        keeper = LossKeeper()
        with tempfile.TemporaryDirectory(prefix="asynchooks-") as work_dir:
            self._runner(
                Path(work_dir),
                steps,
                interval,
                default_hooks={"checkpoint": None, "logger": None},
                custom_hooks=[keeper],
                resume=resume_from or False,
                storage_options=dict(options),
            ).train()
        return keeper.values()

    def name_of(self, step: int) -> str:
        """Name of the checkpoint of a step: a file's, or of a folder that all ranks write into."""
        return f"iter_{step}.pth" if self.strategy is None else f"iter_{step}"

    def run(
        self,
        mode: Literal["sync", "async"],
        *,
        name: str,
        store_url: str,
        options: Mapping[str, Any],
        steps: int,
        interval: int,
        on_step: Callable[[], None] | None = None,
        resume_from: str | None = None,
    ) -> Run:
        """Train with checkpoints, best-checkpoint selection, pruning and logs to a store.

        Args:
            mode: how the executor runs background parts.
            name: name of the run, and of its folder in the store.
            store_url: URL below which that folder is made.
            options: fsspec's options for the store.
            steps: training steps in all, those before ``resume_from`` included.
            interval: steps between two saves, and between two validations.
            on_step: called after each step.
            resume_from: URL of the checkpoint from which the run continues.
        """
        recorder = Recorder()
        clock, losses = self._clock(recorder, on_step), LossKeeper()
        saving: dict[str, Any] = {
            "checkpoint": {
                "type": "CheckpointHook",
                "interval": interval,
                "by_epoch": False,
                "out_dir": store_url,
                "backend_args": dict(options),
                "max_keep_ckpts": _KEEP,
                "save_best": "loss",
                "rule": "less",
                **({} if self.strategy is None else {"format": "sharded"}),
            },
            "logger": {
                "type": "LoggerHook",
                "interval": 10,
                "sinks": ["json"],
                "out_dir": f"{store_url}/logs",
                "backend_args": dict(options),
            },
        }
        with tempfile.TemporaryDirectory(prefix="asynchooks-") as folder:
            runner = self._runner(
                Path(folder) / name,
                steps,
                interval,
                default_hooks=saving,
                custom_hooks=[clock] if self.strategy is None else [clock, losses],
                mode=mode,
                instrument=recorder,
                resume=resume_from or False,
                storage_options=dict(options),
            )
            runner.train()
            end_ns = time.perf_counter_ns()
        return Run(mode, recorder.spans, end_ns, f"{store_url}/{name}", tuple(losses.values()))

    def _clock(self, recorder: Recorder, on_step: Callable[[], None] | None) -> StepClock:
        is_cuda = torch.device(self.device).type == "cuda"
        return StepClock(recorder, on_step, torch.cuda.synchronize if is_cuda else None)

    def _runner(self, work_dir: Path, steps: int, interval: int, **options: Any) -> Runner:
        """Build a run: new weights from the seed, the data from its beginning."""
        torch.manual_seed(self.seed)
        model = GPT(self.size).to(self.device)
        train, validation = self._data
        return Runner(
            model=model,
            work_dir=work_dir,
            train_dataloader={
                "dataset": train,
                "batch_size": self.batch_size // world_size(),
                "sampler": {"type": "InfiniteSampler", "shuffle": True, "seed": self.seed},
            },
            train_cfg={"by_epoch": False, "max_iters": steps, "val_interval": interval},
            val_dataloader={"dataset": validation, "batch_size": self.batch_size},
            optim_wrapper={"optimizer": {"type": "AdamW", "lr": 1e-3}},
            param_scheduler={"type": "LinearLR", "start_factor": 0.1, "total_iters": 20, "by_epoch": False},
            randomness={"seed": self.seed, "deterministic": self.device != "cpu"},
            strategy=self.strategy and {"type": self.strategy},
            log_level="WARNING",
            **options,
        )
