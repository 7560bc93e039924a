from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from asynchooks.testing import FaultyLink, LinkFault, LinkRequest


class Echo(BaseHTTPRequestHandler):
    """Answers with the body of the request, and counts what it was sent."""

    protocol_version = "HTTP/1.1"
    bodies: list[bytes]

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.bodies.append(body)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Say nothing."""


@pytest.fixture
def bodies() -> list[bytes]:
    """What has reached the server."""
    return []


@pytest.fixture
def link(bodies: list[bytes]) -> Iterator[FaultyLink]:
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Echo,), {"bodies": bodies})) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with FaultyLink("127.0.0.1", server.server_port) as link:
            yield link
        server.shutdown()
        thread.join()


def put(link: FaultyLink, path: str = "/a", body: bytes = b"body") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(link.host, link.port, timeout=10)
    try:
        connection.request("PUT", path, body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_without_a_fault_everything_passes(link: FaultyLink, bodies: list[bytes]) -> None:
    body = bytes(range(256)) * 4096

    assert put(link, body=body) == (200, body)
    assert bodies == [body]


def test_an_answer_of_its_own_keeps_the_request_from_the_server(
    link: FaultyLink, bodies: list[bytes]
) -> None:
    link.set_faults(LinkFault("answer", status=403, code="ExpiredToken", times=1))

    status, text = put(link)

    assert status == 403
    assert b"<Code>ExpiredToken</Code>" in text
    assert not bodies
    assert put(link) == (200, b"body")


def test_a_reset_comes_in_the_middle_of_the_body(link: FaultyLink, bodies: list[bytes]) -> None:
    link.set_faults(LinkFault("reset", after_bytes=1000))

    with pytest.raises(ConnectionError):
        put(link, body=bytes(5000))
    assert [len(body) for body in bodies] in ([], [1000])


def test_an_answer_is_lost_when_the_work_is_done(link: FaultyLink, bodies: list[bytes]) -> None:
    link.set_faults(LinkFault("lost answer"))

    with pytest.raises(ConnectionError):
        put(link)
    assert bodies == [b"body"]


def test_an_answer_ends_amid_its_body(link: FaultyLink, bodies: list[bytes]) -> None:
    link.set_faults(LinkFault("cut answer", after_bytes=1000))

    with pytest.raises(http.client.IncompleteRead) as cut:
        put(link, body=bytes(5000))
    assert len(cut.value.partial) == 1000
    assert bodies == [bytes(5000)]


def test_a_script_is_by_path_and_order_and_is_remembered(link: FaultyLink) -> None:
    link.set_faults(
        LinkFault("answer", path="/b*", skip=1, times=1), LinkFault("answer", once_seen="/c", status=500)
    )

    statuses = [put(link, path)[0] for path in ("/b1", "/b2", "/b3", "/a", "/c", "/a")]

    assert statuses == [200, 503, 200, 200, 500, 500]
    assert link.requests()[1] == LinkRequest("PUT", "/b2", "answer")
    link.set_faults()
    assert put(link)[0] == 200


def test_it_has_no_port_before_it_is_entered() -> None:
    with pytest.raises(RuntimeError, match="use it in `with`"):
        _ = FaultyLink("127.0.0.1", 1).port
