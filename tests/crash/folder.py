"""A folder in which a save was cut short, and what must be true of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from asynchooks.checkpoint import find_latest, list_checkpoints, open_store, read_pointer, restore, sweep
from asynchooks.checkpoint._owner import OWNER_FILE

from .saver import Saved, Scenario, save


@dataclass(frozen=True)
class Folder:
    """Where it is."""

    url: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def check(self, scenario: Scenario, newest: set[int | None]) -> None:
        """All that is listed loads and is what was saved; the newest is one of these steps."""
        listed = list_checkpoints(self.url, storage_options=self.options)
        for info in listed:
            self.check_content(restore(info.url, storage_options=self.options), scenario.steps[info.step])
            if "://" not in self.url:
                self.check_content(torch.load(info.url, weights_only=True), scenario.steps[info.step])
        self.check_newest(newest)
        assert read_pointer(self.url, storage_options=self.options) in {None, *(info.url for info in listed)}

    def check_newest(self, newest: set[int | None]) -> None:
        """What a resume finds is one of these steps."""
        latest = find_latest(self.url, storage_options=self.options)
        assert (latest.step if latest else None) in newest

    def check_content(self, loaded: Mapping[str, Any], saved: Saved) -> None:
        """Every number of it is of one save."""
        assert loaded["meta"]["iter"] == saved.step
        assert loaded["state_dict"]["w"].equal(saved.state()["state_dict"]["w"])

    def files(self) -> set[str]:
        return open_store(self.url, self.options).entries().keys() - {OWNER_FILE}

    def go_on(self, scenario: Scenario, newest: set[int | None]) -> None:
        """Clean up and save on: the folder holds what a run that was not killed leaves."""
        sweep(self.url, older_than_s=-60, storage_options=self.options)
        self.check_newest(newest)
        assert not [name for name in self.files() if name.endswith((".tmp", ".manifest.next.json"))]
        further = Saved(30, scenario.saved.name)
        save(open_store(self.url, self.options), further, scenario.keep)
        self.check_newest({further.step})
        assert self.files() == files_of(*scenario.after)


def files_of(*saved: Saved) -> set[str]:
    """What a folder holds with these checkpoints and nothing else."""
    return {"last_checkpoint", *(each.name + ending for each in saved for ending in ("", ".manifest.json"))}
