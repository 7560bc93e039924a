"""A training as MMCV's users configure it, with every kind of hook at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader

from asynchooks.hooks.mmcv import EvalHook

from .conftest import MakeRun, Numbers, loader, names

PHASES: list[tuple[str, int]] = [("train", 2), ("val", 1)]


@pytest.mark.parametrize(("limit", "unit"), [({"max_epochs": 4}, "epoch"), ({"max_iters": 8}, "iter")])
def test_a_training_is_configured_by_dicts(
    make_run: MakeRun, tmp_path: Path, limit: dict[str, int], unit: str
) -> None:
    optimizer = {"type": "SGD", "lr": 0.1, "momentum": 0.9, "paramwise_cfg": {"bias_lr_mult": 2.0}}
    runner = make_run(trains=False, optimizer=optimizer, meta={}, **limit)
    runner.register_training_hooks(
        lr_config={"policy": "step", "step": [2, 3], "warmup": "linear", "warmup_iters": 2},
        optimizer_config={"grad_clip": {"max_norm": 35, "norm_type": 2}},
        checkpoint_config={"interval": 2, "max_keep_ckpts": 1},
        log_config={"interval": 1, "hooks": [{"type": "TextLoggerHook"}, {"type": "TensorboardLoggerHook"}]},
        momentum_config={"policy": "cyclic", "target_ratio": (0.85 / 0.95, 1), "step_ratio_up": 0.4},
        custom_hooks_config=[{"type": "EMAHook"}, {"type": "CheckInvalidLossHook", "interval": 1}],
    )
    data = Numbers(4, tuple({"acc": score} for score in (0.4, 0.6, 0.5, 0.1, 0.2, 0.3, 0.1)))
    evaluation: dict[str, Any] = {"interval": 1, "start": 2, "save_best": "acc", "by_epoch": unit == "epoch"}
    runner.register_hook(EvalHook(DataLoader(data, batch_size=4), **evaluation))
    runner.run([loader(), loader()], PHASES)

    last = 4 if unit == "epoch" else 8
    assert names(tmp_path / "run") == [f"best_acc_{unit}_3.pth", f"{unit}_{last}.pth"]
    log = next((tmp_path / "run").glob("*.log.json")).read_text().splitlines()
    lines = [json.loads(line) for line in log if '"mode": "train"' in line]
    assert len(lines) == 8
    assert {"loss", "lr", "grad_norm", "time", "data_time"} <= set(lines[0])
    assert list((tmp_path / "run" / "tf_logs").iterdir())
