"""What is claimed in the message hub for saves that are still to happen, and taken back when they do not."""

import pytest

from asynchooks.hooks.checkpoint._books import Claim, Claims
from asynchooks.runner import MessageHub


@pytest.fixture
def hub() -> MessageHub:
    hub = MessageHub()
    hub.update_info("best_score", 0.1)
    return hub


def claimed(claims: Claims, hub: MessageHub, *scores: float) -> list[Claim]:
    """Claim the scores one after the other, all of them still under way."""
    made = []
    for score in scores:
        with claims.claim(hub, {"best_score": score, "best_ckpt": f"best_{score}"}) as (claim,):
            made.append(claim)
    return made


def test_claims_that_fail_one_after_the_other_leave_what_was_there_before_the_first(hub: MessageHub) -> None:
    claims = Claims()
    for claim in claimed(claims, hub, 0.7, 0.8, 0.9):
        claim.end()
        claims.settle(hub)

    assert hub.get_info("best_score") == 0.1
    assert hub.get_info("best_ckpt") is None


def test_a_lost_claim_leaves_what_was_claimed_after_it(hub: MessageHub) -> None:
    claims = Claims()
    first, second = claimed(claims, hub, 0.8, 0.8)
    first.end()
    claims.settle(hub)
    assert hub.get_info("best_score") == 0.8

    second.keep()
    second.end()
    claims.settle(hub)
    assert hub.get_info("best_score") == 0.8


def test_what_was_lost_together_is_taken_back_together(hub: MessageHub) -> None:
    claims = Claims()
    *lost, last = claimed(claims, hub, 0.7, 0.8, 0.9)
    for claim in lost:
        claim.end()
    claims.settle(hub)
    assert hub.get_info("best_score") == 0.9

    last.end()
    claims.settle(hub)
    assert hub.get_info("best_score") == 0.1


def test_a_capture_that_fails_takes_all_its_claims_back(hub: MessageHub) -> None:
    with pytest.raises(MemoryError), Claims().claim(hub, {"best_score": 0.5}, {"last_ckpt": "epoch_1.pth"}):
        raise MemoryError

    assert (hub.get_info("best_score"), hub.get_info("last_ckpt")) == (0.1, None)
