from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from asynchooks.testing import ThrottledLink, TokenBucket


@pytest.fixture
def echo() -> Iterator[tuple[str, int]]:
    """A server that sends back what it gets, until the client has finished sending."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer(connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(65536):
                connection.sendall(data)

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,)).start()

    server = threading.Thread(target=serve)
    server.start()
    yield listener.getsockname()
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    server.join()


def round_trip(address: tuple[str, int], data: bytes) -> bytes:
    with socket.create_connection(address) as connection:
        sender = threading.Thread(target=connection.sendall, args=(data,))
        sender.start()
        received = b""
        while len(received) < len(data):
            piece = connection.recv(65536)
            if not piece:
                break
            received += piece
        sender.join()
    return received


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_all_senders_of_a_bucket_share_one_speed() -> None:
    bucket = TokenBucket(1000.0, Clock())
    bucket.reserve(50)  # what an idle link may send at once

    assert bucket.reserve(500) == pytest.approx(0.5)
    assert bucket.reserve(500) == pytest.approx(1.0)


def test_an_idle_bucket_saves_up_no_more_than_a_short_burst() -> None:
    clock = Clock()
    bucket = TokenBucket(1000.0, clock)
    bucket.reserve(1000)
    clock.now += 3600

    assert bucket.reserve(1000) == pytest.approx(0.95)


def test_a_bucket_without_a_limit_never_waits() -> None:
    assert TokenBucket(math.inf).reserve(10**12) == 0


def test_what_passes_a_link_is_unchanged(echo: tuple[str, int]) -> None:
    data = bytes(range(256)) * 4000

    with ThrottledLink(*echo, bytes_per_s=1e9) as link:
        assert round_trip((link.host, link.port), data) == data


def test_a_link_is_no_faster_than_its_speed(echo: tuple[str, int]) -> None:
    with ThrottledLink(*echo, bytes_per_s=1e6, direction="upload") as link:
        start = time.monotonic()
        round_trip((link.host, link.port), bytes(300_000))

    assert time.monotonic() - start > 0.2


def test_each_change_of_direction_pays_the_latency(echo: tuple[str, int]) -> None:
    with ThrottledLink(*echo, bytes_per_s=1e9, latency_s=0.05) as link:
        start = time.monotonic()
        round_trip((link.host, link.port), b"ping")

    assert time.monotonic() - start > 0.1


def test_a_server_that_is_gone_looks_like_a_closed_connection(echo: tuple[str, int]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        address = unused.getsockname()
    with ThrottledLink(*address, bytes_per_s=1e9) as link:
        assert round_trip((link.host, link.port), b"") == b""


def test_nothing_listens_after_the_link_was_left(echo: tuple[str, int]) -> None:
    with ThrottledLink(*echo, bytes_per_s=1e9) as link:
        address = link.host, link.port

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)


@pytest.mark.parametrize("speed", [0, -1, float("nan")])
def test_a_speed_that_is_not_positive_is_refused(speed: float) -> None:
    with pytest.raises(ValueError, match="positive number of bytes"):
        ThrottledLink("127.0.0.1", 1, bytes_per_s=speed)


def test_a_link_has_no_port_before_it_is_entered() -> None:
    with pytest.raises(RuntimeError, match="use it in `with`"):
        _ = ThrottledLink("127.0.0.1", 1, bytes_per_s=1).port
