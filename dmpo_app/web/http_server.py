"""The HTTP server: the sockets it listens on, and uvicorn in a thread, with a limit on everything a client may take.

uvicorn closes connections that are idle after a response, and no others: one that sends nothing, or half of a request,
stays for ever, and headers may grow without end. Here each state of a connection has its time (`BoundedProtocol`), and
above a number of connections the one goes that has waited longest without a whole request: 1,000 half-sent requests
then cost those who vote nothing.
"""

import asyncio
import errno
import functools
import math
import os
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from typing import Any, cast

import httptools
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from dmpo_app.errors import SetupError
from dmpo_app.io.processes import raise_open_files_limit

HEADER_SECONDS = 15.0
"""From the opened connection, or the first byte of a request, to the end of its headers."""
BODY_SECONDS = 20.0
"""For a request's body, and ..."""
BODY_BYTES_PER_SECOND = 1024
"""... another second for each of these, so that large files may take their time and a trickle may not."""
MOST_BODY_SECONDS = 60.0
"""A body that stalls is waited for no longer than this, however much of it has come."""
KEEP_ALIVE_SECONDS = 5
"""An idle connection after a response; the page asks for the status more often than that."""
LINGER_SECONDS = 3.0
"""A body that nobody wants is read and dropped for this long, so that whoever sends it gets to read the refusal."""
WRITE_SECONDS = 60.0
"""A client that takes nothing of its response for this long is dropped."""
UNSENT_BYTES = 128 * 1024
STOP_SECONDS = 5
"""Responses under way when the server stops have this long."""
MAX_HEADER_BYTES = 64 * 1024
"""Of headers and trailers of a request, and of what is read without coming to the end of a part of it."""
HEADER_COST = 64
"""Bytes that a header takes beside its text: 100,000 headers of two letters are ten megabytes."""
MAX_PIPELINE = 8
"""Requests that wait for the answer of the one before them on a connection; each takes 2 kB, and may have sent 18 B."""
MAX_CONNECTIONS = 2048
_LONGEST_SWEEP_SECONDS = 2.5
_NOT_OF_THIS_MACHINE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.ENETUNREACH, errno.ENODEV)


def listening_sockets(host: str, port: int) -> list[socket.socket]:
    """Open sockets for every address of `host`; `::` takes IPv4 as well. Port 0 takes a free one, the same for all.

    Raises SetupError with advice rather than taking another port.
    """
    sockets: list[socket.socket] = []
    try:
        addresses = _addresses(host)
        for family, address in addresses:
            try:
                listener = _listening_socket(family, address, port)
            except OSError as error:
                # `localhost` is an address of IPv6 too on machines, or in containers, that have no IPv6.
                if error.errno not in _NOT_OF_THIS_MACHINE or ((family, address) == addresses[-1] and not sockets):
                    raise
                continue
            sockets.append(listener)
            port = listener.getsockname()[1]
    except (OSError, UnicodeError) as error:
        for listener in sockets:
            listener.close()
        message = _refusal(host, port, error)
        if message is None:
            raise
        raise SetupError(message) from error
    return sockets


def _addresses(host: str) -> list[tuple[socket.AddressFamily, str]]:
    """Every address that a host stands for, without doubles."""
    flags = socket.AI_PASSIVE
    infos = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM, flags=flags)
    return list(dict.fromkeys((info[0], str(info[4][0])) for info in infos))


def _listening_socket(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # elsewhere the option would let two servers share the port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:  # asyncio would leave IPv4 out of `::`
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address != "::"))
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            # The system would take megabytes of a response from us, and a slow client's progress not be seen here.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        listener.bind((address, port))
        listener.listen(2048)
    except OSError:
        listener.close()
        raise
    return listener


def free_port(host: str, port: int) -> int:
    """Return `port` if it is free; 0 takes any. Raises SetupError with advice rather than taking another one."""
    sockets = listening_sockets(host, port)
    free = int(sockets[0].getsockname()[1])
    for listener in sockets:
        listener.close()
    return free


