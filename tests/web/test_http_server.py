"""The HTTP server with real sockets: limits of time and number on every connection, addresses, start and stop."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from dmpo_app.errors import SetupError
from dmpo_app.web import http_server
from dmpo_app.web.http_server import HttpServer, free_port, listening_sockets, page_url
from tests.patience import PATIENCE, wait_until

LARGE = 16_000_000
"""Bytes of the answer at /large: more than a socket that nobody reads from takes."""


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers /refused without reading, /slow after a while, /large with much, all else with the length of the body."""
    if scope["path"] == "/large":
        await PlainTextResponse("x" * LARGE)(scope, receive, send)
        return
    if scope["path"] == "/slow":
        await asyncio.sleep(60)
    length = 0 if scope["path"] == "/refused" else len(await Request(scope, receive).body())
    await PlainTextResponse(str(length), status_code=413 if scope["path"] == "/refused" else 200)(scope, receive, send)


@asynccontextmanager
async def no_lifespan() -> AsyncIterator[None]:
    yield


def start(host: str = "127.0.0.1", lifespan: Any = no_lifespan) -> HttpServer:
    server = HttpServer(app, listening_sockets(host, 0), lifespan)
    server.start()
    return server


@pytest.fixture(autouse=True)
def quick_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "STOP_SECONDS", 1)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HEADER_SECONDS", "BODY_SECONDS", "MOST_BODY_SECONDS", "LINGER_SECONDS", "KEEP_ALIVE_SECONDS"):
        monkeypatch.setattr(http_server, name, 1)


@pytest.fixture
def server(quick: None) -> Iterator[HttpServer]:
    running = start()
    yield running
    running.close()


def connect(server: HttpServer, data: bytes = b"", host: str = "127.0.0.1") -> socket.socket:
    connection = socket.create_connection((host, server.config.port), timeout=PATIENCE)
    connection.sendall(data)
    return connection


def is_closed(connection: socket.socket) -> bool:
    """True once the server has closed the connection; answers are read and dropped."""
    connection.setblocking(False)
    try:
        while connection.recv(65536):
            pass
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


BEGUN = b"POST / HTTP/1.1\r\nHost: x\r\n"
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
UNFINISHED = {
    "nothing": b"",
    "a line break": b"\r\n",
    "a letter": b"P",
    "half a line": b"POST /a",
    "half of the headers": BEGUN,
    "half of a header": BEGUN + b"X-Long: " + b"a" * 1000,
    "no body": BEGUN + b"Content-Length: 5\r\n\r\n",
    "half of a body": BEGUN + b"Content-Length: 5\r\n\r\nab",
    "half of a chunked body": BEGUN + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab",
    "a body that waits for leave": BEGUN + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n",
    "a body that is refused": BEGUN.replace(b"/ ", b"/refused ") + b"Content-Length: 5\r\n\r\nab",
    "nothing after an answer": GET,
    "a line break after an answer": GET + b"\r\n",
    "half a request after an answer": GET + BEGUN,
    "half a websocket": b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
}


