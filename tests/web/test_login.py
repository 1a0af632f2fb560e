"""Signing in with a real provider in a process of its own, and everything that may be tried in between."""

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from dmpo_app.errors import SetupError
from dmpo_app.settings import IdentitySettings, LabelingSettings
from tests.oidc_provider import CLIENT_SECRET, RunningProvider, running_provider
from tests.web.api_studio import ApiStudio

NOW = int(time.time())


@pytest.fixture(scope="module")
def running() -> Iterator[RunningProvider]:
    with running_provider() as provider:
        yield provider


@pytest.fixture
def provider(running: RunningProvider) -> RunningProvider:
    """One that tells the truth again, whatever a test before made it do."""
    running.misbehave()
    return running


def client_of(studio: ApiStudio, provider: RunningProvider, *, access: str = "open", **identity: Any) -> TestClient:
    settings = IdentitySettings.model_validate({**provider.settings, **identity})
    return studio.with_settings(identity=settings, labeling=LabelingSettings.model_validate({"access": access}))


def begin(client: TestClient) -> dict[str, Any]:
    answer = client.post("/api/v1/login")
    assert answer.status_code == 200, answer.text
    begun: dict[str, Any] = answer.json()
    return begun


def come_back(client: TestClient, **back: str) -> Any:
    return client.get("/login/callback", params=back)


def code_on(page: Any) -> str:
    found = re.search(r'data-code="(\w{8})"', page.text)
    assert found is not None, page.text
    return found[1]


def sign_in(client: TestClient, provider: RunningProvider, who: str = "ada") -> dict[str, Any]:
    begun = begin(client)
    page = come_back(client, **provider.allow(begun["url"], who))
    assert page.status_code == 200, page.text
    answer = client.post("/api/v1/login/session", json={"ticket": begun["ticket"], "code": code_on(page)})
    assert answer.status_code == 200, answer.text
    signed_in: dict[str, Any] = answer.json()
    return signed_in


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_the_same_person_is_the_same_annotator_and_no_name_is_stored(
    studio: ApiStudio, provider: RunningProvider
) -> None:
    client = client_of(studio, provider)
    assert client.get("/api/v1/login").json() == {"available": True, "needed": False, "label": "Tests"}
    first, again, eve = (sign_in(client, provider, who) for who in ("ada-lovelace", "ada-lovelace", "eve"))
    assert first["annotator"] == again["annotator"] != eve["annotator"]
    assert (first["name"], first["administrator"]) == ("ada-lovelace", None)
    me = client.get("/api/v1/session/me", headers=bearer(again["token"])).json()
    assert (me["signed_in"], me["handle"]) == (True, "anonymous")
    content = b"".join(path.read_bytes() for path in studio.services.store.home.glob("studio.db*"))
    assert b"lovelace" not in content
    assert first["annotator"].encode() in content


def test_only_what_is_needed_is_asked_for_with_pkce_and_a_nonce(studio: ApiStudio, provider: RunningProvider) -> None:
    begun = begin(client_of(studio, provider))
    assert "scope=openid+profile&" in begun["url"]
    assert "code_challenge_method=S256" in begun["url"]
    assert "&nonce=" in begun["url"]
    assert "redirect_uri=http%3A%2F%2Ftestserver%2Flogin%2Fcallback" in begun["url"]
    elsewhere = client_of(studio, provider, public_url="https://studio.example.org/dmpo/")
    assert "redirect_uri=https%3A%2F%2Fstudio.example.org%2Fdmpo%2Flogin%2Fcallback" in begin(elsewhere)["url"]


LIES: list[dict[str, Any]] = [
    {"claims": {"nonce": "another"}}, {"claims": {"nonce": None}}, {"claims": {"aud": "another studio"}},
    {"claims": {"aud": None}}, {"claims": {"aud": ["dmpo studio", "another"]}}, {"claims": {"azp": "another"}},
    {"claims": {"iss": "http://127.0.0.1:1"}}, {"claims": {"iss": None}}, {"claims": {"exp": NOW - 3600}},
    {"claims": {"exp": None}}, {"claims": {"exp": "never"}}, {"claims": {"iat": NOW + 7200, "exp": NOW + 9000}},
    {"claims": {"nbf": NOW + 7200}}, {"claims": {"sub": None}}, {"claims": {"sub": ""}}, {"claims": {"sub": ["ada"]}},
    {"claims": {"sub": "a" * 1000}}, {"signature": "none"}, {"signature": "hs256"}, {"signature": "foreign"},
]  # fmt: skip


