"""What several ranks bring to a round, in one value. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping

__all__ = ["packed", "unpacked"]


def packed(what: str, results: Mapping[int, bytes]) -> bytes:
    """Results by rank, and the round that they belong to: a line of JSON with ranks and lengths, then the bytes."""
    head = json.dumps([what, [(rank, len(result)) for rank, result in results.items()]]).encode()
    return head + b"\n" + b"".join(results.values())


def unpacked(value: bytes) -> tuple[str, dict[int, bytes]]:
    """The round's name, and the results by rank."""
    head, _, rest = value.partition(b"\n")
    what, lengths = json.loads(head)
    results: dict[int, bytes] = {}
    start = 0
    for rank, nbytes in lengths:
        results[rank] = rest[start : start + nbytes]
        start += nbytes
    return what, results
