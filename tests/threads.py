"""Threads that a test waits for, where nothing else tells that they have ended."""

import threading


def join_threads(name: str) -> None:
    """Wait until the threads of that name have ended; they may not even have begun."""
    for thread in threading.enumerate():
        if thread.name == name:
            thread.join(30)
            assert not thread.is_alive(), name