def _refusal(host: str, port: int, error: OSError | UnicodeError) -> str | None:
    """Message for an address that cannot be had, with its cause and advice; None where it is not to blame."""
    if isinstance(error, socket.gaierror | UnicodeError):
        return (
            f"cannot listen on {host[:80]!r}: no such host is known here ({error}). DMPO_HOST is an address of this "
            "machine, such as 127.0.0.1, or a name of it, without scheme and port"
        )
    reason = f"cannot listen on {host} port {port} ({error.strerror})"
    if error.errno == errno.EADDRINUSE:
        return (
            f"{reason}: another program uses it (a studio that still runs?). Stop that one, or choose another port: "
            f"`dmpo serve --port {port % 65535 + 1}` or DMPO_PORT; --port 0 takes any free one"
        )
    if error.errno == errno.EACCES:
        return (
            f"{reason}: ports below 1024 are for administrators on most systems. Choose another: `dmpo serve --port "
            "7860` or DMPO_PORT, with a reverse proxy in front (docs/deploy.md)"
        )
    if error.errno in _NOT_OF_THIS_MACHINE:
        return (
            f"{reason}: that address is not one of this machine. Set DMPO_HOST to one that is: 127.0.0.1 for this "
            "machine alone, 0.0.0.0 or :: for all of its addresses"
        )
    return None


def page_url(host: str, port: int, root_path: str = "") -> str:
    """URL at which a person on this machine opens the page."""
    address = host.strip("[]")
    if address in ("0.0.0.0", "::"):
        address = "localhost"
    return f"http://{f'[{address}]' if ':' in address else address}:{port}{root_path}/"


class _RequestRefusedError(Exception):
    """A request that takes more than it may; the parser passes it on as a request that is malformed."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection. `deadline`: when it is dropped unless the client has gone on by then, in the loop's time.

    `waiting`: the connections of the server without a whole request, in the order in which they began to wait.
    """

    def __init__(self, *, waiting: dict["BoundedProtocol", None], max_connections: int, **options: Any) -> None:
        super().__init__(**options)
        self.deadline = math.inf
        self._write_deadline = math.inf
        self._num_unsent_bytes = 0
        self._num_header_bytes = 0
        self._num_pending_bytes = 0
        self._is_upgrade = False
        self._waiting = waiting
        self._max_connections = max_connections

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait_for_request()
        if len(self.connections) > self._max_connections:
            longest_waiting = next(iter(self._waiting))  # this very connection where all others are at work
            # Now, and not when the loop comes to its end: of many that are made at once each sends away another one.
            self._waiting.pop(longest_waiting)
            longest_waiting.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._waiting.pop(self, None)
        super().connection_lost(exc)

    def _wait_for_request(self) -> None:
        self.deadline = self.loop.time() + HEADER_SECONDS
        self._waiting.pop(self, None)
        self._waiting[self] = None

    def data_received(self, data: bytes) -> None:
        self._num_pending_bytes += len(data)
        self._unset_keepalive_if_required()
        self._parse(data)
        if self.parser is None or self.transport.is_closing():
            return
        if self._num_pending_bytes > MAX_HEADER_BYTES:  # an address, a header or the size of a chunk without end
            self.send_400_response("The headers are too large.")
        elif self.deadline == math.inf and (self.cycle is None or self.cycle.response_complete):
            self._wait_for_request()  # bytes that begin no request

    def _parse(self, data: bytes) -> None:
        """Parse what has come; a wish for another protocol is ignored, as RFC 9110 (7.8) allows.

        The parser takes such a request for ended at its headers, and what follows, its body, for the next request: one
        that whoever shares a proxy's connection would get the answer of.
        """
        while data and self.parser is not None and not self.transport.is_closing():
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                data = self._head_without_upgrade() + data[upgrade.args[0] :]
                self.parser = httptools.HttpRequestParser(self)
                self._is_upgrade = False
            except httptools.HttpParserError:
                self.send_400_response("Invalid HTTP request received.")

    def _head_without_upgrade(self) -> bytes:
        """The head of the request that was parsed last, as if it had not asked for another protocol."""
        lines = [self.parser.get_method() + b" " + self.url + b" HTTP/" + self.parser.get_http_version().encode()]
        for name, value in self.headers:
            if name == b"connection":
                value = b", ".join(word for word in map(bytes.strip, value.split(b",")) if word.lower() != b"upgrade")
            if name != b"upgrade" and (name, value) != (b"connection", b""):
                lines.append(name + b": " + value)
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= MAX_PIPELINE:
            raise _RequestRefusedError("too many requests at once")
        super().on_message_begin()
        self._num_header_bytes = self._num_pending_bytes = 0
        self._wait_for_request()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._num_pending_bytes = 0
        self._num_header_bytes += len(name) + len(value) + HEADER_COST
        if self._num_header_bytes > MAX_HEADER_BYTES:
            raise _RequestRefusedError("the headers are too large")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._num_pending_bytes = 0
        if self.parser.get_method() == b"CONNECT":
            raise _RequestRefusedError("no proxy is here")
        self._is_upgrade = self.parser.should_upgrade()
        if self._is_upgrade:
            return
        self.deadline = self.loop.time() + BODY_SECONDS
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._num_pending_bytes = 0
        super().on_body(body)
        if not self.cycle.response_complete:
            latest = self.loop.time() + MOST_BODY_SECONDS
            self.deadline = min(self.deadline + len(body) / BODY_BYTES_PER_SECOND, latest)
            if self._waiting.pop(self, self) is None:  # behind those of whose bodies nothing has come for longer
                self._waiting[self] = None

    def on_message_complete(self) -> None:
        if self._is_upgrade:
            return
        self._num_pending_bytes = 0
        self.deadline = math.inf
        self._waiting.pop(self, None)
        super().on_message_complete()
        if self.cycle.response_complete:  # the body that nobody wanted has ended
            self._wait_for_request()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing() or not self.cycle.response_complete:  # the next request is being answered
            return
        if self.cycle.more_body:
            self._unset_keepalive_if_required()
            self.deadline = self.loop.time() + LINGER_SECONDS
        else:
            self._waiting[self] = None

    def resume_writing(self) -> None:
        self._write_deadline = math.inf
        super().resume_writing()

    def drop_if_late(self, now: float) -> None:
        """Drop the connection when its time is over. A body that the studio itself does not take up is not late.

        What a client has not taken yet is looked at here: a transport tells only that it holds much, and one that is
        closed waits for its last byte without end.
        """
        if self.flow.read_paused:
            self.deadline = max(self.deadline, now + 1)
        num_unsent_bytes = self.transport.get_write_buffer_size()
        if not num_unsent_bytes:
            self._write_deadline = math.inf
        elif num_unsent_bytes < self._num_unsent_bytes or self._write_deadline == math.inf:
            self._write_deadline = now + WRITE_SECONDS
        self._num_unsent_bytes = num_unsent_bytes
        if now > self.deadline or now > self._write_deadline:
            self.transport.abort()


