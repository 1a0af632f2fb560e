"""Reports of pairs, and what administrators do."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

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


def report_as_newcomers(studio: ApiStudio, client: TestClient, count: int) -> list[dict[str, str]]:
    """So many sessions, each from a network of its own, that report the first pairs they are shown."""
    crowd = []
    for number in range(count):
        who = studio.session(f"newcomer {number}")
        stranger = TestClient(client.app, client=(f"10.0.{number}.1", 1), headers=who)
        for pair in studio.assignments(who, 6):
            body = {"assignment": pair["id"], "reason": "broken"}
            assert stranger.post("/api/v1/reports", json=body).status_code == 201
        crowd.append(who)
    return crowd


def test_a_dozen_strangers_report_nothing_away_in_a_public_studio(studio: ApiStudio) -> None:
    client = studio.with_settings(public=True)
    studio.vote_times(4)
    store, base = studio.services.store, studio.services.base
    crowd = report_as_newcomers(studio, client, 12)
    assert len(store.reports.list(base)) == 72
    assert len(store.votes.training_votes(base)) == 4, "every vote still counts"
    assert store.read("SELECT id FROM pairs WHERE retired_at IS NOT NULL OR hidden_at IS NOT NULL") == [], "of 12 pairs"
    assert len(studio.assignments(studio.session("Eve"), 12)) == 12
    assert len(studio.assignments(crowd[0], 12)) == 6, "who reported a pair does not see it again"
    cleared = studio.client.post("/api/v1/reports/clear", json={"annotator": None}, headers=ADMIN)
    assert cleared.json() == {"cleared": 72}
    standing = studio.client.get("/api/v1/reports?standing=true", headers=ADMIN)
    assert standing.json()["reports"] == []


def test_an_administrator_confirms_one_report_and_clears_those_of_one_annotator(studio: ApiStudio) -> None:
    client = studio.with_settings(public=True)
    report_as_newcomers(studio, client, 2)
    newest, *_, oldest = studio.client.get("/api/v1/reports", headers=ADMIN).json()["reports"]
    confirmed = client.post(f"/api/v1/reports/{oldest['id']}/confirm", headers=ADMIN).json()
    assert (confirmed["retired"], confirmed["hidden"], confirmed["confirmed_by"]) == (True, False, "administrator")
    assert len(studio.assignments(studio.session("Eve"), 12)) == 11
    body = {"annotator": oldest["annotator"]}
    assert client.post("/api/v1/reports/clear", json=body, headers=ADMIN).json() == {"cleared": 5}
    standing = client.get("/api/v1/reports?standing=true", headers=ADMIN).json()["reports"]
    assert {one["annotator"] for one in standing if one["confirmed_at"] is None} == {newest["annotator"]}
    assert client.post("/api/v1/reports/clear", json={"annotator": "who"}, headers=ADMIN).status_code == 404
    assert client.post("/api/v1/reports/clear", json={}, headers=ADMIN).status_code == 422


def test_an_annotator_is_struck_by_the_name_in_the_quality_report_and_restored(studio: ApiStudio) -> None:
    studio.vote_times(3)
    store, base = studio.services.store, studio.services.base
    [row] = studio.client.get("/api/v1/quality", headers=ADMIN).json()["annotators"]
    struck = studio.client.post(f"/api/v1/annotators/{row['name']}/strike", headers=ADMIN).json()
    assert (struck["votes"], struck["votes_until_round"]) == (3, 4)
    assert store.votes.training_votes(base) == []
    report = studio.client.get("/api/v1/quality", headers=ADMIN).json()
    assert report["annotators"] == []
    assert [(one["name"], one["votes"]) for one in report["struck"]] == [(row["name"], 3)]
    restored = studio.client.post(f"/api/v1/annotators/{struck['annotator']}/restore", headers=ADMIN)
    assert restored.json() == {"votes_until_round": 1}
    assert len(store.votes.training_votes(base)) == 3
    acts = studio.client.get("/api/v1/audit", headers=ADMIN).json()["acts"]
    assert [(act["actor"], act["act"]) for act in acts] == [
        ("administrator", "restore_annotator"),
        ("administrator", "strike_annotator"),
    ]


def test_a_public_and_open_studio_says_what_it_cannot_prevent(studio: ApiStudio) -> None:
    studio.vote_times(2)
    notes = studio.with_settings(public=True).get("/api/v1/quality", headers=ADMIN).json()["notes"]
    assert "one person can take part as many" in notes[0]
    assert "Nobody is established yet" in notes[1]
    assert studio.client.get("/api/v1/quality", headers=ADMIN).json()["notes"] == []


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
    ("method", "path"),
    [
        ("GET", "reports"),
        ("POST", "reports/1/clear"),
        ("POST", "reports/1/confirm"),
        ("POST", "annotators/a/strike"),
        ("POST", "annotators/a/restore"),
        ("GET", "audit"),
        ("POST", "rounds"),
    ],
)
def test_only_administrators_see_reports_and_acts(studio: ApiStudio, method: str, path: str) -> None:
    ask = studio.client.request
    assert ask(method, f"/api/v1/{path}").status_code == 401
    assert ask(method, f"/api/v1/{path}", headers=studio.session()).status_code == 403
    assert ask("POST", "/api/v1/reports/77/clear", headers=ADMIN).status_code == 404