def test_what_a_provider_says_wrongly_signs_nobody_in(studio: ApiStudio, provider: RunningProvider) -> None:
    client = client_of(studio, provider)
    answers = {}
    for lie in LIES:
        begun = begin(client)
        provider.misbehave(**lie)
        page = come_back(client, **provider.allow(begun["url"]))
        redeemed = client.post("/api/v1/login/session", json={"ticket": begun["ticket"], "code": "AAAAAAAA"})
        answers[str(lie)] = (page.status_code, "data-code" in page.text, redeemed.status_code)
    assert answers == {str(lie): (403, False, 403) for lie in LIES}
    provider.misbehave()
    assert sign_in(client, provider)["name"] == "ada"


def test_states_and_codes_are_good_once_and_for_one_another(studio: ApiStudio, provider: RunningProvider) -> None:
    client = client_of(studio, provider)
    mine, other = (provider.allow(begin(client)["url"]) for _ in range(2))
    assert come_back(client, state=mine["state"], code=other["code"]).status_code == 403  # another's PKCE verifier
    assert come_back(client, **mine).status_code == 403  # its state came back before
    assert come_back(client, state=begin(client)["ticket"], code=mine["code"]).status_code == 403
    assert come_back(client, state="forged", code=mine["code"]).status_code == 403
    assert come_back(client, code=mine["code"]).status_code == 403
    fresh = provider.allow(begin(client)["url"])
    assert come_back(client, **fresh).status_code == 200
    assert come_back(client, **fresh).status_code == 403
    assert come_back(client, state=provider.allow(begin(client)["url"])["state"], code=fresh["code"]).status_code == 403
    late = provider.allow(begin(client)["url"])
    studio.clock.forward(minutes=11)
    assert come_back(client, **late).status_code == 403


def test_saying_no_and_a_provider_in_trouble_are_told_apart(studio: ApiStudio, provider: RunningProvider) -> None:
    client = client_of(studio, provider)
    page = come_back(client, **provider.allow(begin(client)["url"], who=None))
    assert (page.status_code, "did not work" in page.text) == (403, True)
    begun = begin(client)
    back = provider.allow(begun["url"])
    provider.misbehave(status=502)
    assert come_back(client, **back).status_code == 503
    assert client_of(studio, provider).post("/api/v1/login").status_code == 503
    gone = client_of(studio, provider, oidc_issuer="http://127.0.0.1:9")
    assert gone.post("/api/v1/login").json()["code"] == "busy"


def test_the_page_that_comes_back_runs_its_own_script_only_and_is_shown_in_no_frame(
    studio: ApiStudio, provider: RunningProvider
) -> None:
    client = client_of(studio, provider)
    page = come_back(client, **provider.allow(begin(client)["url"]))
    policy = page.headers["Content-Security-Policy"]
    nonce = re.search(r"script-src 'nonce-([\w-]+)'", policy)
    assert nonce is not None
    assert page.text.count(f'<script nonce="{nonce[1]}">') == 1
    assert "frame-ancestors 'none'" in policy
    assert (page.headers["Cache-Control"], page.headers["Referrer-Policy"]) == ("no-store", "no-referrer")
    for payload in ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>'):
        shown = come_back(client, state=payload, code=payload, error=payload)
        assert payload not in shown.text


def test_where_one_has_to_sign_in_nobody_else_takes_part(studio: ApiStudio, provider: RunningProvider) -> None:
    before = studio.session()
    client = client_of(studio, provider, access="login")
    assert client.get("/api/v1/login").json()["needed"]
    refused = client.post("/api/v1/session", json={"handle": "Ada"})
    assert (refused.status_code, refused.json()["code"]) == (403, "login_needed")
    assert client.get("/api/v1/assignments", headers=before).status_code == 401
    ada = bearer(sign_in(client, provider)["token"])
    [shown] = client.get("/api/v1/assignments", headers=ada).json()["assignments"]
    body = {"assignment": shown["id"], "choice": "left", "elapsed_ms": 900}
    assert client.post("/api/v1/votes", json=body, headers=ada).status_code == 201


