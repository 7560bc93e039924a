"""Retention as laws: policies only choose, unions only add, and something always stays."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynchooks.checkpoint import CheckpointInfo, KeepAll, KeepBest, KeepEvery, KeepLast, RetentionPolicy
from asynchooks.checkpoint._retention import judge


def info(index: int, step: int, epoch: int | None = None, **metrics: float) -> CheckpointInfo:
    return CheckpointInfo(
        name=f"iter_{step}_{index}.pth",
        url="",
        step=step,
        epoch=epoch,
        metrics=metrics,
        nbytes=1,
        created_ns=index,
        run_id="run",
        save_id=str(index),
        group="last",
    )


def going(
    policy: RetentionPolicy, given_: list[CheckpointInfo], protected: dict[str, str] | None = None
) -> list[CheckpointInfo]:
    return [verdict.info for verdict in judge(policy, given_, protected=protected) if verdict.goes]


checkpoints = st.lists(
    st.tuples(st.integers(0, 40), st.none() | st.integers(0, 9), st.floats(width=16)), max_size=12
).map(lambda rows: [info(index, step, epoch, acc=acc) for index, (step, epoch, acc) in enumerate(rows)])

policies: st.SearchStrategy[RetentionPolicy] = st.recursive(
    st.one_of(
        st.just(KeepAll()),
        st.builds(KeepLast, st.integers(1, 5)),
        st.builds(KeepEvery, steps=st.integers(1, 10)),
        st.builds(KeepEvery, epochs=st.integers(1, 4)),
        st.builds(KeepBest, st.just("acc"), st.sampled_from(["greater", "less"]), st.integers(1, 4)),
    ),
    lambda inner: st.tuples(inner, inner).map(lambda pair: pair[0] | pair[1]),
    max_leaves=4,
)


@given(policies, checkpoints)
def test_the_newest_always_stays_and_only_given_ones_go(
    policy: RetentionPolicy, given_: list[CheckpointInfo]
) -> None:
    gone = going(policy, given_)

    assert all(one in given_ for one in gone)
    assert not given_ or given_[-1] not in gone


@given(policies, checkpoints, st.data())
def test_a_protected_name_always_stays(
    policy: RetentionPolicy, given_: list[CheckpointInfo], data: st.DataObject
) -> None:
    protected = data.draw(st.sets(st.sampled_from([one.name for one in given_]))) if given_ else set()

    gone = going(policy, given_, dict.fromkeys(protected, "a pointer names it"))
    assert not {one.name for one in gone} & protected


@given(policies, policies, checkpoints)
def test_a_union_keeps_what_either_keeps(
    one: RetentionPolicy, other: RetentionPolicy, given_: list[CheckpointInfo]
) -> None:
    assert (one | other).keeps(given_) == one.keeps(given_) | other.keeps(given_)


@given(policies, checkpoints)
def test_pruning_again_removes_nothing_more(policy: RetentionPolicy, given_: list[CheckpointInfo]) -> None:
    left = [one for one in given_ if one not in going(policy, given_)]

    assert going(policy, left) == []


def test_a_verdict_names_every_policy_that_speaks_for_a_checkpoint() -> None:
    given_ = [info(index, step=index * 10) for index in range(1, 5)]
    policy = KeepLast(2) | KeepEvery(steps=20)

    verdicts = judge(policy, given_, protected={given_[1].name: "last_checkpoint names it"})
    assert [verdict.kept_by for verdict in verdicts] == [
        (),
        ("last_checkpoint names it", "KeepEvery(steps=20)"),
        ("KeepLast(n=2)",),
        ("newest", "KeepLast(n=2)", "KeepEvery(steps=20)"),
    ]


@given(checkpoints, st.integers(1, 4))
def test_the_best_are_not_worse_than_any_other(given_: list[CheckpointInfo], n: int) -> None:
    kept = KeepBest("acc", "greater", n).keeps(given_)

    measured = [one for one in given_ if not math.isnan(one.metrics["acc"])]
    best = [one.metrics["acc"] for one in measured if one.save_id in kept]
    rest = [one.metrics["acc"] for one in measured if one.save_id not in kept]
    assert len(best) == min(n, len(measured))
    assert not rest or min(best) >= max(rest)


def test_a_best_score_of_zero_counts_and_ties_go_to_the_earlier() -> None:
    given_ = [info(0, 1, loss=1.0), info(1, 2, loss=0.0), info(2, 3, loss=0.0), info(3, 4)]

    assert KeepBest("loss", "less").keeps(given_) == {"1"}


def test_every_and_last_combine() -> None:
    given_ = [info(index, step=index * 10, epoch=index) for index in range(1, 7)]

    assert (KeepLast(1) | KeepEvery(steps=20)).keeps(given_) == {"2", "4", "6"}
    assert KeepEvery(epochs=3).keeps(given_) == {"3", "6"}


@pytest.mark.parametrize(
    "make",
    [
        lambda: KeepLast(0),
        lambda: KeepLast(True),
        KeepEvery,
        lambda: KeepEvery(steps=1, epochs=1),
        lambda: KeepEvery(steps=-1),
        lambda: KeepBest("acc", "more"),  # type: ignore[arg-type]
        lambda: KeepBest("acc", "less", 0),
    ],
)
def test_a_wrong_policy_fails_where_it_is_made(make: Any) -> None:
    with pytest.raises(ValueError, match="Keep"):
        make()
