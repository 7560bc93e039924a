"""Draws spans as a timeline in text: what the training thread did above, what ran in the background below.

Decides lanes and characters alone; reads no clock and knows no executor. One column is one slice of time. What is
shorter than a column still gets one; on the training thread a lower-case letter says so, since there each column
counts as time lost.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asynchooks.instrument import Span, SpanKind

__all__ = ["TRAINING_KINDS", "render_timeline"]

TRAINING_KINDS: frozenset[SpanKind] = frozenset(
    {"step", "capture", "stage", "barrier", "backpressure", "drain"}
)

_GLYPHS: dict[SpanKind, str] = {
    "step": "─",
    "capture": "C",
    "stage": "C",
    "barrier": "X",
    "backpressure": "X",
    "drain": "X",
    "background": "▒",
    "persist": "▓",
    "commit": "◆",
    "prune": "p",
}
_STEP_START = "┬"
_LEGEND: tuple[tuple[str, str], ...] = (
    ("─", "step or validation"),
    ("C", "capture"),
    ("c", "short capture"),
    ("X", "training waits"),
    ("x", "short wait"),
    ("▒", "background"),
    ("▓", "persist"),
    ("◆", "commit"),
    ("p", "prune"),
)


@dataclass(frozen=True, slots=True)
class _Scale:
    """Maps nanoseconds onto columns."""

    start_ns: int
    end_ns: int
    columns: int

    def column(self, at_ns: int) -> int:
        """Return the column in which an instant lies, clipped to the picture; its right edge is one more."""
        share = (at_ns - self.start_ns) / max(1, self.end_ns - self.start_ns)
        return min(self.columns, max(0, int(share * self.columns)))

    def shows(self, span: Span) -> bool:
        """Whether any of the span lies inside the picture."""
        return span.end_ns > self.start_ns and span.start_ns < self.end_ns


def render_timeline(
    spans: Iterable[Span],
    *,
    width: int = 100,
    start_ns: int | None = None,
    end_ns: int | None = None,
    legend: bool = True,
) -> str:
    """Return a text picture of spans, one line per lane, without a trailing newline.

    The first lane is the training thread: its steps, captures and waits. Below it there is one lane per hook
    (or component) with background work; work of one hook that overlaps in time gets further lines.

    Args:
        spans: any spans, in any order.
        width: columns of the whole picture, names included; at least 40.
        start_ns: left edge on the spans' clock; the earliest start by default.
        end_ns: right edge; the latest end by default.
        legend: whether the last line says what the characters mean.

    Raises:
        ValueError: no span lies between the edges, or the width is too small.
    """
    if width < 40:
        raise ValueError(f"A timeline needs a width of at least 40 columns, not {width}.")
    ordered = sorted(spans, key=lambda span: (span.start_ns, -span.end_ns))
    start_ns = min((s.start_ns for s in ordered), default=0) if start_ns is None else start_ns
    end_ns = max((s.end_ns for s in ordered), default=0) if end_ns is None else end_ns
    window = _Scale(start_ns, end_ns, 1)
    shown = [span for span in ordered if window.shows(span)]
    if not shown:
        raise ValueError("No span lies between the timeline's edges.")

    training = [span for span in shown if span.kind in TRAINING_KINDS]
    hidden = _background_lanes([span for span in shown if span.kind not in TRAINING_KINDS])
    names = ["training thread", *(name for name, _ in hidden)]
    margin = max(len(name) for name in names) + 2
    scale = _Scale(start_ns, end_ns, max(10, width - margin))

    drawings = [_draw(lane, scale) for _, lane in [("", training), *hidden]]
    lines = [" " * margin + _axis(scale)]
    lines += [name.ljust(margin) + drawing for name, drawing in zip(names, drawings, strict=True)]
    if legend:
        lines += ["", _legend(drawings)]
    return "\n".join(line.rstrip() for line in lines)


def _background_lanes(spans: Sequence[Span]) -> list[tuple[str, list[Span]]]:
    """Split background spans into named lanes, so that no two parts of a lane overlap."""
    by_hook: dict[str, list[list[Span]]] = defaultdict(list)
    for span in spans:
        rows = by_hook[_owner(span, spans)]
        for row in rows:
            if all(_nests_or_follows(earlier, span) for earlier in row):
                row.append(span)
                break
        else:
            rows.append([span])
    return [(hook if i == 0 else "", row) for hook, rows in by_hook.items() for i, row in enumerate(rows)]


def _owner(span: Span, spans: Sequence[Span]) -> str:
    """Return the hook in whose background part a component worked; the longest, where several were running."""
    if span.kind == "background":
        return span.hook
    around = (
        s for s in spans if s.kind == "background" and s.start_ns <= span.start_ns and span.end_ns <= s.end_ns
    )
    return max(around, key=lambda s: s.end_ns - s.start_ns, default=span).hook


def _nests_or_follows(earlier: Span, later: Span) -> bool:
    """Whether two spans can share a line: apart in time, or the later a detail of the earlier."""
    inside = earlier.kind != later.kind and later.end_ns <= earlier.end_ns
    return later.start_ns >= earlier.end_ns or inside


def _draw(spans: Sequence[Span], scale: _Scale) -> str:
    """Fill one line: steps, then what is longer before what is shorter, commits last: nothing short is hidden."""
    line = [" "] * scale.columns
    steps = [span for span in spans if span.kind == "step"]
    for span in steps:
        _fill(line, span, scale)
    starts = [scale.column(span.start_ns) for span in steps if scale.start_ns <= span.start_ns < scale.end_ns]
    if len(starts) * 2 <= scale.columns:  # with more steps than that, the marks would be all there is
        for column in starts:
            line[column] = _STEP_START
    others = (span for span in spans if span.kind != "step")
    for span in sorted(others, key=lambda s: (s.kind == "commit", s.start_ns - s.end_ns)):
        _fill(line, span, scale)
    return "".join(line)


def _fill(line: list[str], span: Span, scale: _Scale) -> None:
    glyph = _GLYPHS[span.kind]
    first = min(scale.column(span.start_ns), scale.columns - 1)
    last = scale.column(span.end_ns)
    if last <= first:
        last = first + 1
        glyph = glyph.lower()
    line[first:last] = glyph * (last - first)


def _axis(scale: _Scale) -> str:
    """Return the time axis: seconds since the left edge, about every 15 columns."""
    seconds = (scale.end_ns - scale.start_ns) / 1e9
    step = _round_step(seconds * 15 / scale.columns)
    axis = ""
    tick = 0
    while (at := tick * step) <= seconds:
        column = scale.column(scale.start_ns + int(at * 1e9))
        label = f"{at:g} s"
        if column >= len(axis) and column + len(label) <= scale.columns:
            axis = axis.ljust(column) + label + " "
        tick += 1
    return axis


def _round_step(seconds: float) -> float:
    """Return the smallest of 1, 2, 5, 10, 20, ... times a power of ten that is not below ``seconds``."""
    power = 1e-9
    while power * 10 < seconds:
        power *= 10
    return next((factor * power for factor in (1, 2, 5) if factor * power >= seconds), 10 * power)


def _legend(drawings: Sequence[str]) -> str:
    drawn = set("".join(drawings))
    return "  ".join(f"{glyph} {meaning}" for glyph, meaning in _LEGEND if glyph in drawn)
