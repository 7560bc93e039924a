"""What the command prints: the catalogue, one hook, a plan; as text for a person, or as one JSON document."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from asynchooks._cli._configured import load_config, runner_of
from asynchooks._cli.checkpoints._words import print_json, print_line
from asynchooks._cli.hooks._catalogue import Entry, catalogue, paragraph_of
from asynchooks._cli.hooks._markdown import markdown, update
from asynchooks._cli.hooks._words import (
    SHAPES,
    cause_words,
    effects_words,
    entry_effects_words,
    priority_words,
)
from asynchooks.errors import UnknownNameError, did_you_mean
from asynchooks.execution import PointExplanation, explain
from asynchooks.registry import HOOKS

if TYPE_CHECKING:
    from asynchooks.execution._explain import Cause, ExplainedStep

__all__ = ["show_catalogue", "show_hook", "show_plan", "write_markdown"]

# What the Runner can have fired between its last drain and these points.
_SINCE_DRAIN: dict[str, tuple[str, ...]] = {
    "before_run": (),
    "after_load_checkpoint": (),
    "before_train": ("before_run", "after_load_checkpoint"),
    "after_run": (),
}


def show_catalogue(name_filter: str | None, *, as_json: bool) -> None:
    """Show every registered hook, or those whose names hold a text."""
    entries = [e for e in catalogue() if name_filter is None or name_filter.lower() in e.name.lower()]
    if as_json:
        print_json({"hooks": [_facts(entry) for entry in entries]})
        return
    for entry in entries:
        effects = entry_effects_words(entry.effects, by_arguments=entry.by_arguments)
        state = "; changes training state" if entry.changes_state else ""
        print_line(f"{entry.name}  {priority_words(entry.priority)}  {effects}{state}")
        for shape, points in _by_shape(entry):
            print_line(f"    {SHAPES[shape]}: {', '.join(points)}")
    if not entries:
        print_line(f"No hook's name holds {name_filter!r}.")


def show_hook(name: str, *, as_json: bool) -> None:
    """Show one hook: what it is for, its arguments, where and how it runs.

    Raises:
        UnknownNameError: no hook has this name.
    """
    entry = _named(name)
    if as_json:
        print_json(_facts(entry))
        return
    print_line(f"{entry.name}  ({entry.kind.__module__}.{entry.kind.__qualname__})")
    print_line(paragraph_of(entry.kind))
    print_line("")
    for heading, lines in _sections(entry):
        print_line(heading if len(lines) > 1 else f"{heading}: {lines[0]}")
        for line in lines if len(lines) > 1 else ():
            print_line(f"  {line}")


def show_plan(file: str, pairs: Sequence[str], *, as_json: bool) -> None:
    """Show how the hooks of a configuration run together.

    Raises:
        ConfigError: the configuration is wrong.
    """
    runner = runner_of(load_config(file, pairs))
    executor = runner.executor
    points = explain(executor, since_drain=_SINCE_DRAIN)
    if as_json:
        print_json(
            {
                "config": file,
                "mode": executor.mode,
                "ordering": executor.ordering,
                "points": [_point_facts(point) for point in points],
            }
        )
        return
    print_line(f"{file}: mode {executor.mode}, ordering {executor.ordering}")
    for point in points:
        print_line("")
        for line in _point_lines(point, is_inline=executor.mode == "sync"):
            print_line(line)
    for line in _summary(points, executor.mode):
        print_line(line)


def write_markdown(file: Path | None) -> None:
    """Print the tables of the documentation, or put them into a file."""
    if file is None:
        typer.echo(markdown())
    else:
        print_line(f"{file}: {'updated' if update(file) else 'as it was'}")


def _named(name: str) -> Entry:
    entries = {entry.name: entry for entry in catalogue()}
    if name in entries:
        return entries[name]
    hint = did_you_mean(name, entries)
    same = [known for known in entries if known.rpartition(".")[2].lower() == name.rpartition(".")[2].lower()]
    raise UnknownNameError(
        f"No hook is called {name!r}.{f' Did you mean {same[0]!r}?' if same else hint} "
        f"`asynchooks hooks` lists all {len(entries)}."
        if name not in HOOKS
        else f"{name!r} is registered as a function; it says nothing about the hook that it makes."
    )


def _sections(entry: Entry) -> Iterator[tuple[str, list[str]]]:
    yield (
        "arguments",
        [f"{a.name}" + (" (needed)" if a.default is None else f" = {a.default}") for a in entry.arguments]
        + (["..."] if entry.takes_others else [])
        or ["none"],
    )
    yield "priority", [priority_words(entry.priority)]
    yield (
        "runs at",
        [f"{point}: {SHAPES[shape]}" for point, shape in entry.shapes.items()] or ["no standard point"],
    )
    yield "effects", [entry_effects_words(entry.effects, by_arguments=entry.by_arguments)]
    yield "changes training state", ["yes" if entry.changes_state else "no"]
    if entry.fires:
        yield "fires", [", ".join(entry.fires)]
    yield "when a background part fails", [entry.on_error]
    yield "when there is no room", [entry.when_busy]


def _by_shape(entry: Entry) -> Iterator[tuple[str, list[str]]]:
    for shape in SHAPES:
        points = [point for point, found in entry.shapes.items() if found == shape]
        if points:
            yield shape, points


def _source_of(kind: type) -> str | None:
    try:
        return inspect.getsourcefile(kind)
    except TypeError:  # its module was imported under a name that is gone
        return None


def _facts(entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "class": f"{entry.kind.__module__}.{entry.kind.__qualname__}",
        "file": _source_of(entry.kind),
        "does": paragraph_of(entry.kind),
        "priority": entry.priority,
        "priority_name": priority_words(entry.priority),
        "points": dict(entry.shapes),
        "effects": _effects_facts(entry.effects),
        "effects_by_arguments": entry.by_arguments,
        "fires": list(entry.fires),
        "changes_state": entry.changes_state,
        "on_error": entry.on_error,
        "when_busy": entry.when_busy,
        "arguments": [
            {"name": a.name, "default": a.default, "needed": a.default is None} for a in entry.arguments
        ],
        "takes_others": entry.takes_others,
    }


def _effects_facts(effects: Any) -> dict[str, list[str]] | None:
    return None if effects is None else {"reads": sorted(effects.reads), "writes": sorted(effects.writes)}


def _point_facts(point: PointExplanation) -> dict[str, Any]:
    return {
        "point": point.point,
        "fired_by": list(point.fired_by),
        "bands": [
            {
                "priority": band.priority,
                "priority_name": band.name,
                "steps": [_step_facts(step) for step in band.steps],
            }
            for band in point.bands
        ],
    }


def _step_facts(step: ExplainedStep) -> dict[str, Any]:
    return {
        "hook": step.hook,
        "number": step.number,
        "shape": step.shape,
        "effects": _effects_facts(step.effects),
        "changes_state": step.changes_state,
        "deferred": step.is_deferred,
        "training_thread_waits_for": [_cause_facts(cause) for cause in step.waits_for],
        "background_starts_after": [_cause_facts(cause) for cause in step.starts_after],
        "overlaps_with": list(step.overlaps),
    }


def _cause_facts(cause: Cause) -> dict[str, Any]:
    return {"hook": cause.hook, "points": list(cause.points), "rule": cause.rule, "why": cause.why}


def _point_lines(point: PointExplanation, *, is_inline: bool) -> Iterator[str]:
    fired = f"  (also fired from the background, by {', '.join(point.fired_by)})" if point.fired_by else ""
    yield f"{point.point}{fired}"
    for band in point.bands:
        for step in band.steps:
            state = "; may change training state" if step.changes_state else ""
            yield (
                f"  {band.priority:>3} {band.name:<13} {step.hook}: {SHAPES[step.shape]}; "
                f"{effects_words(step.effects)}{state}"
            )
            yield from () if is_inline else map("      {}".format, _step_lines(step))


def _step_lines(step: ExplainedStep) -> Iterator[str]:
    if step.waits_for:
        yield f"the training thread may wait for {cause_words(step.waits_for)}"
    if step.shape != "blocking":
        after = f"after {cause_words(step.starts_after)}; " if step.starts_after else ""
        yield f"background part: {after}overlaps with {', '.join(['training', *step.overlaps])}"


def _summary(points: Sequence[PointExplanation], mode: str) -> Iterator[str]:
    yield ""
    if mode == "sync":
        yield "mode sync: every background part runs inline, to its end, before training goes on."
        return
    places = [f"{step.hook}.{point.point}" for point in points for step in point.waiting]
    if places:
        yield f"For the order, the training thread may wait before {', '.join(places)}."
    else:
        yield "For the order, the training thread waits nowhere."
    yield (
        "Besides, it waits where there is no room (max_in_flight, staging_budget), where a run ends, and, before a "
        "hook that may change training state, for a copy of it that is under way."
    )
