"""What a measured child asks its parent between two saves, over a folder that both know."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["Desk"]

_LOOK_S = 0.01


class Desk:
    """Files in a folder, each written whole: the answer so far, one question, one reply.

    Args:
        folder: both sides' folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def leave(self, name: str, content: object) -> None:
        """Put a file there, complete or not at all."""
        temporary = self._folder / f"{name}.tmp"
        temporary.write_text(json.dumps(content), encoding="utf-8")
        temporary.replace(self._folder / name)

    def find(self, name: str) -> Any:
        """Return what a file holds, or None where there is none."""
        try:
            return json.loads((self._folder / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None

    def ask(self, question: object) -> Any:
        """Child's side: ask, and wait for the reply; the parent's deadline ends a wait that is too long."""
        self.leave("question", question)
        while not (self._folder / "reply").exists():
            time.sleep(_LOOK_S)
        reply = self.find("reply")
        (self._folder / "reply").unlink()
        return reply

    def reply(self, answer: Callable[[Any], object]) -> None:
        """Parent's side: answer the question, if there is one."""
        question = self.find("question")
        if question is not None:
            (self._folder / "question").unlink()
            self.leave("reply", answer(question))
