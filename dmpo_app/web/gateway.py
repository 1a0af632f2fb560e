"""The gateway: the one table of what is open to the world, and what is believed of a request, before anything sees it.

A request is matched by its decoded path, once the root path is taken off, against paths that are named here: what is
not named does not exist, whatever a framework behind it would do. The applications behind the gateway stand at `/`.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import quote

from starlette.datastructures import MutableHeaders
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dmpo_app.web.error_responses import problem

_FORWARDED = re.compile(rb"x-forwarded-|forwarded$|x-real-ip$", re.IGNORECASE)
READ = ("GET", "HEAD")


class TrustedProxies:
    """The proxies that may say for whom they ask; `networks` separated by commas, as in DMPO_TRUSTED_PROXIES."""

    def __init__(self, networks: str) -> None:
        self._networks: list[IPv4Network | IPv6Network] = [
            ip_network(network.strip()) for network in networks.split(",") if network.strip()
        ]

    def apply(self, scope: Scope) -> None:
        """Set client, scheme and Host of a request as its proxies tell them, where they are trusted.

        Forwarded headers are taken off in any case: nothing further on can believe them.
        """
        forwarded: dict[bytes, bytes] = {}
        headers: list[tuple[bytes, bytes]] = []
        for name, value in scope["headers"]:
            if _FORWARDED.match(name):
                forwarded[name] = forwarded[name] + b"," + value if name in forwarded else value
            else:
                headers.append((name, value))
        scope["headers"] = headers
        address, port = scope["client"] or ("unknown", 0)
        address = _plain_address(address)
        scope["client"] = (address, port)
        if not self._trusts(address):
            return
        hops = _items(forwarded.get(b"x-forwarded-for"))
        if hops:
            # Each proxy adds whom it was asked by: the last that is none of ours is the client.
            known = [_plain_address(_without_port(hop)) for hop in hops]
            scope["client"] = (next((hop for hop in reversed(known) if not self._trusts(hop)), known[0]), 0)
        scheme = next(iter(_items(forwarded.get(b"x-forwarded-proto"))), "")
        if scheme in ("http", "https"):
            scope["scheme"] = scheme
        host = next(reversed(_items(forwarded.get(b"x-forwarded-host"))), "")  # what the nearest proxy was asked for
        if host:
            MutableHeaders(scope=scope)["host"] = host

    def _trusts(self, address: str) -> bool:
        try:
            ip = ip_address(address)
        except ValueError:
            return False
        return any(ip in network for network in self._networks)


def _items(value: bytes | None) -> list[str]:
    return [item.strip() for item in (value or b"").decode("latin-1").split(",") if item.strip()]


def _without_port(hop: str) -> str:
    """An address as proxies write it, without its port and brackets."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop


def _plain_address(address: str) -> str:
    """IPv4 in the form of IPv6, as a socket for both has it, becomes plain IPv4."""
    try:
        ip = ip_address(address)
    except ValueError:
        return address
    return str(ip.ipv4_mapped) if isinstance(ip, IPv6Address) and ip.ipv4_mapped else address


@dataclass(frozen=True)
class OpenPath:
    """One line of the table: the paths that match `pattern` are answered by `app`.

    `methods`: others are answered 405; none: the application knows its own.
    """

    pattern: str
    app: ASGIApp
    methods: Sequence[str] = READ

    def matches(self, path: str) -> bool:
        return re.fullmatch(self.pattern, path) is not None


class Gateway:
    """ASGI application in front of all others: answers 404 to whatever the table does not name.

    `policy`: the content security policy of responses that have none of their own.
    """

    def __init__(self, table: Iterable[OpenPath], *, root_path: str, proxies: TrustedProxies, policy: str) -> None:
        self._table = tuple(table)
        self._root_path = root_path
        self._proxies = proxies
        self._policy = policy

    def find(self, path: str) -> OpenPath | None:
        """The line of the table for a path below the root path; None: closed."""
        return next((line for line in self._table if line.matches(path)), None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return
        self._proxies.apply(scope)

        async def send_hardened(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._harden(MutableHeaders(scope=message))
            try:
                await send(message)
            except RuntimeError as error:
                if "closed" not in str(error):  # by the client, a moment ago: nothing of ours has failed
                    raise

        if self._root_path and scope["path"] == self._root_path:
            query = scope["query_string"].decode("latin-1")
            address = f"{self._root_path}/?{query}" if query else f"{self._root_path}/"
            await RedirectResponse(address)(scope, receive, send_hardened)
            return
        path = self._below_root(scope["path"])
        scope.update(path=path, raw_path=quote(path).encode(), root_path="")
        await self._answer(self.find(path), scope, receive, send_hardened)

    def _below_root(self, path: str) -> str:
        """Take the root path off, if that leaves a path that is open.

        A proxy may have taken it off already: below `/studio` the path `/studio/static/…` is the studio's own, and
        below `/api` so is `/api/v1/…`.
        """
        below = path.removeprefix(self._root_path)
        return below if below.startswith("/") and self.find(below) else path

    @staticmethod
    async def _answer(line: OpenPath | None, scope: Scope, receive: Receive, send: Send) -> None:
        if line is None:
            await problem(404, "not_found", "There is no such address here.")(scope, receive, send)
        elif line.methods and scope["method"] not in line.methods:
            refusal = problem(405, "wrong_method", f"Only {' and '.join(line.methods)} are possible here.")
            refusal.headers["Allow"] = ", ".join(line.methods)
            await refusal(scope, receive, send)
        else:
            await line.app(scope, receive, send)

    def _harden(self, headers: MutableHeaders) -> None:
        for name in [name for name in headers if name.startswith("access-control-")]:
            del headers[name]
        headers.setdefault("X-Content-Type-Options", "nosniff")
        headers.setdefault("Referrer-Policy", "same-origin")
        headers.setdefault("Content-Security-Policy", self._policy)
