"""Each single request of a save on S3 is reset, or its answer lost: the save is committed all the same."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from asynchooks.testing import FaultyLink, LinkFault, LinkFaultKind, S3Server

from .folder import Folder
from .program import Program
from .saver import SCENARIOS

pytestmark = [pytest.mark.crash, pytest.mark.s3]


@dataclass(frozen=True)
class Attempt:
    """A save into a folder of its own, by a link of its own."""

    folder: Folder
    link: FaultyLink
    order: Mapping[str, Any]

    @classmethod
    def at(cls, server: S3Server, bucket: str, name: str, link: FaultyLink) -> Attempt:
        options = dict(server.storage_options)
        folder = Folder(f"{bucket}/{uuid.uuid4().hex}", options)
        faulty = {**options, "endpoint_url": link.endpoint_url}
        order = {"scenario": name, "url": folder.url, "options_before": options, "options": faulty}
        return cls(folder, link, order)


@pytest.mark.parametrize(("name", "fault"), [("replace", "lost answer"), ("prune", "reset")])
def test_one_request_goes_wrong(saver: Program, s3_server: S3Server, name: str, fault: LinkFaultKind) -> None:
    scenario, bucket = SCENARIOS[name], s3_server.make_bucket("every-request")
    with ExitStack() as stack:
        whole = Attempt.at(
            s3_server, bucket, name, stack.enter_context(FaultyLink.to(s3_server.endpoint_url))
        )
        assert saver.ask(whole.order)["status"] == 0, saver.errors
        faults = [LinkFault(fault, skip=number, times=1) for number in range(len(whole.link.requests()))]
        links = [stack.enter_context(FaultyLink.to(s3_server.endpoint_url, each)) for each in faults]
        attempts = [Attempt.at(s3_server, bucket, name, link) for link in links]

        answers = saver.ask([attempt.order for attempt in attempts])

        hits = [next((r for r in each.link.requests() if r.fault), None) for each in attempts]
    assert len(attempts) > 10
    for attempt, answer, hit in zip(attempts, answers, hits, strict=True):
        assert answer["status"] == 0, f"{hit}: {answer['points'][-1:]}{saver.errors}"
        attempt.folder.check(scenario, {scenario.saved.step})
        attempt.folder.go_on(scenario, {scenario.saved.step})
