"""Looks at a folder all the time, as a reader beside a run does. Run as a program: two orders, begin and end.

From the first checkpoint on there must be one that loads, at every look, and never an older one than before. What it
loads is compared with what was saved.
"""

from __future__ import annotations

import json
import sys
import threading
import traceback
from collections.abc import Mapping
from typing import Any

import torch

from asynchooks.checkpoint import CheckpointInfo, list_checkpoints, read_pointer, restore, restore_latest
from asynchooks.errors import CheckpointNotFoundError

from .trainer import digest


class Watcher:
    """The looks at one folder.

    Args:
        url: the folder.
        options: its store's.
        digests: of the training state after each step; None where each tensor is filled with its step.
    """

    def __init__(self, url: str, options: Mapping[str, str], digests: Mapping[str, str] | None) -> None:
        self.url = url
        self.options = dict(options)
        self.digests = digests
        self.looks = 0
        self.newest = -1
        self.failures: list[str] = []

    def look_until(self, stop: threading.Event) -> None:
        """Look again and again; what is wrong ends it."""
        try:
            while not stop.is_set() or not self.looks:
                self.look()
        except Exception:  # told to the test
            self.failures.append(traceback.format_exc())

    def look(self) -> None:
        listed = list_checkpoints(self.url, storage_options=self.options)
        if not listed and self.newest < 0:
            return
        assert listed, "the listing is empty"
        found = restore_latest(self.url, storage_options=self.options)
        assert found is not None, "nothing loads"
        info, loaded = found
        self.check_content(loaded, info)
        assert info.step >= self.newest, f"{info.step} after {self.newest}"
        self.newest = info.step
        self.check_pointer()
        if "://" not in self.url:
            self.check_plainly(info)
        self.looks += 1

    def check_content(self, loaded: Mapping[str, Any], info: CheckpointInfo | None) -> None:
        step = loaded["meta"]["iter"]
        assert info is None or info.step == step
        if self.digests is None:
            assert (loaded["state_dict"]["w"] == step).all()
        elif "optimizer" in loaded:
            assert digest(loaded["state_dict"], loaded["optimizer"]) == self.digests[str(step)]

    def check_pointer(self) -> None:
        """What it names loads; where it was pruned meanwhile, the pointer names another one by now."""
        pointed = read_pointer(self.url, storage_options=self.options)
        while pointed is not None:
            try:
                self.check_content(restore(pointed, storage_options=self.options), None)
            except CheckpointNotFoundError:
                before, pointed = pointed, read_pointer(self.url, storage_options=self.options)
                assert pointed != before, f"{pointed} does not exist"
            else:
                return
        assert not self.looks, "there is no pointer"

    def check_plainly(self, info: CheckpointInfo) -> None:
        """The file loads without this package, unless it was pruned meanwhile."""
        try:
            loaded = torch.load(info.url, weights_only=True)
        except FileNotFoundError:
            names = {each.name for each in list_checkpoints(self.url, storage_options=self.options)}
            assert info.name not in names
        else:
            self.check_content(loaded, None)


def main() -> None:
    torch.set_num_threads(1)
    for line in sys.stdin:
        watcher = Watcher(**json.loads(line))
        stop = threading.Event()
        thread = threading.Thread(target=watcher.look_until, args=(stop,))
        thread.start()
        sys.stdout.write("{}\n")
        sys.stdout.flush()
        sys.stdin.readline()
        stop.set()
        thread.join()
        sys.stdout.write(json.dumps({"looks": watcher.looks, "failures": watcher.failures}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