def test_connections_that_leave_a_request_unfinished_are_closed_and_others_are_not(server: HttpServer) -> None:
    connections = {name: connect(server, data) for name, data in UNFINISHED.items()}
    slow = connect(server, b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
    wait_until(lambda: all(map(is_closed, connections.values())), "all of them are closed")
    assert not is_closed(slow)


def test_a_trickle_is_not_taken_for_progress(server: HttpServer) -> None:
    header = connect(server, BEGUN + b"X-Slow: ")
    body = connect(server, BEGUN + b"Content-Length: 100000\r\n\r\n")
    began = time.monotonic()
    while not (is_closed(header) and is_closed(body)):
        assert time.monotonic() - began < PATIENCE
        for connection in (header, body):
            with suppress(OSError):
                connection.send(b"a")
        time.sleep(0.05)


def test_headers_without_end_are_refused(server: HttpServer) -> None:
    connection = connect(server, BEGUN)
    refused = False
    for _ in range(10_000):
        try:
            connection.sendall(b"X-Long: " + b"a" * 10_000 + b"\r\n")
        except OSError:
            refused = True
            break
    assert refused


TOO_MUCH = {
    "headers in one read": BEGUN + b"a:b\r\n" * 12_000 + b"\r\n",
    "trailers": BEGUN + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"a:b\r\n" * 100_000,
    "a trailer without end": BEGUN + b"Transfer-Encoding: chunked\r\n\r\n0\r\na: " + b"b" * 1_000_000,
    "a chunk's size without end": BEGUN + b"Transfer-Encoding: chunked\r\n\r\n5;" + b"a" * 1_000_000,
    "an address without end": b"GET /" + b"a" * 1_000_000,
    "requests that wait for no answer": GET.replace(b"/ ", b"/slow ") * 1_000,
}


@pytest.mark.parametrize("what", TOO_MUCH)
def test_more_than_a_request_may_take_is_refused_at_once(what: str) -> None:
    running = start()
    try:
        connection = connect(running)
        with suppress(OSError):  # it is closed amid all this
            connection.sendall(TOO_MUCH[what])
        wait_until(lambda: is_closed(connection), "the connection is closed")
        assert httpx.get(f"http://127.0.0.1:{running.config.port}/", timeout=PATIENCE).status_code == 200
    finally:
        running.close()


def answers(running: HttpServer, *pieces: bytes) -> list[bytes]:
    """The bodies of all answers to what is sent, a piece after the other; the server closes the connection."""
    connection = connect(running)
    for piece in pieces:
        connection.sendall(piece)
        time.sleep(0.1)  # each arrives by itself
    received = b""
    while chunk := connection.recv(65536):
        received += chunk
    return [answer.partition(b"\r\n\r\n")[2] for answer in received.split(b"HTTP/1.1 ")[1:]]


UPGRADE = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"


@pytest.mark.parametrize("cut", [0, 1, 30])
def test_the_body_of_a_request_that_asks_for_another_protocol_is_no_request(server: HttpServer, cut: int) -> None:
    body = GET + b"ab"
    whole = UPGRADE + b"Content-Length: %d\r\n\r\n" % len(body) + body + GET
    at = whole.index(body) + cut
    assert answers(server, whole[:at], whole[at:]) == [str(len(body)).encode(), b"0"]
    whole = UPGRADE + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) + GET
    at = whole.index(body) + cut
    assert answers(server, whole[:at], whole[at:]) == [str(len(body)).encode(), b"0"]


def test_requests_that_ask_for_another_protocol_are_answered_one_by_one(server: HttpServer) -> None:
    head = UPGRADE + b"Content-Length: 2\r\n\r\nab"
    assert answers(server, head * 3 + GET) == [b"2", b"2", b"2", b"0"]
    assert answers(server, b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nContent-Length: 2\r\n\r\n" + GET) == [
        b"Invalid HTTP request received."
    ]


def test_who_takes_nothing_of_an_answer_is_dropped_and_who_takes_it_slowly_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_server, "WRITE_SECONDS", 1)
    running = start()
    head = b"GET /large HTTP/1.1\r\nHost: x\r\n"
    silent = [socket.socket() for _ in range(2)]
    slow = socket.socket()
    for one in (*silent, slow):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.connect(("127.0.0.1", running.config.port))
    silent[0].sendall(head + b"\r\n")
    silent[1].sendall(head + b"Connection: close\r\n\r\n")
    slow.sendall(head + b"\r\n")
    taken, began = 0, time.monotonic()
    while time.monotonic() - began < 3:
        taken += len(slow.recv(4096))
        time.sleep(0.02)
    wait_until(lambda: len(running.server_state.connections) == 1, "both that took nothing are dropped")
    while taken < LARGE:
        taken += len(slow.recv(65536))
    running.close()


def test_a_large_body_that_is_wanted_arrives_and_one_that_is_not_gets_its_answer() -> None:
    running = start()
    url = f"http://127.0.0.1:{running.config.port}"
    large = b"x" * 30_000_000
    with httpx.Client(timeout=PATIENCE) as client:
        assert client.post(f"{url}/", content=large).text == str(len(large))
        assert client.post(f"{url}/refused", content=large).status_code == 413
        assert client.get(f"{url}/").status_code == 200
    running.close()


