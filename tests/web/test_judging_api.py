"""Judging through the API: duels are judged, a version goes live, and everything is said in words."""

import pytest

from dmpo_app.domain.judging import VerdictAction
from dmpo_app.settings import JudgingSettings
from dmpo_app.web import Services
from tests.judging.judged_versions import PROMPTS, judge, judging, publish
from tests.web.api_studio import ADMIN, ApiStudio


@pytest.fixture
def services(studio: ApiStudio) -> Services:
    studio.services.store.prompts.ensure(PROMPTS, held_out=True)
    return studio.services


def test_before_any_duel_there_is_nothing_to_compare(studio: ApiStudio) -> None:
    assert studio.client.get("/api/v1/judging").json() == {
        "mode": "publish",
        "live_version": 0,
        "candidate": None,
        "comparisons": [],
        "verdicts": [],
    }
    empty: dict[str, object] = {"rows": [], "anchor": None, "num_judgements": 0, "num_annotators": 0, "num_prompts": 0}
    assert studio.client.get("/api/v1/board").json() == empty


def test_a_held_version_is_shown_as_such_and_judged_until_it_is_decided(studio: ApiStudio, services: Services) -> None:
    client = studio.with_settings(judging=JudgingSettings(mode="hold"))
    store, base = services.store, services.base
    publish(store, base, is_held=True)
    assert client.get("/api/v1/status").json()["live_version"] == 0
    shown = client.get("/api/v1/adapters").json()["adapters"]
    assert [(one["state"], one["live"], one["state_words"]) for one in shown] == [
        ("live", True, "live"),
        ("candidate", False, "held back, being judged"),
    ]
    anna = store.annotators.ensure("anna")
    judge(store, base, anna, 1, 0, count=3)
    answer = client.get("/api/v1/judging").json()
    assert (answer["mode"], answer["candidate"], answer["verdicts"]) == ("hold", 1, [])
    [comparison] = answer["comparisons"]
    assert (comparison["version"], comparison["other_version"], comparison["verdict"]) == (1, 0, "unsure")
    assert comparison["sentence"].startswith("3 of 3 prefer version 1; about ")
    assert comparison["consequence"] == "version 1 goes live once it is proven better"
    judge(store, base, anna, 1, 0)
    assert judging(store, base, "hold").decide() is VerdictAction.PROMOTED
    answer = client.get("/api/v1/judging").json()
    assert (answer["live_version"], answer["candidate"]) == (1, None)
    assert [one["sentence"] for one in answer["verdicts"]] == [
        "Version 1 went live: better than the base model by people's duels"
    ]
    rows = client.get("/api/v1/board").json()["rows"]
    assert [(row["version"], row["num_judgements"]) for row in rows] == [(1, 15), (0, 15)]
    assert rows[0]["win_rate"] > 0.8 > rows[1]["win_rate"] == 0.5
    entries = client.get("/api/v1/audit", headers=ADMIN).json()["acts"]
    assert ("duels", "promote") in [(entry["actor"], entry["act"]) for entry in entries]


def test_a_vote_wakes_the_thread_that_decides(studio: ApiStudio, monkeypatch: pytest.MonkeyPatch) -> None:
    woken: list[bool] = []
    monkeypatch.setattr(studio.services.decisions, "wake", lambda: woken.append(True))
    who = studio.session()
    vote = studio.vote(who, studio.assignments(who)[0]["id"]).json()["vote"]
    assert len(woken) == 1
    assert studio.client.delete(f"/api/v1/votes/{vote}", headers=who).status_code == 200
    assert len(woken) == 2
