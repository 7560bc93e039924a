"""Puts a script's tables into benchmarks/README.md, between two comments that name the script."""

from __future__ import annotations

from pathlib import Path

__all__ = ["write_section"]

_README = Path(__file__).with_name("README.md")


def write_section(name: str, text: str, readme: Path = _README) -> None:
    """Replace what stands between ``<!-- name: start -->`` and ``<!-- name: end -->``.

    Raises:
        ValueError: the README has no such comments.
    """
    start, end = f"<!-- {name}: start -->", f"<!-- {name}: end -->"
    before, found_start, rest = readme.read_text(encoding="utf-8").partition(start)
    _, found_end, after = rest.partition(end)
    if not found_start or not found_end:
        raise ValueError(f"{readme} has no {start} and {end}; add them where the tables belong.")
    readme.write_text(f"{before}{start}\n{text}\n{end}{after}", encoding="utf-8")