def test_above_the_limit_the_connection_that_has_waited_longest_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "MAX_CONNECTIONS", 20)
    running = start()
    try:
        held = [connect(running, BEGUN) for _ in range(30)]
        stalled = [connect(running, BEGUN + b"Content-Length: 5\r\n\r\n") for _ in range(30)]
        wait_until(lambda: sum(map(is_closed, (*held, *stalled))) >= 40, "the first of them are closed")
        assert httpx.get(f"http://127.0.0.1:{running.config.port}/", timeout=PATIENCE).status_code == 200
        assert len(running.server_state.connections) <= 21
    finally:
        running.close()


def test_the_limit_holds_for_connections_that_are_made_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "MAX_CONNECTIONS", 10)
    running = start()
    loop = next(iter(running.servers)).get_loop()
    try:
        loop.call_soon_threadsafe(time.sleep, 1)  # meanwhile the system takes them
        held = [connect(running) for _ in range(50)]
        wait_until(lambda: sum(map(is_closed, held)) >= 40, "all above the limit are closed")
        assert len(running.server_state.connections) == 10
    finally:
        running.close()


def has_ipv6() -> bool:
    try:
        free_port("::1", 0)
    except SetupError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize(
    ("host", "reachable"),
    [("::", ("::1", "127.0.0.1")), ("::1", ("::1",)), ("[::1]", ("::1",)), ("0.0.0.0", ("127.0.0.1",))],
)
def test_addresses_of_ipv6_are_listened_on(host: str, reachable: tuple[str, ...]) -> None:
    running = start(host)
    try:
        for address in reachable:
            assert httpx.get(page_url(address, running.config.port), timeout=PATIENCE, trust_env=False).text == "0"
    finally:
        running.close()


def test_an_address_that_cannot_be_had_is_told_in_a_sentence() -> None:
    with pytest.raises(SetupError, match="no such host"):
        listening_sockets("no-such-host.invalid", 0)
    with pytest.raises(SetupError, match=r"203\.0\.113\.77 port 7860 .*not one of this machine"):
        listening_sockets("203.0.113.77", 7860)
    taken = listening_sockets("127.0.0.1", 0)
    port = taken[0].getsockname()[1]
    with pytest.raises(SetupError, match=rf"port {port}.*--port {port + 1}"):
        free_port("127.0.0.1", port)
    taken[0].close()
    assert free_port("127.0.0.1", port) == port


def test_a_name_is_served_at_those_of_its_addresses_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = [(socket.AF_INET, "198.51.100.1"), (socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "198.51.100.2")]
    monkeypatch.setattr(http_server, "_addresses", lambda host: addresses)
    (listener,) = listening_sockets("a-name", 0)
    assert listener.getsockname()[0] == "127.0.0.1"
    listener.close()
    addresses.remove((socket.AF_INET, "127.0.0.1"))
    with pytest.raises(SetupError, match="cannot listen on a-name"):
        listening_sockets("a-name", 0)


@pytest.mark.parametrize(
    ("host", "root_path", "url"),
    [
        ("127.0.0.1", "", "http://127.0.0.1:80/"),
        ("::", "/studio", "http://localhost:80/studio/"),
        ("::1", "", "http://[::1]:80/"),
        ("[::1]", "", "http://[::1]:80/"),
    ],
)
def test_the_address_for_a_browser(host: str, root_path: str, url: str) -> None:
    assert page_url(host, 80, root_path) == url


def test_whatever_fails_at_the_start_is_raised_there_and_lets_go_of_the_port() -> None:
    @asynccontextmanager
    async def broken() -> AsyncIterator[None]:
        if not sockets:
            yield
        raise ValueError("not today")

    sockets = listening_sockets("127.0.0.1", 0)
    port = sockets[0].getsockname()[1]
    with pytest.raises(ValueError, match="not today"):
        HttpServer(app, sockets, broken).start()
    wait_until(lambda: can_be_had(port), "the port is free again")


def can_be_had(port: int) -> bool:
    try:
        return free_port("127.0.0.1", port) == port
    except SetupError:
        return False


def test_a_stop_waits_for_no_client_for_long() -> None:
    running = start()
    slow = connect(running, b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
    idle, half = connect(running), connect(running, BEGUN)
    wait_until(lambda: len(running.server_state.connections) == 3, "all are connected")
    running.close()
    wait_until(lambda: all(map(is_closed, (slow, idle, half))), "all are closed")
    with pytest.raises(ConnectionRefusedError):
        connect(running)
