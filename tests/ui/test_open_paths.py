"""All that the served page opens to the world: every route of the running app is named here or closed."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import gradio.processing_utils
import httpx
import pytest
from starlette.routing import BaseRoute, Mount

from dmpo_app.ui import RunningServer, build_ui, launch
from dmpo_app.ui.serving import MAX_EVENT_BYTES, is_plain_event
from dmpo_app.web import Services
from tests.browser.test_lent_gpu_page import FakeLending
from tests.patience import PATIENCE
from tests.web.studio_fakes import FakeRenderer
from tests.web.test_served_page import page_config, services

__all__ = ["services"]

OPEN_OF_GRADIO = {
    ("GET", "/"), ("HEAD", "/"), ("GET", "/theme.css"), ("GET", "/favicon.ico"),
    ("GET", "/assets/{path:path}"), ("GET", "/static/{path:path}"),
}  # fmt: skip
"""Routes of Gradio's app that something of is open; what of the last two, `GRADIO_FILES` says."""
OPEN_ON_ZEROGPU = OPEN_OF_GRADIO | {("POST", "/gradio_api/queue/join"), ("GET", "/gradio_api/queue/data")}
EXAMPLES = {"/assets/{path:path}": "/assets/index-x.js", "/static/{path:path}": "/static/fonts/IBMPlexSans/x.woff2"}


@pytest.fixture(scope="module", params=["plain", "zerogpu"])
def server(request: pytest.FixtureRequest, services: Services) -> Iterator[RunningServer]:
    if request.param == "zerogpu":
        assert isinstance(services.renderer, FakeRenderer)
        services = replace(services, mode="zerogpu", gpu_minutes=FakeLending(services.renderer))
    running = launch(build_ui(services), services)
    yield running
    running.close()


@pytest.fixture
def client(server: RunningServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=PATIENCE, trust_env=False) as client:
        yield client


def is_zerogpu(server: RunningServer) -> bool:
    return server.gateway.find("/gradio_api/queue/join") is not None


