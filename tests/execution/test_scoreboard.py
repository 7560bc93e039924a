"""Every interleaving of small programs, enumerated on the state machine."""

from itertools import product
from typing import Any

import pytest

from asynchooks import Effects
from asynchooks.execution._scoreboard import Abandon, Invocation, Key, Order, Scoreboard, Start, Wait

WRITE_A, READ_A, WRITE_B, UNKNOWN = Effects(writes={"a"}), Effects(reads={"a"}), Effects(writes={"b"}), None
KINDS = (WRITE_A, READ_A, WRITE_B, UNKNOWN)


def programs(length: int) -> list[tuple[Invocation, ...]]:
    """All programs of some invocations over four kinds of effects, two hooks' identities, firings, priorities."""
    shapes = list(product(KINDS, (0, 1)))  # effects, whether it belongs to the firing of the one before
    found = []
    for combination in product(shapes, repeat=length):
        for hooks in ((0, 1, 2, 3), (0, 1, 0, 1)):
            firing, program = 0, []
            for number, (effects, same_firing) in enumerate(combination):
                firing += 0 if same_firing else 1
                program.append(Invocation((number,), hooks[number], firing, 10 * number, effects))
            found.append(tuple(program))
    return found


def must_precede(first: Invocation, second: Invocation, order: Order) -> bool:
    """The contract's rules 1-4, spelled out once more in the contract's own words."""
    declared = first.effects is not None and second.effects is not None
    touched = [e.reads | e.writes if e else frozenset() for e in (first.effects, second.effects)]
    writes = [e.writes if e else frozenset() for e in (first.effects, second.effects)]
    conflict = declared and bool(writes[0] & touched[1] or writes[1] & touched[0])
    rule_1 = first.hook == second.hook
    rule_2 = conflict
    rule_3 = (
        first.firing == second.firing
        and first.priority != second.priority
        and not (declared and not conflict)
    )
    rule_4 = order == "strict" and not (declared and not conflict)
    return rule_1 or rule_2 or rule_3 or rule_4


def every_run(program: tuple[Invocation, ...], order: Order, failing: frozenset[Key] = frozenset()) -> Any:
    """Yield (started, finished, abandoned) traces of every interleaving of invoking and ending."""

    def explore(board_events: list[tuple[str, Key]]) -> Any:
        board, running, trace, abandoned, invoked = Scoreboard(order), set(), [], set(), 0
        for event, key in board_events:
            if event == "invoke":
                decisions = board.invoked(program[invoked])
                invoked += 1
            else:
                running.discard(key)
                trace.append(("end", key))
                decisions = board.failed(key) if key in failing else board.finished(key)
            for decision in decisions:
                if isinstance(decision, Start):
                    trace.append(("start", decision.key))
                    running.add(decision.key)
                elif isinstance(decision, Abandon):
                    abandoned.add(decision.key)
        moves = [("end", key) for key in sorted(running)]
        if invoked < len(program):
            moves.append(("invoke", program[invoked].key))
        if not moves:
            yield trace, abandoned, board
        for move in moves:
            yield from explore([*board_events, move])

    yield from explore([])


@pytest.mark.parametrize("order", ["priority", "strict"])
def test_every_interleaving_keeps_the_rules_and_runs_everything(order: Any) -> None:
    runs = 0
    for program in programs(3):
        for trace, abandoned, board in every_run(program, order):
            runs += 1
            place = {event: index for index, event in enumerate(trace)}
            assert len(board) == 0
            assert not abandoned
            for second in program:
                assert ("end", second.key) in place, "nothing is forgotten"
                for first in program:
                    if first.key < second.key and must_precede(first, second, order):
                        assert place["end", first.key] < place["start", second.key]
    assert runs > 5_000


def test_what_need_not_wait_may_overlap() -> None:
    program = (
        Invocation((0,), 0, 1, 10, WRITE_A),
        Invocation((1,), 1, 1, 90, WRITE_B),
    )
    traces = [trace for trace, _, _ in every_run(program, "strict")]

    assert [("start", (0,)), ("start", (1,)), ("end", (1,)), ("end", (0,))] in traces


@pytest.mark.parametrize("order", ["priority", "strict"])
def test_what_follows_a_failure_never_starts_and_the_rest_does(order: Any) -> None:
    for program in programs(3):
        for failing in program[:2]:
            for trace, abandoned, _ in every_run(program, order, frozenset({failing.key})):
                started = {key for event, key in trace if event == "start"}
                for later in program:
                    if later.key > failing.key and must_precede(failing, later, order):
                        assert later.key not in started or failing.key not in started
                assert started | abandoned == {invocation.key for invocation in program}
                assert not started & abandoned


def test_an_acknowledged_failure_no_longer_abandons() -> None:
    board = Scoreboard()
    board.invoked(Invocation((0,), 0, 1, 10, WRITE_A))
    board.failed((0,))
    board.acknowledged((0,))

    assert board.invoked(Invocation((1,), 1, 2, 10, WRITE_A)) == [Start((1,))]


def test_a_late_child_takes_its_place_before_what_has_not_started() -> None:
    board = Scoreboard()
    board.invoked(Invocation((0,), 0, 1, 90, Effects(writes={"a", "b"})))
    assert board.invoked(Invocation((1,), 1, 2, 50, WRITE_B)) == [Wait((1,), frozenset({(0,)}))]

    assert board.invoked(Invocation((0, 0, 1), 2, 3, 50, WRITE_B)) == [Wait((0, 0, 1), frozenset({(0,)}))]
    assert board.finished((0,)) == [Start((0, 0, 1))]
    assert board.finished((0, 0, 1)) == [Start((1,))]


def test_a_replaced_invocation_releases_what_waited_for_it() -> None:
    board = Scoreboard()
    for number in range(3):
        board.invoked(Invocation((number,), number, number, 50, WRITE_A))

    assert board.replaced((1,)) == []
    assert board.finished((0,)) == [Start((2,))]


def test_a_started_invocation_cannot_be_replaced() -> None:
    board = Scoreboard()
    board.invoked(Invocation((0,), 0, 0, 50, WRITE_A))

    with pytest.raises(ValueError, match="has started"):
        board.replaced((0,))


def test_an_immediate_invocation_leaves_the_board_when_it_starts() -> None:
    board = Scoreboard()
    board.invoked(Invocation((0,), 0, 0, 50, WRITE_A, immediate=True))

    assert len(board) == 0


def test_an_invocation_that_asks_again_waits_for_what_was_placed_before_it_meanwhile() -> None:
    board = Scoreboard()
    assert board.invoked(Invocation((0, 0, 1), 0, 0, 50, WRITE_A)) == [Start((0, 0, 1))]
    board.invoked(Invocation((0, 0, 0, 0), 1, 1, 50, WRITE_A))

    assert board.asked_again((0, 0, 1)) == [Wait((0, 0, 1), frozenset({(0, 0, 0, 0)}))]
    assert board.finished((0, 0, 0, 0)) == [Start((0, 0, 1))]


def test_a_hook_waits_for_a_part_that_may_fire_a_point_to_which_it_listens() -> None:
    fires = Invocation((0,), 0, 0, 50, WRITE_A, heard_by=frozenset({1}))
    listens = Invocation((1,), 1, 1, 50, Effects())
    board = Scoreboard()

    assert board.must_precede(fires, listens)
    assert not board.must_precede(listens, fires)
