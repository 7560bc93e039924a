"""What is said about a plan is what the scoreboard does with it, and what the executor waits for."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asynchooks import Effects, Hook, HookExecutor, background
from asynchooks.execution import explain, shapes_of
from asynchooks.execution._explain import ExplainedStep
from asynchooks.execution._scoreboard import Key, Scoreboard, Start, Wait
from asynchooks.testing import RecordingInstrument

from .test_law import FIRED, NESTED, POINTS, ModelHook, Program, Spec, World, common, drained, specs

orderings = st.sampled_from(["priority", "strict"])
hook_specs = st.lists(specs(declared=st.booleans()), min_size=1, max_size=5)
Place = tuple[int, str]


def executor_of(drawn: list[Spec], **options: Any) -> HookExecutor:
    """Return an executor of model hooks whose class names are their numbers."""
    world = World()
    kinds = [type(f"Hook{number}", (ModelHook,), {}) for number, _ in enumerate(drawn)]
    hooks = [kind(number, spec, world) for number, (kind, spec) in enumerate(zip(kinds, drawn, strict=True))]
    executor = HookExecutor(hooks, points=FIRED, **options)
    for hook in hooks:
        hook.executor = executor
    return executor


def explained(executor: HookExecutor) -> dict[Place, ExplainedStep]:
    points = explain(executor)
    return {(s.number, p.point): s for p in points for band in p.bands for s in band.steps}


def places(step: ExplainedStep) -> set[Place]:
    return {
        (cause.number, point) for cause in (*step.waits_for, *step.starts_after) for point in cause.points
    }


@common
@given(hook_specs, orderings, st.lists(st.sampled_from((*POINTS, NESTED, *FIRED)), max_size=8), st.data())
def test_whatever_the_scoreboard_lets_wait_is_predicted(
    drawn: list[Spec], ordering: Any, firings: list[str], data: st.DataObject
) -> None:
    executor = executor_of(drawn, ordering=ordering)
    predicted, board = explained(executor), Scoreboard(ordering)
    fired = {point for hook in executor.registered for point in hook.fires}
    keys, running, who = itertools.count(), set[Key](), dict[Key, Place]()

    def finish(key: Key) -> None:
        running.discard(key)
        running.update(d.key for d in board.finished(key) if isinstance(d, Start) and d.key in board)

    for firing, point in enumerate(firings):
        for step in executor.plan(point).steps:
            place, key = (step.registration.number, point), (next(keys),)
            who[key] = place
            is_call = step.shape == "blocking" and point not in fired
            for decision in board.invoked(step.invocation(key, firing, immediate=is_call)):
                if isinstance(decision, Wait):
                    assert {who[blocker] for blocker in decision.blockers} <= places(predicted[place])
                    assert step.may_wait or not is_call
                elif key in board:
                    running.add(key)
            while is_call and key in board:  # the training thread waits here
                finish(data.draw(st.sampled_from(sorted(running - {key}))))
        for done in data.draw(st.sets(st.sampled_from(sorted(running)))) if running else ():
            finish(done)


@common
@given(hook_specs, orderings)
def test_whatever_is_predicted_can_happen_on_the_scoreboard(drawn: list[Spec], ordering: Any) -> None:
    executor = executor_of(drawn, ordering=ordering)
    steps = {(s.registration.number, p): s for p in (*POINTS, NESTED, *FIRED) for s in executor.plan(p).steps}
    for place, step in explained(executor).items():
        for before in places(step):
            waits = []
            for firing in (0, 1):  # the same one, a later one
                board = Scoreboard(ordering)
                board.invoked(steps[before].invocation((0,), 0))
                (decision,) = board.invoked(steps[place].invocation((1,), firing))
                waits.append(isinstance(decision, Wait))
            assert any(waits)


@settings(common, max_examples=50)
@given(st.lists(st.sampled_from(POINTS) | drained, min_size=1, max_size=8), hook_specs, orderings)
def test_whatever_the_executor_waits_for_is_predicted(
    events: list[Any], drawn: list[Spec], ordering: Any
) -> None:
    instrument = RecordingInstrument()
    executor = executor_of(drawn, ordering=ordering, instrument=instrument)
    predicted = explained(executor)
    with executor:
        for label, event in enumerate(Program(tuple(events), 0).events):
            if isinstance(event, frozenset):
                executor.drain(event)
            else:
                executor.fire(event, None, label=label, path="")

    for span in instrument.of("barrier"):
        if span.hook != "executor":  # that is what was fired from the background, and due
            causes = places(predicted[int(span.hook.removeprefix("Hook")), span.point])
            assert {f"Hook{number}.{point}" for number, point in causes} & set(span.detail["waited_for"])  # type: ignore[call-overload]


class Saver(Hook):
    priority = "HIGH"
    effects = Effects(writes={"files.saves"})
    fires = ("after_save_checkpoint",)

    @background
    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> Any:
        """Save."""


class Reader(Hook):
    effects = Effects(reads={"files"})

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Read what was saved."""


class Unknown(Hook):
    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Nobody knows what it does."""

    async def after_run(self, runner: Any) -> None:
        """Wholly in the background."""


class Listener(Hook):
    effects = Effects()

    def after_save_checkpoint(self, runner: Any, path: str, meta: Any) -> None:
        """Listen."""

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Block."""


def step_of(hooks: list[Hook], place: Place, **options: Any) -> ExplainedStep:
    executor = HookExecutor(hooks)
    points = explain(executor, **options)
    return next(s for p in points for band in p.bands for s in band.steps if (s.number, p.point) == place)


@pytest.mark.parametrize(
    ("hook", "rule", "why"),
    [
        (Listener(), 1, "it listens to what Saver fires"),
        (Reader(), 2, "both touch files.saves"),
        (Unknown(), 3, "the priority boundary: Unknown declares no effects"),
    ],
)
def test_the_rule_and_its_reason_are_told(hook: Hook, rule: int, why: str) -> None:
    step = step_of([Saver(), hook], (1, "after_train_iter"))

    assert (0, rule, why) in [(cause.number, cause.rule, cause.why) for cause in step.waits_for]


def test_nothing_of_earlier_firings_is_in_flight_where_the_loop_drains() -> None:
    anywhere = step_of([Saver(), Unknown()], (1, "after_run"))
    drained_before = step_of([Saver(), Unknown()], (1, "after_run"), since_drain={"after_run": ()})

    assert [cause.rule for cause in anywhere.starts_after] == [1]
    assert drained_before.starts_after == ()


def test_parts_that_need_no_order_overlap() -> None:
    class Logger(Hook):
        effects = Effects(writes={"logs"})

        async def after_train_iter(
            self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
        ) -> None:
            """Log."""

    step = step_of([Saver(), Logger(), Unknown()], (1, "after_train_iter"))

    assert step.overlaps == ("Saver", "Unknown")
    assert [cause.why for cause in step.starts_after] == ["its own earlier parts"]


def test_shapes_of_a_class_are_told_without_building_one() -> None:
    class Needy(Saver):
        def __init__(self, needed: int) -> None:
            raise AssertionError

        def _before_epoch(self, runner: Any, mode: str = "train") -> None:
            """Of every mode."""

        async def after_val_epoch(self, runner: Any, metrics: Any = None) -> None:
            """Async."""

    assert shapes_of(Needy) == {
        "before_train_epoch": "blocking",
        "after_train_iter": "capture",
        "before_val_epoch": "blocking",
        "after_val_epoch": "async",
        "before_test_epoch": "blocking",
    }
