"""The gateway: what is open, below which path, and whose word about a request is believed."""

import asyncio
import json
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dmpo_app.web.gateway import Gateway, OpenPath, TrustedProxies

# As on the page; see `ui.serving.open_paths`.
OPEN = {
    r"/api/v1/(?s:.*)": (),
    r"/docs|/openapi\.json|/login/callback": ("GET",),
    r"/": ("GET", "HEAD"),
    r"/studio/static/[0-9a-f]{16}/[\w/-]+\.(js|css|svg|json)": ("GET", "HEAD"),
    r"/assets/[\w-]+\.(js|css)": ("GET",),
    r"/static/fonts/IBMPlexSans/[\w-]+\.woff2": ("GET",),
}


async def describe(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with what an application behind the gateway is told of the request."""
    request = Request(scope)
    seen = {
        "path": scope["path"],
        "client": request.client.host if request.client else None,
        "url": f"{request.url.scheme}://{request.url.netloc}",
        "forwarded": [name for name in request.headers if "forward" in name or name == "x-real-ip"],
    }
    await JSONResponse(seen, headers={"Access-Control-Allow-Origin": "*"})(scope, receive, send)


def gateway(root_path: str = "", proxies: str = "", app: ASGIApp = describe) -> Gateway:
    table = [OpenPath(pattern, app, methods) for pattern, methods in OPEN.items()]
    return Gateway(table, root_path=root_path, proxies=TrustedProxies(proxies), policy="default-src 'self'")


def ask(
    app: ASGIApp, path: str, *, method: str = "GET", client: str = "203.0.113.9", query: str = "", **headers: str
) -> tuple[int, dict[str, str], Any]:
    """Status, headers and body of an answer. Names of headers with _ for -."""
    named = [(b"host", b"studio.example"), *((k.replace("_", "-").encode(), v.encode()) for k, v in headers.items())]
    scope = {
        "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": query.encode(),
        "scheme": "http", "root_path": "", "headers": named, "client": (client, 5), "server": ("127.0.0.1", 80),
    }  # fmt: skip
    messages: list[Message] = []

    async def receive() -> Message:
        raise AssertionError("the body was asked for")

    async def send(message: Message) -> None:
        messages.append(message)

    async def answer() -> None:
        await app(scope, receive, send)

    asyncio.run(answer())
    start, body = messages[0], b"".join(message.get("body", b"") for message in messages[1:])
    answered = {name.decode(): value.decode() for name, value in start["headers"]}
    return start["status"], answered, json.loads(body) if body else None


INNER = (
    "/", "/api/v1/status", "/api/v1/images/abc", "/api/v1/exports/a\nb", "/docs", "/openapi.json", "/login/callback",
    "/studio/static/0123456789abcdef/label/label.js", "/assets/index-x_Y9.js",
    "/static/fonts/IBMPlexSans/Regular.woff2",
)  # fmt: skip
ROOTS = (
    "/studio",
    "/api",
    "/static",
    "/assets",
    "/api/v1",
    "/login",
    "/gradio_api",
    "/tools/taste",
    "/x",
    "/studio/static",
)


@pytest.mark.parametrize("root", ROOTS)
@pytest.mark.parametrize("path", INNER)
def test_a_path_means_the_same_whether_the_proxy_takes_the_root_path_off_or_not(root: str, path: str) -> None:
    app = gateway(root)
    for asked in (path, root + path):
        status, _, seen = ask(app, asked)
        assert (status, seen["path"]) == (200, path), asked


def test_the_root_path_alone_leads_to_the_page() -> None:
    status, headers, _ = ask(gateway("/tools/taste"), "/tools/taste")
    assert (status, headers["location"]) == (307, "/tools/taste/")
    assert headers["content-security-policy"] == "default-src 'self'"
    _, headers, _ = ask(gateway("/tools/taste"), "/tools/taste", query="invite=a%20b")
    assert headers["location"] == "/tools/taste/?invite=a%20b"
    assert ask(gateway("/studio"), "/studios")[0] == 404


@pytest.mark.parametrize(
    "path",
    [
        "//", "/./", "/..", "/assets/../docs", "/assets//x.js", "//assets/x.js", "/ASSETS/x.js", "/assets/x.js/",
        "/assets/x.js\n", "/assets/x.py", "/assets/", "/Docs", "/docs/", "/docs\x00", "/api/v2/status", "/api/v1",
        "/static/fonts/IBMPlexSans/../../../etc/passwd", "/static/fonts/IBMPlexSans/a/b.woff2", "/gradio_api/upload",
        "/gradio_api/queue/join", "/config", "/studio/static/0a1b", "/studio/static//x", "/\\", "/é", "*",
    ],
)  # fmt: skip
@pytest.mark.parametrize("root", ["", "/studio"])
def test_whatever_is_not_named_is_closed(path: str, root: str) -> None:
    for asked in (path, root + path):
        status, headers, body = ask(gateway(root), asked)
        assert (status, body["code"]) == (404, "not_found"), asked
        assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "get"])
def test_only_the_methods_that_are_named_are_open(method: str) -> None:
    for path in ("/", "/docs", "/assets/x.js"):
        status, headers, body = ask(gateway(), path, method=method)
        assert (status, body["code"]) == (405, "wrong_method")
        assert "GET" in headers["allow"]
    assert ask(gateway(), "/assets/x.js", method="HEAD")[0] == 405
    assert ask(gateway(), "/", method="HEAD")[0] == 200
    assert ask(gateway(), "/api/v1/votes", method=method)[0] == 200  # the API knows its own methods


def test_a_websocket_is_closed_and_answers_let_no_other_origin_in() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    asyncio.run(gateway()({"type": "websocket", "path": "/", "headers": []}, receive, send))
    assert [message["type"] for message in sent] == ["websocket.close"]
    headers = ask(gateway(), "/", origin="https://evil.example")[1]
    assert not [name for name in headers if name.startswith("access-control-")]
    assert headers["content-security-policy"] == "default-src 'self'"


FORGED = {
    "x_forwarded_for": "10.9.9.9",
    "x_forwarded_proto": "https",
    "x_forwarded_host": "evil.example",
    "forwarded": "for=10.9.9.9;proto=https",
    "x_real_ip": "10.9.9.9",
    "x_forwarded_prefix": "/evil",
}


@pytest.mark.parametrize(
    ("client", "proxies"), [("127.0.0.1", ""), ("203.0.113.9", "10.0.0.0/8"), ("::1", "127.0.0.1")]
)
def test_nobody_else_is_believed_about_client_scheme_or_host(client: str, proxies: str) -> None:
    seen = ask(gateway(proxies=proxies), "/api/v1/render", client=client, **FORGED)[2]
    assert seen["client"] == client
    assert seen["url"] == "http://studio.example"
    assert seen["forwarded"] == []


@pytest.mark.parametrize(
    ("hops", "client"),
    [
        ("198.51.100.7", "198.51.100.7"),
        ("6.6.6.6, 198.51.100.7", "198.51.100.7"),  # the client wrote the first itself
        ("198.51.100.7, 10.0.0.3, 10.2.0.1", "198.51.100.7"),
        ("6.6.6.6, 198.51.100.7, 10.0.0.3", "198.51.100.7"),
        ("198.51.100.7:4711", "198.51.100.7"),
        ("[2001:db8::5]:4711, 10.0.0.3", "2001:db8::5"),
        ("::ffff:198.51.100.7", "198.51.100.7"),
        ("10.0.0.8, 10.0.0.3", "10.0.0.8"),  # everybody is a proxy: the first of them asks
        ("", "10.1.1.1"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("peer", ["10.1.1.1", "::ffff:10.1.1.1"])
def test_a_trusted_proxy_names_the_client_over_several_hops(hops: str, client: str, peer: str) -> None:
    seen = ask(
        gateway(proxies="10.0.0.0/8, ::1/128"), "/api/v1/render", client=peer, x_forwarded_for=hops,
        x_forwarded_proto="https", x_forwarded_host="votes.example:8443",
    )[2]  # fmt: skip
    assert seen["client"] == client
    assert seen["url"] == "https://votes.example:8443"
    assert seen["forwarded"] == []


def test_a_scheme_that_is_none_is_left_alone() -> None:
    seen = ask(gateway(proxies="10.0.0.0/8"), "/", client="10.1.1.1", x_forwarded_proto="javascript")[2]
    assert seen["url"] == "http://studio.example"