def test_who_signs_in_first_goes_on_as_who_they_were_and_later_as_who_they_are(
    studio: ApiStudio, provider: RunningProvider
) -> None:
    client = client_of(studio, provider)

    def signed_in_from(session: dict[str, str], who: str) -> str:
        begun = begin(client)
        page = come_back(client, **provider.allow(begun["url"], who))
        body = {"ticket": begun["ticket"], "code": code_on(page)}
        answer = client.post("/api/v1/login/session", json=body, headers=session)
        return str(answer.json()["annotator"])

    def annotator(session: dict[str, str]) -> Any:
        return client.get("/api/v1/session/me", headers=session).json()

    laptop, phone = studio.session("Ada"), studio.session("Ada's phone")
    assert not annotator(laptop)["signed_in"]
    ada = signed_in_from(laptop, "ada")
    assert (annotator(laptop)["annotator"], annotator(laptop)["signed_in"]) == (ada, True)
    assert signed_in_from(phone, "ada") == ada != annotator(phone)["annotator"]
    assert signed_in_from(laptop, "eve") not in (ada, annotator(phone)["annotator"])  # ada's it is already
    assert signed_in_from(bearer("forged"), "ada") == ada


def test_signing_in_is_no_way_around_an_invitation(studio: ApiStudio, provider: RunningProvider) -> None:
    client = client_of(studio, provider, access="invite")
    begun = begin(client)
    page = come_back(client, **provider.allow(begun["url"]))
    refused = client.post("/api/v1/login/session", json={"ticket": begun["ticket"], "code": code_on(page)})
    assert (refused.status_code, refused.json()["code"]) == (403, "invite_needed")
    invited = studio.session()
    begun = begin(client)
    page = come_back(client, **provider.allow(begun["url"]))
    body = {"ticket": begun["ticket"], "code": code_on(page)}
    assert client.post("/api/v1/login/session", json=body, headers=invited).status_code == 200
    assert sign_in(client, provider)["name"] == "ada"


def test_who_is_listed_administers_under_their_name_for_some_hours(
    studio: ApiStudio, provider: RunningProvider
) -> None:
    client = client_of(studio, provider, admins=("ada",))
    ada, eve = sign_in(client, provider, "ada"), sign_in(client, provider, "eve")
    assert eve["administrator"] is None
    for token in (eve["token"], ada["token"]):
        assert client.get("/api/v1/audit", headers=bearer(token)).status_code == 403
    token = bearer(ada["administrator"])
    body = {"prompts": [1], "act": "retire"}
    assert client.post("/api/v1/prompts/edit", json=body, headers=token).status_code == 200
    [act] = client.get("/api/v1/audit", headers=token).json()["acts"]
    assert act["actor"] == "administrator ada"
    assert client.get("/api/v1/assignments", headers=token).status_code == 401  # it is nobody's session
    assert client_of(studio, provider, admins=("eve",)).get("/api/v1/audit", headers=token).status_code == 403
    studio.clock.forward(hours=12)
    assert client.get("/api/v1/audit", headers=token).status_code == 403


def test_an_email_administers_only_when_the_provider_has_verified_it(
    studio: ApiStudio, provider: RunningProvider
) -> None:
    client = client_of(studio, provider, admins=("ada@example.org",), admin_claim="email")
    for verified in (True, False, None, "true"):
        provider.misbehave(claims={"email": "ada@example.org", "email_verified": verified})
        assert (sign_in(client, provider)["administrator"] is not None) == (verified is True)


def test_a_studio_without_a_provider_says_so(studio: ApiStudio) -> None:
    assert studio.client.get("/api/v1/login").json() == {"available": False, "needed": False, "label": None}
    assert studio.client.post("/api/v1/login").status_code == 404
    assert studio.client.get("/login/callback?state=x&code=y").status_code == 404
    with pytest.raises(SetupError, match="OIDC_ISSUER"):
        studio.with_settings(labeling=LabelingSettings(access="login"))


def test_the_secret_of_the_studio_is_shown_nowhere(studio: ApiStudio, provider: RunningProvider) -> None:
    settings = studio.services.settings.model_copy(
        update={"identity": IdentitySettings.model_validate(provider.settings)}
    )
    assert CLIENT_SECRET not in repr(settings) + settings.model_dump_json() + str(settings.fields())
