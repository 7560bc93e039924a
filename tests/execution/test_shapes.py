"""How a method runs is visible in its shape, and a wrong shape is refused with the fix."""

import functools
import threading
from typing import Any

import anyio
import numpy as np
import pytest

from asynchooks import Effects, Hook, HookExecutor, RunnerView, background
from asynchooks.errors import (
    BackgroundHookError,
    LiveStateError,
    UnknownPointError,
)
from asynchooks.execution import get_priority


def fire(hook: Any, point: Any = "before_train", context: Any = None, **arguments: Any) -> None:
    with HookExecutor([hook]) as executor:
        executor.fire(point, context, **arguments)
        executor.drain()


class Probe(Hook):
    def __init__(self) -> None:
        self.seen: dict[str, Any] = {}

    def _saw(self, what: Any, runner: Any) -> None:
        self.seen[what] = (threading.current_thread(), runner)

    def before_run(self, runner: Any) -> None:
        self._saw("blocking", runner)

    @background
    def before_train(self, runner: Any) -> Any:
        self._saw("capture", runner)

        async def part() -> None:
            self._saw("part", None)

        return part

    async def after_train(self, runner: Any) -> None:
        self._saw("async", runner)


class Context:
    epoch = 3
    iter = 41
    max_iters = 100
    model = object()


def test_each_shape_runs_on_its_thread() -> None:
    probe, context = Probe(), Context()
    with HookExecutor([probe]) as executor:
        for point in ("before_run", "before_train", "after_train"):
            executor.fire(point, context)

    main = threading.current_thread()
    assert probe.seen["blocking"] == (main, context)
    assert probe.seen["capture"] == (main, context)
    assert probe.seen["part"][0] is not main
    assert probe.seen["async"][0] is not main


def test_an_async_method_gets_a_frozen_view() -> None:
    probe = Probe()
    fire(probe, "after_train", Context())
    view = probe.seen["async"][1]

    assert isinstance(view, RunnerView)
    assert (view.epoch, view.iter, view.max_iters, view.max_epochs) == (3, 41, 100, None)
    with pytest.raises(LiveStateError, match=r"runner\.model is live.*@background"):
        _ = view.model
    with pytest.raises(AttributeError):
        view.epoch = 4  # type: ignore[misc]  # frozen: the point of the test


def test_background_arguments_are_copies_and_live_ones_are_refused() -> None:
    seen: dict[str, Any] = {}

    class Batch:
        pass

    class Reader(Hook):
        async def after_train_iter(
            self, runner: Any, batch_idx: Any, data_batch: Any = None, outputs: Any = None
        ) -> None:
            seen.update(batch_idx=batch_idx, outputs=outputs)
            try:
                data_batch.images  # noqa: B018
            except LiveStateError as error:
                seen["error"] = str(error)

    outputs = {"loss": 1.5, "names": ["a"]}
    with HookExecutor([Reader()]) as executor:
        executor.fire("after_train_iter", None, batch_idx=7, data_batch=Batch(), outputs=outputs)
        outputs["loss"] = 2.5

    assert seen["batch_idx"] == 7
    assert seen["outputs"] == {"loss": 1.5, "names": ("a",)}
    assert "data_batch (Batch) is live training state" in seen["error"]


def test_numbers_of_numpy_are_plain_values() -> None:
    seen: dict[str, object] = {}

    class Reader(Hook):
        async def after_train_iter(
            self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
        ) -> None:
            seen.update(outputs)

    outputs = {"loss": np.float32(1.5), "count": np.int64(3)}
    fire(Reader(), "after_train_iter", batch_idx=0, outputs=outputs)

    assert seen == outputs


def test_a_foreign_blocking_hook_can_run_in_a_worker_thread() -> None:
    class Uploader:
        def after_train_epoch(self, runner: Any) -> None:
            self.seen = (threading.current_thread(), type(runner))

    uploader = Uploader()
    with HookExecutor() as executor:
        executor.register(uploader, mode="background")
        executor.fire("after_train_epoch", Context())

    assert uploader.seen[0] is not threading.current_thread()
    assert uploader.seen[1] is RunnerView


def test_a_capture_that_returns_none_starts_nothing() -> None:
    class Never(Hook):
        @background
        def before_train(self, runner: Any) -> None:
            return None

    with HookExecutor([Never()]) as executor:
        executor.fire("before_train", None)
        assert executor.statistics().hooks[0].parts == 0


