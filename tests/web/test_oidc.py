"""A client of OpenID Connect and a provider that is hostile: in its metadata, its tokens, its keys and its answers."""

import base64
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from dmpo_app.errors import BusyError, LoginRefusedError
from dmpo_app.labeling.sign_in import LoginAttempt, Person
from dmpo_app.settings import IdentitySettings
from dmpo_app.web import oidc
from dmpo_app.web.oidc import OidcProvider, access_token_hash
from tests.oidc_provider import CLIENT_ID, RunningProvider, running_provider

BACK_TO = "http://127.0.0.1:7860/login/callback"
WAY = LoginAttempt("1", "a nonce", "v" * 64)
DEEP = "[" * 50_000
DEEP_TOKEN = ".".join(base64.urlsafe_b64encode(part.encode()).decode() for part in (DEEP, DEEP, "signature"))
TOO_LONG = '{"padding": "' + "a" * 300_000 + '"}'


@pytest.fixture(scope="module")
def running() -> Iterator[RunningProvider]:
    with running_provider() as provider:
        yield provider


@pytest.fixture
def hostile(running: RunningProvider) -> RunningProvider:
    """One that tells the truth until it is told to lie."""
    running.misbehave()
    return running


def client_of(provider: RunningProvider, **settings: Any) -> OidcProvider:
    return OidcProvider(IdentitySettings.model_validate({**provider.settings, **settings}))


def person_of(provider: RunningProvider, client: OidcProvider | None = None, **lies: Any) -> Person:
    """The person who signs in, where the provider begins to lie after they allowed it."""
    client = client or client_of(provider)
    back = provider.allow(client.authorization_url(WAY, "a state", BACK_TO))
    provider.misbehave(**lies)
    return client.authenticate(WAY, back["code"], BACK_TO)


def test_an_honest_provider_is_believed(hostile: RunningProvider) -> None:
    assert person_of(hostile) == Person(hostile.issuer, "ada", "ada", "ada")


@pytest.mark.parametrize(
    "lies",
    [
        {"signature": "none"},
        {"signature": "hs256"},
        {"signature": "public key"},
        {"signature": "symmetric"},
        {"signature": "foreign"},
        {"signature": "its own key"},
        {"claims": {"nonce": "another"}},
        {"claims": {"nonce": ["a nonce"]}},
        {"claims": {"iss": "https://login.example.org"}},
        {"claims": {"aud": "another studio"}},
        {"claims": {"aud": [CLIENT_ID, "another"], "azp": "another"}},
        {"claims": {"at_hash": "another"}},
        {"claims": {"at_hash": 7}},
        {"claims": {"sub": "\ud800"}},
        {"answers": {"/token": {"access_token": "\ud800"}}},
        {"answers": {"/token": {"access_token": "another"}}},
        {"answers": {"/token": {"id_token": None}}},
        {"answers": {"/token": {"id_token": "no.token.at all"}}},
        {"answers": {"/token": {"id_token": "é"}}},
        {"answers": {"/token": {"id_token": DEEP_TOKEN}}},
        {"answers": {"/jwks": {"keys": []}}},
        {"answers": {"/jwks": {"keys": None}}},
        {"answers": {"/jwks": {"keys": ["a key"]}}},
        {"bodies": {"/token": "[]"}},
        {"bodies": {"/token": "<html>"}},
        {"bodies": {"/jwks": DEEP}},
        {"bodies": {"/token": TOO_LONG}},
        {"bodies": {"/jwks": TOO_LONG}},
        {"bodies": {"/userinfo": TOO_LONG}},
        {"statuses": {"/token": 302}},
        {"statuses": {"/jwks": 404}},
        {"statuses": {"/userinfo": 401}},
    ],
    ids=lambda lies: str(lies)[:70],
)
def test_a_lie_signs_nobody_in(hostile: RunningProvider, lies: dict[str, Any]) -> None:
    with pytest.raises(LoginRefusedError):
        person_of(hostile, **lies)


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": [CLIENT_ID, "another"], "azp": CLIENT_ID},
        {"at_hash": None},
    ],
    ids=str,
)
def test_whatever_the_protocol_allows_signs_in(hostile: RunningProvider, claims: dict[str, Any]) -> None:
    assert person_of(hostile, claims=claims).subject == "ada"