def routes_of(routes: Iterable[BaseRoute], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Methods and paths of all routes, those of mounted apps and included routers too."""
    for route in routes:
        path = prefix + getattr(route, "path", "")
        if hasattr(route, "path"):  # an included router has none
            yield from ((method, path) for method in getattr(route, "methods", None) or ["GET"])
        inner = getattr(route, "routes", None) or getattr(getattr(route, "original_router", None), "routes", [])
        yield from routes_of(inner, path if isinstance(route, Mount) else prefix)


def test_every_route_of_the_running_app_is_named_or_closed(server: RunningServer, client: httpx.Client) -> None:
    routes = set(routes_of(server.blocks.app.routes))
    assert routes >= {("POST", "/gradio_api/upload"), ("POST", "/gradio_api/queue/join"), ("GET", "/config")}
    assert len(routes) > 60
    opened = set()
    for method, path in sorted(routes):
        filled = EXAMPLES.get(path) or re.sub(r"\{[^}]*\}", "1", path)
        line = server.gateway.find(filled)
        if line is not None and method in line.methods:
            opened.add((method, path))
        else:
            assert client.request(method, filled).status_code in (404, 405), (method, path)
    assert opened == (OPEN_ON_ZEROGPU if is_zerogpu(server) else OPEN_OF_GRADIO)


def test_every_route_of_the_api_is_reached(server: RunningServer, client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert len(paths) > 30
    for path in paths:
        line = server.gateway.find(re.sub(r"\{[^}]*\}", "1", path))
        assert line is not None, path
        assert line.methods == (), path


CLOSED = (
    "/gradio_api/call/refreshed", "/gradio_api/run/predict", "/gradio_api/api/predict", "/gradio_api/call/v2/x",
    "/gradio_api/upload", "/gradio_api/component_server", "/gradio_api/queue//join", "//gradio_api/queue/join",
    "/GRADIO_API/queue/join", "/gradio_api/queue/join/",
    "/gradio_api/queue%2Fjoin/", "/gradio_api/queue/join%00", "/gradio_api/reset", "/gradio_api/cancel", "/config",
    "/gradio_api/heartbeat/x", "/gradio_api/startup-events", "/gradio_api/info", "/pwa_icon/9999", "/login", "/token",
    "/queue/join", "/run/predict", "/gradio_api/mcp", "/gradio_api/mcp/sse", "/monitoring", "/svelte/x.js",
    "/gradio_api/dev/reload", "/manifest.json", "/robots.txt", "/gradio_api/vibe-edit", "/gradio_api/theme.css",
)  # fmt: skip


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "OPTIONS"])
def test_gradios_endpoints_are_closed_before_it_sees_them(client: httpx.Client, method: str) -> None:
    for path in CLOSED:
        answer = client.request(method, path, content=b"{}")
        assert answer.status_code == 404, (method, path)
        assert answer.json()["code"] == "not_found"


def file_data(url: str) -> dict[str, Any]:
    return {"path": url, "url": url, "meta": {"_type": "gradio.FileData"}}


def test_no_address_that_a_stranger_names_is_asked(
    server: RunningServer, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    async def record(url: str, *_: Any, **__: Any) -> str:
        asked.append(url)
        return url

    def record_at_once(url: str, *_: Any, **__: Any) -> str:
        asked.append(url)
        return url

    monkeypatch.setattr(gradio.processing_utils, "async_ssrf_protected_download", record)
    monkeypatch.setattr(gradio.processing_utils, "ssrf_protected_download", record_at_once)
    events = [number for number, event in server.blocks.fns.items()]
    url = "https://files.example/bomb"
    for number in events:
        for value in (file_data(url), [file_data(url)], {"image": file_data(url)}, {"url": url}, {"path": url}):
            body = {"data": [value] * 7, "fn_index": number, "session_hash": "s"}
            for path in ("/gradio_api/queue/join", "/gradio_api/run/predict", "/gradio_api/call/refreshed"):
                assert client.post(path, json=body).status_code in (404, 422), (path, value)
    assert asked == []


def endless(chunk: bytes, count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield chunk


@pytest.mark.parametrize("path", ["/gradio_api/queue/join", "/gradio_api/call/refreshed", "/", "/api/v1/votes"])
def test_a_body_of_any_size_is_dropped_unread(client: httpx.Client, path: str) -> None:
    """150 MB, chunked: Python's allocations do not grow with it, wherever it is sent."""
    try:
        answer = client.post(path, content=endless(b"x" * 1_000_000, 150))
    except (httpx.ReadError, httpx.WriteError):
        return  # the connection was closed under it
    assert answer.status_code in (401, 404, 405, 413, 422)


def test_an_event_has_plain_values_and_is_one_of_the_page() -> None:
    def body(**changes: Any) -> bytes:
        return json.dumps(
            {"data": ["a fox", 7, 1.5, None, True], "fn_index": 3, "session_hash": "s"} | changes
        ).encode()

    assert is_plain_event(body(), {3})
    assert is_plain_event(body(data=[], event_data=None, trigger_id=5), {3})
    for refused in (
        body(fn_index=4), body(fn_index=-1), body(fn_index="3"), body(fn_index=3.0), body(fn_index=True),
        body(fn_index=None),
        body(data=None), body(data={"0": "a"}), body(data=[{"path": "/etc/passwd"}]), body(data=[["a"]]),
        body(event_data={"url": "https://x.example"}), body(request={"a": 1}), b"", b"{", b"[]", b"null", b"\xff",
        b'{"a":' * 100_000,
    ):  # fmt: skip
        assert not is_plain_event(refused, {3, 1}), refused[:80]


def test_events_of_zerogpu_are_bounded_and_sessions_known(server: RunningServer, client: httpx.Client) -> None:
    if not is_zerogpu(server):
        assert [event for event in server.blocks.fns.values() if event.fn is not None] == []
        assert page_config(client)["connect_heartbeat"] is False
        return
    event = next(number for number, event in server.blocks.fns.items() if event.fn is not None)
    large = {"data": ["x" * MAX_EVENT_BYTES], "fn_index": event, "session_hash": "s"}
    assert client.post("/gradio_api/queue/join", json=large).status_code == 413
    for session in ("unknown", "", "../x", "s" * 5000):
        answer = client.get("/gradio_api/queue/data", params={"session_hash": session})
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert client.get("/gradio_api/queue/data").status_code == 404