class HttpServer(uvicorn.Server):
    """uvicorn on open sockets, in a thread of its own. `lifespan` is entered before the first request is taken.

    `failure`: what ended it after its start, though nobody had asked for that; None while all is well.
    """

    def __init__(
        self,
        app: ASGIApp,
        sockets: list[socket.socket],
        lifespan: Callable[[], AbstractAsyncContextManager[None]],
    ) -> None:
        self.failure: BaseException | None = None
        self._sockets = sockets
        self._lifespan = lifespan
        self._swept_at = math.inf
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="http-server", daemon=True)
        # Half of the open files are the studio's own.
        max_connections = min(MAX_CONNECTIONS, raise_open_files_limit() // 2)
        protocol = functools.partial(BoundedProtocol, waiting={}, max_connections=max_connections)
        host, port = sockets[0].getsockname()[:2]
        config = uvicorn.Config(
            cast("Any", app),
            host=host,
            port=port,  # `spaces` reads it: its processes close what they inherit of this server
            http=cast("Any", protocol),
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",  # below that a line for each malformed request of anybody's
            access_log=False,
            proxy_headers=False,  # see `web.gateway`
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=STOP_SECONDS,
        )
        super().__init__(config)

    def start(self) -> None:
        """Return once requests are accepted, however long the start takes. Raises what the lifespan raises."""
        self._thread.start()
        self._ready.result()

    def close(self) -> None:
        """Accept nothing more, finish what is under way for a few seconds, and return."""
        self.should_exit = True
        self._thread.join(timeout=2 * STOP_SECONDS + 2)

    def _run(self) -> None:
        try:
            self.run(self._sockets)
        except BaseException as error:  # noqa: BLE001 - it ends the thread, and whoever waits for it is told
            if self._ready.done():
                self.failure = error
            else:
                self._ready.set_exception(error)
        finally:
            for listener in self._sockets:
                listener.close()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        async with self._lifespan():
            await super().serve(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready.set_result(None)

    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0:  # every second
            self._drop_late_connections(asyncio.get_running_loop().time())
        return await super().on_tick(counter)

    def _drop_late_connections(self, now: float) -> None:
        # After a pause of its own the server first reads what has come meanwhile: its clients were not late.
        was_held_up = now - self._swept_at > _LONGEST_SWEEP_SECONDS
        self._swept_at = now
        if not was_held_up:
            for connection in list(self.server_state.connections):
                cast("BoundedProtocol", connection).drop_if_late(now)
