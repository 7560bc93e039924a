"""The faults that whole runs meet: what goes wrong, where, and how it is put right for the next start.

Data alone: what comes of a fault is observed by `test_faults`, and stands in the contract's table. A run of ten
iterations saves every second one and keeps two; the faults begin after the second save.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from asynchooks.testing import LinkFault

from .system_calls import FOR_EVER

HIT = 6  # the step of the save that is hit
DATA = f"*/iter_{HIT}.pth?*"  # a request of its upload
HOUR_S, YEAR_S = 3600, 365 * 24 * 3600
FOLDER = "{folder}"  # stands for the disk's folder in the arguments of an act

Act = tuple[int, str, Mapping[str, Any]]


@dataclass(frozen=True)
class Fault:
    """One row of the table.

    Attributes:
        store: of which kind; "disk": with little room, "block disk": one that can lose its power.
        acts: what happens after which iteration; see `trainer.Act`.
        link: what happens to requests on the way to the server.
        heal: how the disk is put right.
        on_error: the hook's.
        deadline_s: the hook's.
    """

    store: Literal["disk", "block disk", "S3"]
    acts: tuple[Act, ...] = ()
    link: tuple[LinkFault, ...] = ()
    heal: Literal["make_room", "allow_writing", "come_back"] | None = None
    on_error: Literal["raise", "warn"] = "raise"
    deadline_s: float = 120.0

    @property
    def needs_calls(self) -> bool:
        """Whether it needs the library that stands before libc."""
        return any(function.startswith("system_calls.") for _, function, _ in self.acts)


def from_the_hit_on(kind: Any, **options: Any) -> LinkFault:
    return LinkFault(kind, once_seen=DATA, **options)


FAIL_ONCE = {"folder": FOLDER, "skip": 1, "action": errno.EIO, "times": 1}
FAIL_FOR_EVER = {"folder": FOLDER, "skip": 1, "action": errno.EIO, "times": FOR_EVER}

FAULTS = {
    "one write fails (EIO)": Fault("disk", ((5, "system_calls.arm", FAIL_ONCE),)),
    "every call fails from then on (EIO)": Fault("disk", ((5, "system_calls.arm", FAIL_FOR_EVER),)),
    "the disk is gone": Fault("block disk", ((5, "disk.cut_power", {"folder": FOLDER}),), heal="come_back"),
    "the disk is full": Fault(
        "disk", ((5, "disk.fill", {"folder": FOLDER, "leave_bytes": 100_000}),), heal="make_room"
    ),
    "the disk is full for a while, on_error=warn": Fault(
        "disk",
        (
            (5, "disk.fill", {"folder": FOLDER, "leave_bytes": 100_000}),
            (7, "disk.make_room", {"folder": FOLDER}),
        ),
        on_error="warn",
    ),
    "the disk is read-only": Fault(
        "disk", ((5, "disk.forbid_writing", {"folder": FOLDER}),), heal="allow_writing"
    ),
    "the clock goes back by an hour": Fault("disk", ((5, "system_calls.move_clock", {"seconds": -HOUR_S}),)),
    "the clock is a year ahead, and right again at the next start": Fault(
        "disk",
        (
            (1, "system_calls.move_clock", {"seconds": YEAR_S}),
            (7, "disk.forbid_writing", {"folder": FOLDER}),
        ),
        heal="allow_writing",
    ),
    "one connection is reset in mid-upload": Fault(
        "S3", link=(LinkFault("reset", path=DATA, after_bytes=2**20, times=1),)
    ),
    "three answers are 503 SlowDown": Fault("S3", link=(LinkFault("answer", path=DATA, times=3),)),
    "the server fails to complete the upload, twice (500)": Fault(
        "S3",
        link=(
            LinkFault(
                "answer", method="POST", path=f"{DATA}uploadId*", times=2, status=500, code="InternalError"
            ),
        ),
    ),
    "the answer to the completed upload is lost": Fault(
        "S3", link=(LinkFault("lost answer", method="POST", path=f"{DATA}uploadId*", times=1),)
    ),
    "the answer to a pointer is lost": Fault(
        "S3", link=(LinkFault("lost answer", path="*/last_checkpoint", skip=2, times=1),)
    ),
    "every answer is 503 SlowDown": Fault("S3", link=(from_the_hit_on("answer"),), deadline_s=3),
    "503 for as long as one save lasts, on_error=warn": Fault(
        "S3", link=(LinkFault("answer", path=DATA),), on_error="warn", deadline_s=3
    ),
    "the credentials expire (403 ExpiredToken)": Fault(
        "S3", link=(from_the_hit_on("answer", status=403, code="ExpiredToken"),)
    ),
    "the endpoint goes silent": Fault("S3", link=(from_the_hit_on("hang"),), deadline_s=2),
    "one request is never answered": Fault("S3", link=(LinkFault("hang", path=DATA, times=1),), deadline_s=4),
    "each request of the upload takes 300 ms longer": Fault(
        "S3", link=(LinkFault("delay", path=DATA, delay_s=0.3),)
    ),
}
