"""What the owner file of a folder says: which run and which process writes there.

Decides the file's name and format, and the words that tell people about an owner. Pure.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime

from asynchooks.checkpoint._process import Process

__all__ = ["OWNER_FILE", "Owner"]

OWNER_FILE = ".asynchooks.owner.json"
"""No checkpoint can have this name."""

_FORMAT = "asynchooks.owner"


@dataclass(frozen=True, slots=True)
class Owner:
    """Who claims a folder.

    Attributes:
        run_id: the run, which several processes may carry on one after the other.
        writer_id: the process that writes; never used twice.
        process: the same, as people find it.
        renewed_s: when it was last heard of, seconds since 1970.
        step: the last step that it was about to save; None before the first.
        released: whether it is done with the folder.
    """

    run_id: str
    writer_id: str
    process: Process
    renewed_s: float
    step: int | None = None
    released: bool = False

    def __str__(self) -> str:
        """Describe it in a message."""
        at = datetime.fromtimestamp(self.renewed_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        step = "before its first save" if self.step is None else f"saving step {self.step}"
        return f"run {self.run_id} (process {self.process.pid} on {self.process.host}, last heard of {at}, {step})"

    def to_json(self) -> bytes:
        """The owner file's bytes."""
        document = {
            "format": _FORMAT,
            "version": 1,
            "run_id": self.run_id,
            "writer_id": self.writer_id,
            "host": self.process.host,
            "pid": self.process.pid,
            "process": self.process.birth,
            "renewed": datetime.fromtimestamp(self.renewed_s, UTC).isoformat(timespec="milliseconds"),
            "renewed_s": self.renewed_s,
            "step": self.step,
            "released": self.released,
        }
        return json.dumps(document, indent=1).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Owner:
        """Read an owner file; one that is damaged, or newer, names an unknown owner that released nothing."""
        try:
            document = json.loads(text)
            return cls(
                run_id=str(document["run_id"]),
                writer_id=str(document["writer_id"]),
                process=Process(str(document["host"]), int(document["pid"]), str(document["process"])),
                renewed_s=float(document["renewed_s"]),
                step=None if document["step"] is None else int(document["step"]),
                released=document["released"] is True,
            )
        except (KeyError, TypeError, ValueError, OverflowError):
            return cls("unknown", "", Process("an unknown host", 0, ""), 0.0)
