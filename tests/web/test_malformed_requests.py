"""Whatever is sent, the answer is never 5xx, and nothing is recorded."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.web.api_studio import ADMIN, ApiStudio

VOTES: list[bytes] = [
    b"", b" ", b"null", b"true", b"0", b'""', b"[]", b"{}", b"{", b"}", b"[1,2", b"nul", b"NaN", b"Infinity",
    b'{"assignment":', b'{"assignment":1}', b'{"assignment":null,"choice":"left"}', b'{"assignment":"x"}',
    b'{"choice":"left"}', b'{"assignment":"x","choice":"LEFT"}', b'{"assignment":"x","choice":"a"}',
    b'{"assignment":"x","choice":null}', b'{"assignment":"x","choice":["left"]}',
    b'{"assignment":["x"],"choice":"left"}', b'{"assignment":{"$ne":1},"choice":"left"}',
    b'{"assignment":"","choice":"left"}', b'{"assignment":"a\\u0000b","choice":"left"}',
    b'{"assignment":"\\ud800","choice":"left"}', b'{"assignment":"x","choice":"\\udfff"}',
    b'{"\\ud800":1,"assignment":"x","choice":"\\udfff"}',
    b'{"assignment":"' + b"x" * 5000 + b'","choice":"left"}',
    b'{"assignment":"x","choice":"left","elapsed_ms":-1}', b'{"assignment":"x","choice":"left","elapsed_ms":1.5}',
    b'{"assignment":"x","choice":"left","elapsed_ms":"9"}', b'{"assignment":"x","choice":"left","elapsed_ms":true}',
    b'{"assignment":"x","choice":"left","elapsed_ms":null}', b'{"assignment":"x","choice":"left","elapsed_ms":NaN}',
    b'{"assignment":"x","choice":"left","elapsed_ms":Infinity}',
    b'{"assignment":"x","choice":"left","elapsed_ms":9223372036854775808}',
    b'{"assignment":"x","choice":"left","elapsed_ms":' + b"9" * 400 + b"}",
    b'{"assignment":"x","choice":"left","elapsed_ms":' + b"9" * 5000 + b"}",
    b'{"assignment":"x","choice":"left","elapsed_ms":1e400}',
    b'{"assignment":"x","choice":"left","strength":"very"}', b'{"assignment":"x","choice":"left","strength":1}',
    b'{"assignment":"x","choice":"left","comment":1}', b'{"assignment":"x","choice":"left","comment":["a"]}',
    b'{"assignment":"x","choice":"left","comment":"a\\u0000b"}',
    b'{"assignment":"x","choice":"left","comment":"\\ud800"}',
    b'{"assignment":"x","choice":"left","comment":"' + b"x" * 501 + b'"}',
    b'{"assignment":"x","choice":"tie","strength":"clearly"}',
    b"\xff\xfe\x00", b'{"assignment":"\xff","choice":"left"}', b'\xef\xbb\xbf{"assignment":"x"}', b"\x00",
    b"[" * 60_000,
    b"assignment=x&choice=left", b"<xml/>", b"--boundary\r\n", b'{"assignment":"x","choice":"left"} trailing',
]  # fmt: skip

RENDER: dict[str, Any] = {"prompt": "a cat", "seed": 1, "versions": [0]}
RENDERS: list[dict[str, Any]] = [
    {"prompt": ""}, {"prompt": "  "}, {"prompt": "x" * 1001}, {"prompt": None}, {"prompt": 1}, {"prompt": "a\x00b"},
    {"prompt": "\x1b[2J"}, {"prompt": "\ud800"}, {"prompt": "a \udfff cat"},
    {"seed": -1}, {"seed": 2**31}, {"seed": 2**70}, {"seed": 1.5}, {"seed": "1"},
    {"seed": True}, {"versions": []}, {"versions": [0] * 5}, {"versions": [-1]}, {"versions": [2**31]},
    {"versions": [2**80]}, {"versions": "0"}, {"versions": [None]}, {"versions": [True]}, {"versions": 0},
    {"strength": -0.1}, {"strength": 1.6}, {"strength": "1"}, {"strength": None}, {"strength": True}, {"steps": 0},
    {"steps": 101}, {"steps": 2.5}, {"guidance": -1}, {"guidance": 31}, {"guidance": "3"},
    {"guidance": float("nan")}, {"strength": float("inf")}, {"strength": 10**400},
]  # fmt: skip


@pytest.mark.parametrize("body", VOTES, ids=lambda body: repr(body[:40]))
def test_a_malformed_vote_is_422(shared_studio: ApiStudio, body: bytes) -> None:
    headers = {**shared_studio.session(), "Content-Type": "application/json"}
    answer = shared_studio.client.post("/api/v1/votes", content=body, headers=headers)
    assert answer.status_code == 422, answer.text
    assert answer.json()["code"] == "malformed"


@pytest.mark.parametrize("change", RENDERS, ids=lambda change: repr(change)[:40])
def test_a_render_out_of_range_is_422(shared_studio: ApiStudio, change: dict[str, Any]) -> None:
    body = json.dumps({**RENDER, **change}).encode()
    answer = shared_studio.client.post("/api/v1/render", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422, answer.text
    assert shared_studio.renderer.requests == []


def test_other_malformed_requests_are_4xx(shared_studio: ApiStudio) -> None:
    who, client = shared_studio.session(), shared_studio.client
    big = b'{"handle":"' + b"x" * 200_000 + b'"}'
    for method, path, content, kind, wanted in [
        ("POST", "/api/v1/session", big, "application/json", 413),
        ("POST", "/api/v1/votes", big, "application/json", 413),
        ("POST", "/api/v1/session", b'{"handle":"\\ud800"}', "application/json", 422),
        ("POST", "/api/v1/session", b'{"handle":"a\\u0000"}', "application/json", 422),
        ("POST", "/api/v1/session", b'{"handle":"' + b"x" * 65 + b'"}', "application/json", 422),
        ("POST", "/api/v1/session", b'{"handle":"Ada"}', "text/plain", 422),
        ("POST", "/api/v1/session", b"handle=Ada", "application/x-www-form-urlencoded", 422),
        ("POST", "/api/v1/session", b"Ada", "multipart/form-data; boundary=", 422),
        ("GET", "/api/v1/assignments?count=0", b"", "", 422),
        ("GET", "/api/v1/assignments?count=-1", b"", "", 422),
        ("GET", "/api/v1/assignments?count=many", b"", "", 422),
        ("GET", "/api/v1/assignments?count=" + "9" * 30, b"", "", 422),
        ("GET", "/api/v1/assignments?count=1&count=%00", b"", "", 422),
        ("DELETE", "/api/v1/votes/x", b"", "", 422),
        ("DELETE", "/api/v1/votes/-1", b"", "", 422),
        ("DELETE", "/api/v1/votes/" + "9" * 40, b"", "", 422),
        ("DELETE", "/api/v1/votes/9223372036854775807", b"", "", 404),
        ("GET", "/api/v1/rounds/9223372036854775808/progress", b"", "", 422),
        ("GET", "/api/v1/votes?limit=0", b"", "", 422),
        ("GET", "/api/v1/votes?limit=201", b"", "", 422),
        ("GET", "/api/v1/votes?before=-1", b"", "", 422),
        ("GET", "/api/v1/votes?before=" + "9" * 30, b"", "", 422),
        ("GET", "/api/v1/votes/export?format=xlsx", b"", "", 422),
        ("POST", "/api/v1/votes/x/withdraw", b"", "", 422),
        ("POST", "/api/v1/votes/9223372036854775807/withdraw", b"", "", 404),
        ("POST", "/api/v1/consent", b"{}", "application/json", 422),
        ("POST", "/api/v1/consent", b'{"sha256":"' + b"A" * 64 + b'"}', "application/json", 422),
        ("POST", "/api/v1/consent", b'{"sha256":"' + b"0" * 64 + b'"}', "application/json", 404),
        ("POST", "/api/v1/reports", b"{}", "application/json", 422),
        ("POST", "/api/v1/reports", b'{"assignment":"x","reason":"ugly"}', "application/json", 422),
        ("POST", "/api/v1/reports", b'{"assignment":"x","reason":"other","text":3}', "application/json", 422),
        ("POST", "/api/v1/reports", b'{"assignment":"x","reason":"unsafe"}', "application/json", 404),
        ("POST", "/api/v1/session", b'{"invite":7}', "application/json", 422),
        ("POST", "/api/v1/session", b'{"invite":"' + b"x" * 1001 + b'"}', "application/json", 422),
        ("POST", "/api/v1/login", b"", "", 404),
        ("POST", "/api/v1/login/session", b"{}", "application/json", 422),
        ("POST", "/api/v1/login/session", b'{"ticket":"x","code":7}', "application/json", 422),
        ("POST", "/api/v1/login/session", b'{"ticket":"\\ud800","code":"x"}', "application/json", 422),
        ("POST", "/api/v1/login/session", b'{"ticket":"x","code":"x"}', "application/json", 403),
        ("GET", "/login/callback?state=" + "a" * 3000, b"", "", 422),
        ("GET", "/api/v1/images/" + "a" * 2000, b"", "", 422),
        ("PUT", "/api/v1/votes", b"{}", "application/json", 405),
        ("GET", "/api/v1/nothing", b"", "", 404),
    ]:
        answer = client.request(method, path, content=content, headers={**who, "Content-Type": kind})
        assert answer.status_code == wanted, (method, path, answer.text)
    for version in ("-1", "x", str(2**31), "9" * 50):
        assert client.post(f"/api/v1/adapters/{version}/live", headers=ADMIN).status_code == 422


def test_a_refusal_never_repeats_what_was_sent(shared_studio: ApiStudio) -> None:
    body = {**RENDER, "prompt": ["<script>alert(1)</script>"], "<img src=x>": 1}
    answer = shared_studio.client.post("/api/v1/render", json=body)
    assert answer.status_code == 422
    assert "<" not in answer.text


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=6,
)
NAMES = (
    "assignment", "choice", "elapsed_ms", "strength", "comment", "handle", "invite", "prompt", "seed", "versions",
    "reason", "text", "sha256", "ticket", "code",
)  # fmt: skip
fields = st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES, anything))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(body=fields, path=st.sampled_from(["session", "votes", "render", "reports", "consent", "login/session"]))
def test_no_json_at_all_gives_a_server_error(shared_studio: ApiStudio, body: dict[str, Any], path: str) -> None:
    content = json.dumps(body).encode()
    headers = {**shared_studio.session(), "Content-Type": "application/json"}
    answer = shared_studio.client.post(f"/api/v1/{path}", content=content, headers=headers)
    assert answer.status_code < 500, (body, answer.text)