def test_clocks_may_differ_by_a_minute(hostile: RunningProvider) -> None:
    now = int(time.time())
    assert person_of(hostile, claims={"iat": now - 300, "exp": now - 20}).subject == "ada"
    assert person_of(hostile, claims={"iat": now + 40}).subject == "ada"
    with pytest.raises(LoginRefusedError, match="ExpiredTokenError"):
        person_of(hostile, claims={"iat": now - 300, "exp": now - oidc.LEEWAY_SECONDS - 1})


def test_userinfo_that_is_of_somebody_else_or_cannot_be_asked_for_tells_nothing(hostile: RunningProvider) -> None:
    nameless = Person(hostile.issuer, "ada", "", None)
    eve = {"sub": "eve", "preferred_username": "eve"}
    assert person_of(hostile, answers={"/userinfo": eve}) == nameless
    no_header = {"/token": {"access_token": "é"}}
    assert person_of(hostile, claims={"at_hash": None}, answers=no_header) == nameless


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"issuer": "https://login.example.org"}, "another one"),
        ({"issuer": None}, "another one"),
        ({"authorization_endpoint": "javascript:alert(1)"}, "authorization_endpoint"),
        ({"token_endpoint": "http://login.example.org/token"}, "token_endpoint"),
        ({"token_endpoint": None}, "token_endpoint"),
        ({"jwks_uri": "file:///etc/passwd"}, "jwks_uri"),
        ({"userinfo_endpoint": "http://127.0.0.1.example.org/"}, "userinfo_endpoint"),
        ({"authorization_endpoint": "https://["}, "authorization_endpoint"),
        ({"token_endpoint": "https://login.example.org:port/"}, "token_endpoint"),
        ({"token_endpoint": ["https://login.example.org/"]}, "token_endpoint"),
        ({"padding": "a" * 300_000}, "256 KiB"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_metadata_that_leads_elsewhere_is_refused(
    hostile: RunningProvider, metadata: dict[str, Any], message: str
) -> None:
    hostile.misbehave(answers={"/.well-known/openid-configuration": metadata})
    with pytest.raises(LoginRefusedError, match=message):
        client_of(hostile).authorization_url(WAY, "a state", BACK_TO)
    hostile.misbehave()
    assert client_of(hostile).authorization_url(WAY, "a state", BACK_TO).startswith(hostile.issuer)


@pytest.mark.parametrize("path", ["/token", "/jwks", "/userinfo"])
def test_a_provider_in_trouble_is_asked_again_later(hostile: RunningProvider, path: str) -> None:
    with pytest.raises(BusyError, match="has a problem"):
        person_of(hostile, statuses={path: 503})


def test_of_an_answer_that_goes_on_no_more_is_read_than_it_may_be_long(hostile: RunningProvider) -> None:
    """Far from its end, the server sees the connection closed."""
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
                try:
                    for _ in range(1000):
                        connection.sendall(b" " * 65536)
                except OSError:
                    ended.set()

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(LoginRefusedError, match="256 KiB"):
            client_of(hostile, oidc_issuer=f"http://127.0.0.1:{server.getsockname()[1]}").authorization_url(
                WAY, "state", BACK_TO
            )
        thread.join(10)
    assert ended.is_set()


def test_a_provider_that_says_nothing_is_not_waited_for_longer_than_the_time(
    hostile: RunningProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oidc, "TIMEOUT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        silent = client_of(hostile, oidc_issuer=f"http://127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(BusyError, match="does not answer"):
            silent.authorization_url(WAY, "a state", BACK_TO)


def test_half_a_hash_is_that_of_the_standard() -> None:
    """The example of OpenID Connect Core 1.0, A.4; Ed25519 hashes by SHA-512, half of which is 32 bytes."""
    token = "jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y"
    assert access_token_hash(token, "RS256") == "77QmUPtjPfzWtF2AnpK9RQ"
    lengths = {name: len(access_token_hash(token, name)) for name in oidc.ALGORITHMS}
    bits = {"256": 22, "384": 32, "512": 43, "519": 43, "DSA": 43}  # characters of base64url for half of it
    assert lengths == {name: bits[name[-3:]] for name in oidc.ALGORITHMS}
