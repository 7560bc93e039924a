"""What the stand-ins share: the calls that were made, in their order."""

from typing import Any

CALLS: list[tuple[str, dict[str, Any]]] = []


def record(call: str, /, **arguments: Any) -> None:
    CALLS.append((call, {key: value for key, value in arguments.items() if value is not None}))