def test_a_partial_of_an_async_function_is_a_background_part() -> None:
    done: list[Any] = []

    async def work(item: Any) -> None:
        done.append(item)

    class Partial(Hook):
        @background
        def before_train(self, runner: Any) -> Any:
            return functools.partial(work, 5)

    fire(Partial())

    assert done == [5]


def test_an_unknown_point_is_refused_and_the_right_one_suggested() -> None:
    with (
        HookExecutor([Probe()]) as executor,
        pytest.raises(UnknownPointError, match="Did you mean 'after_train_iter'"),
    ):
        executor.fire("after_train_itr", None)


def test_custom_points_are_fired_when_a_hook_defines_or_the_executor_declares_them() -> None:
    seen: list[Any] = []

    class Custom(Hook):
        def on_my_point(self, runner: Any, value: Any) -> None:
            seen.append(value)

    with HookExecutor([Custom()], points=["declared"]) as executor:
        executor.fire("on_my_point", None, value=4)
        executor.fire("declared", None)

    assert seen == [4]


def test_a_method_set_on_the_instance_runs() -> None:
    seen: list[Any] = []
    hook = Hook()
    hook.before_train_epoch = lambda runner: seen.append(runner)  # type: ignore[method-assign]

    fire(hook, "before_train_epoch", "context")

    assert seen == ["context"]


def test_a_generic_method_serves_every_mode_that_is_not_overridden() -> None:
    seen: list[Any] = []

    class Generic(Hook):
        def _after_iter(
            self,
            runner: Any,
            batch_idx: Any,
            data_batch: Any = None,
            outputs: Any = None,
            mode: Any = "train",
        ) -> None:
            seen.append((mode, batch_idx))

        async def _after_epoch(self, runner: Any, mode: Any = "train") -> None:
            seen.append((mode, "epoch"))

        def after_test_iter(
            self, runner: Any, batch_idx: Any, data_batch: Any = None, outputs: Any = None
        ) -> None:
            seen.append("own")

    with HookExecutor([Generic()]) as executor:
        executor.fire("after_train_iter", None, batch_idx=1, data_batch=None, outputs=None)
        executor.fire("after_val_iter", None, batch_idx=2)
        executor.fire("after_test_iter", None, batch_idx=3)
        executor.fire("after_val_epoch", None, metrics={})

    assert seen == [("train", 1), ("val", 2), "own", ("val", "epoch")]


def test_triggered_stages_are_listed_in_the_order_of_a_run() -> None:
    assert Probe().get_triggered_stages() == ["before_run", "before_train", "after_train"]


@pytest.mark.parametrize(
    ("given", "number"), [("NORMAL", 50), ("very_low", 90), (48, 48), (0, 0), (100, 100)]
)
def test_priorities_have_mmengines_numbers(given: Any, number: Any) -> None:
    assert get_priority(given) == number


def test_effects_cover_what_is_below_them() -> None:
    assert Effects(writes={"logs"}).covers({"logs.tensorboard"})
    assert not Effects(writes={"logs"}).covers({"logstash"})
    with pytest.raises(TypeError, match="give a set of names"):
        Effects(writes="logs")
    with pytest.raises(ValueError, match="no dotted name"):
        Effects(reads={"logs/tensorboard"})


def test_a_blocking_error_keeps_its_type_and_names_the_hook() -> None:
    class Broken(Hook):
        def before_train(self, runner: Any) -> None:
            raise KeyError("nothing")

    with pytest.raises(KeyError) as caught:
        fire(Broken())

    assert caught.value.__notes__ == ["Raised by Broken.before_train, Broken (NORMAL)."]


def test_an_awaiting_part_that_raises_is_named_with_its_step() -> None:
    class Failing(Hook):
        @background
        def before_train(self, runner: Any) -> Any:
            async def part() -> None:
                await anyio.lowlevel.checkpoint()
                raise OSError("no space")

            return part

    with pytest.raises(BackgroundHookError, match="epoch 3, iteration 41.*OSError: no space") as caught:
        fire(Failing(), context=Context())

    assert (caught.value.hook, caught.value.point) == ("Failing", "before_train")
    assert isinstance(caught.value.__cause__, OSError)
