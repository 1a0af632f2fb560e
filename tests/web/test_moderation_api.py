"""Reports of pairs, and what administrators do."""

from typing import Any

import pytest

from tests.web.api_studio import ADMIN, ApiStudio


def report(studio: ApiStudio, who: dict[str, str], assignment: str, **more: Any) -> Any:
    body = {"assignment": assignment, "reason": "unsafe", **more}
    return studio.client.post("/api/v1/reports", json=body, headers=who)


def test_a_reported_pair_leaves_the_pool_at_once_and_comes_back_when_cleared(studio: ApiStudio) -> None:
    who, eve = studio.session(), studio.session("Eve")
    [pair] = studio.assignments(who)
    others = studio.assignments(eve, 12)
    answer = report(studio, who, pair["id"], text="<script>alert(1)</script>")
    assert (answer.status_code, answer.json()["retired"]) == (201, True)
    assert studio.vote(who, pair["id"]).status_code == 410
    assert len(studio.assignments(eve, 12)) == len(others) - 1
    [listed] = studio.client.get("/api/v1/reports", headers=ADMIN).json()["reports"]
    assert (listed["text"], listed["retired"], listed["prompt"]) == ("<script>alert(1)</script>", True, pair["prompt"])
    assert all(studio.client.get(url).status_code == 200 for url in listed["images"])
    cleared = studio.client.post(f"/api/v1/reports/{listed['id']}/clear", headers=ADMIN).json()
    assert (cleared["retired"], cleared["cleared_by"]) == (False, "administrator")
    assert len(studio.assignments(eve, 12)) == len(others)
    assert studio.client.get("/api/v1/reports?standing=true", headers=ADMIN).json() == {"reports": [], "next": None}


def test_somebody_else_s_pair_cannot_be_reported(studio: ApiStudio) -> None:
    [pair] = studio.assignments(studio.session())
    assert report(studio, studio.session("Eve"), pair["id"]).status_code == 403
    assert studio.client.get("/api/v1/reports", headers=ADMIN).json()["reports"] == []


def test_reports_of_one_person_are_limited_in_public_mode(studio: ApiStudio) -> None:
    limits = studio.services.settings.limits.model_copy(update={"reports_per_minute": 2})
    client = studio.with_settings(public=True, limits=limits)
    who = studio.session()
    shown = studio.assignments(who, 3)
    body = [{"assignment": pair["id"], "reason": "broken"} for pair in shown]
    statuses = [client.post("/api/v1/reports", json=one, headers=who).status_code for one in body]
    assert statuses == [201, 201, 429]


def test_what_administrators_do_is_on_record(studio: ApiStudio) -> None:
    studio.vote_times(4)
    studio.client.post("/api/v1/rounds", headers=ADMIN)
    who = studio.session()
    report(studio, who, studio.assignments(who)[0]["id"])
    studio.client.post("/api/v1/reports/1/clear", headers=ADMIN)
    acts = studio.client.get("/api/v1/audit", headers=ADMIN).json()
    assert [(act["actor"], act["act"]) for act in acts["acts"]] == [
        ("administrator", "clear_report"),
        ("administrator", "train_now"),
    ]
    older = studio.client.get(f"/api/v1/audit?limit=1&before={acts['acts'][0]['id']}", headers=ADMIN).json()
    assert [act["act"] for act in older["acts"]] == ["train_now"]


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "reports"), ("POST", "reports/1/clear"), ("GET", "audit"), ("POST", "rounds")]
)
def test_only_administrators_see_reports_and_acts(studio: ApiStudio, method: str, path: str) -> None:
    ask = studio.client.request
    assert ask(method, f"/api/v1/{path}").status_code == 401
    assert ask(method, f"/api/v1/{path}", headers=studio.session()).status_code == 403
    assert ask("POST", "/api/v1/reports/77/clear", headers=ADMIN).status_code == 404
