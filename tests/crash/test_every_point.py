"""SIGKILL at every point of a save, of a replacement and of a pruning: what was committed is there, and loads.

The points are those that an uninterrupted save passes: see `points`.
"""

from __future__ import annotations

import re
import signal
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from asynchooks import checkpoint
from asynchooks.testing import S3Server, SftpServer

from .folder import Folder
from .program import Program
from .saver import SCENARIOS, Scenario

pytestmark = pytest.mark.crash

CONTRACT = Path(checkpoint.__file__).with_name("README.md")
COMMITTED = "put manifest: done"
STEPS = {
    "write owner file": "claim",
    "put data": "data",
    "put next manifest": "next manifest just before the data appears",
    "put manifest": "manifest",
    "delete next manifest": "next manifest removed",
    "put pointer": "pointer",
    "put old next manifest": "pruning",
    "delete old manifest": "pruning",
    "delete old data": "pruning",
    "delete old next manifest": "pruning",
}
"""What a save does to its store, in the words of the contract's order of a save."""


@dataclass(frozen=True)
class Place:
    """Fresh folders in one kind of store."""

    make_url: Callable[[], str]
    options: Mapping[str, Any] = field(default_factory=dict)


def kill_everywhere(saver: Program, place: Place, scenario: Scenario, name: str, every: int = 1) -> None:
    """Kill a save at each of its points, or every so many, look what is there, and go on."""
    order = {"scenario": name, "options": dict(place.options)}
    whole = saver.ask({**order, "url": place.make_url(), "kill_at": -1})
    assert whole["status"] == 0, saver.errors
    for number in range(0, len(whole["points"]), every):
        folder = Folder(place.make_url(), place.options)
        killed = saver.ask({**order, "url": folder.url, "kill_at": number})
        assert (killed["status"], killed["points"]) == (-signal.SIGKILL, whole["points"][: number + 1])
        is_committed = COMMITTED in killed["points"]
        newest: set[int | None] = {scenario.saved.step}
        if not is_committed:
            newest.add(scenario.before[-1].step if scenario.before else None)
        folder.check(scenario, newest)
        folder.go_on(scenario, newest)


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def place(request: pytest.FixtureRequest) -> Place:
    if request.param == "local":
        folder: Path = request.getfixturevalue("memory_folder")
        return Place(lambda: str(folder / uuid.uuid4().hex))
    server: S3Server = request.getfixturevalue("s3_server")
    bucket = server.make_bucket("every-point")
    return Place(lambda: f"{bucket}/{uuid.uuid4().hex}", server.storage_options)


@pytest.mark.parametrize("name", SCENARIOS)
def test_killed_at_every_point(saver: Program, place: Place, name: str) -> None:
    kill_everywhere(saver, place, SCENARIOS[name], name)


def test_killed_at_points_of_a_save_over_sftp(saver: Program, sftp_server: SftpServer, soak: float) -> None:
    place = Place(lambda: f"{sftp_server.url}{uuid.uuid4().hex}", sftp_server.storage_options)

    kill_everywhere(saver, place, SCENARIOS["replace"], "replace", every=1 if soak > 1 else 7)  # slow


def test_the_contract_names_every_step_of_a_save_in_its_order(saver: Program, memory_folder: Path) -> None:
    passed = {
        name: saver.ask({"scenario": name, "url": str(memory_folder / name), "options": {}, "kill_at": -1})
        for name in SCENARIOS
    }
    steps = {name: [point.partition(":")[0] for point in each["points"]] for name, each in passed.items()}
    said = re.search(r"\*\*The order of a save\*\*: ([^.]+)\.", CONTRACT.read_text())

    assert {step for each in steps.values() for step in each} == STEPS.keys(), (
        "a step came or went: name it here, and in the contract's order of a save"
    )
    assert said is not None
    assert re.split(r",\s+", said[1]) == list(dict.fromkeys(STEPS[step] for step in steps["prune"]))
