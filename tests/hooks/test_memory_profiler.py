"""The line about memory: MMDetection's words, measured behind the training."""

import builtins
import logging
import re
from typing import Any

import psutil
import pytest

from asynchooks.hooks import MemoryProfilerHook

LINE = re.compile(
    r"Memory information available_memory: \d+ MB, used_memory: \d+ MB, memory_utilization: [\d.]+ %, "
    r"available_swap_memory: \d+ MB, used_swap_memory: \d+ MB, swap_memory_utilization: [\d.]+ %, "
    r"current_process_memory: (\d+) MB"
)


def test_a_line_every_so_many_iterations_of_an_epoch(train: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        train(MemoryProfilerHook(interval=2), epochs=2, iters=5, mode="sync")

    lines = [record.getMessage() for record in caplog.records if "Memory" in record.getMessage()]
    assert len(lines) == 4
    match = LINE.fullmatch(lines[-1])
    assert match
    assert int(match[1]) == pytest.approx(psutil.Process().memory_info().rss / 2**20, rel=0.5)


def test_validations_and_tests_are_measured_too() -> None:
    hook, runner = MemoryProfilerHook(interval=2), type("Run", (), {"logger": logging.getLogger("memory")})()
    for method in (hook.after_train_iter, hook.after_val_iter, hook.after_test_iter):
        assert method(runner, batch_idx=0) is None
        assert method(runner, batch_idx=1) is not None


def test_without_psutil_the_construction_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without_psutil(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "psutil":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_psutil)  # no other way to miss an installed package

    with pytest.raises(ImportError, match=r"asynchooks\[memory\]"):
        MemoryProfilerHook()
