"""A person's own votes, their consent, and the ways to come in."""

import csv
import io
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from dmpo_app.labeling import Sealer, load_or_create_key
from dmpo_app.web.routes import personal_routes
from tests.web.api_studio import ApiStudio


def votes_of(studio: ApiStudio, who: dict[str, str], **query: Any) -> dict[str, Any]:
    answer = studio.client.get("/api/v1/votes", params=query, headers=who)
    assert answer.status_code == 200, answer.text
    listed: dict[str, Any] = answer.json()
    return listed


def give(studio: ApiStudio, who: dict[str, str], count: int, **more: Any) -> list[int]:
    given = []
    for _ in range(count):
        body = {"assignment": studio.assignments(who)[0]["id"], "choice": "left", "elapsed_ms": 900, **more}
        answer = studio.client.post("/api/v1/votes", json=body, headers=who)
        assert answer.status_code == 201, answer.text
        given.append(answer.json()["vote"])
    return given


def test_who_am_i_says_what_became_of_my_votes(studio: ApiStudio) -> None:
    who = studio.session("Ada")
    give(studio, who, 4)
    studio.publish()
    last = give(studio, who, 1)[0]
    studio.client.delete(f"/api/v1/votes/{last}", headers=who)
    me = studio.client.get("/api/v1/session/me", headers=who).json()
    assert me["handle"] == "Ada"
    assert me["votes"] == {"live": 4, "undone": 1, "withdrawn": 0, "by_question": {"overall": 4}}
    assert me["trained"] == [{"version": 1, "votes": 4}]
    assert me["agreements"] == []
    assert studio.client.get("/api/v1/session/me", headers=studio.session("Eve")).json()["votes"]["live"] == 0


def test_my_votes_come_a_page_at_a_time_and_nobody_else_s(studio: ApiStudio) -> None:
    who = studio.session()
    given = give(studio, who, 5, strength="slightly", comment="<i>nicer</i>")
    give(studio, studio.session("Eve"), 1)
    first = votes_of(studio, who, limit=3)
    rest = votes_of(studio, who, limit=3, before=first["next"])
    assert [vote["vote"] for vote in first["votes"] + rest["votes"]] == given[::-1]
    assert rest["next"] is None
    vote = first["votes"][0]
    assert (vote["strength"], vote["comment"], vote["question"]) == ("slightly", "<i>nicer</i>", "overall")
    assert studio.client.get(vote["left"]).headers["Content-Type"] == "image/png"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "session/me"), ("GET", "votes"), ("GET", "votes/export"), ("POST", "votes/withdraw"),
        ("POST", "votes/1/withdraw"), ("POST", "consent"), ("POST", "reports"),
    ],
)  # fmt: skip
def test_without_a_session_there_is_nothing_of_one_s_own(studio: ApiStudio, method: str, path: str) -> None:
    body = {"sha256": "0" * 64, "assignment": "x", "reason": "broken"} if method == "POST" else None
    for headers in ({}, {"Authorization": "Bearer forged"}):
        assert studio.client.request(method, f"/api/v1/{path}", json=body, headers=headers).status_code == 401


def test_an_export_holds_every_vote_over_several_pages(studio: ApiStudio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(personal_routes, "EXPORT_PAGE", 2)
    who = studio.session()
    given = give(studio, who, 5, comment="=HYPERLINK(1)")
    lines = studio.client.get("/api/v1/votes/export", headers=who)
    assert lines.headers["Content-Type"].startswith("application/x-ndjson")
    assert [json.loads(line)["vote"] for line in lines.text.splitlines()] == given[::-1]
    document = studio.client.get("/api/v1/votes/export?format=json", headers=who).json()
    assert [vote["vote"] for vote in document["votes"]] == given[::-1]
    empty = studio.client.get("/api/v1/votes/export?format=json", headers=studio.session("Eve")).json()
    assert (empty["handle"], empty["votes"], empty["agreements"]) == ("Eve", [], [])
    table = studio.client.get("/api/v1/votes/export?format=csv", headers=who)
    assert "attachment" in table.headers["Content-Disposition"]
    rows = list(csv.DictReader(io.StringIO(table.text)))
    assert [row["vote"] for row in rows] == [str(vote) for vote in given[::-1]]
    assert {row["comment"] for row in rows} == {"'=HYPERLINK(1)"}


def test_withdrawing_one_vote_twice_and_then_all(studio: ApiStudio) -> None:
    who, eve = studio.session(), studio.session("Eve")
    given = give(studio, who, 3)
    give(studio, eve, 1)
    one = f"/api/v1/votes/{given[0]}/withdraw"
    assert studio.client.post(one, headers=eve).status_code == 403
    answers = [studio.client.post(one, headers=who).json() for _ in range(2)]
    assert answers == [{"withdrawn": count, "votes_until_round": 1, "versions": []} for count in (1, 0)]
    everything = studio.client.post("/api/v1/votes/withdraw", headers=who).json()
    assert everything == {"withdrawn": 2, "votes_until_round": 3, "versions": []}
    assert studio.client.get("/api/v1/status").json()["votes"] == 1
    assert all(vote["withdrawn_at"] for vote in votes_of(studio, who)["votes"])


def test_who_withdraws_is_told_which_versions_learned_from_it_and_these_are_named(studio: ApiStudio) -> None:
    who, eve = studio.session(), studio.session("Eve")
    [first, _] = give(studio, who, 2)
    give(studio, eve, 1)
    studio.publish()
    studio.publish()
    assert studio.client.post(f"/api/v1/votes/{first}/withdraw", headers=who).json()["versions"] == [1, 2]
    assert studio.client.post("/api/v1/votes/withdraw", headers=who).json()["versions"] == [1, 2]
    versions = studio.client.get("/api/v1/adapters").json()["adapters"]
    assert [version["taken_back"] for version in versions] == [0, 2, 2]
    assert {one["trigger"] for one in studio.client.get("/api/v1/rounds").json()["rounds"]} == {"votes"}


def test_several_questions_about_a_pair_share_its_images(studio: ApiStudio) -> None:
    campaign = studio.with_campaign(questions=["overall", "appeal", "fit"])
    who = campaign.session()
    shown = campaign.assignments(who, 3)
    assert [one["question"] for one in shown] == ["overall", "appeal", "fit"]
    assert len({(one["prompt"], one["left"], one["right"]) for one in shown}) == 1
    for one, choice in zip(shown, ("left", "right", "tie"), strict=True):
        assert campaign.vote(who, one["id"], choice).status_code == 201
    counts = campaign.client.get("/api/v1/session/me", headers=who).json()["votes"]["by_question"]
    assert counts == {"overall": 1, "appeal": 1, "fit": 1}


def test_nothing_is_shown_or_taken_before_the_text_is_agreed_to(studio: ApiStudio) -> None:
    who = studio.session()
    [early] = studio.assignments(who)
    campaign = studio.with_campaign(consent="We keep your votes for research.", consent_version="2026-01")
    refused = [campaign.client.get("/api/v1/assignments", headers=who), campaign.vote(who, early["id"])]
    assert [(answer.status_code, answer.json()["code"]) for answer in refused] == [(403, "consent_needed")] * 2
    text = campaign.client.get("/api/v1/consent").json()
    assert (text["needed"], text["text"]) == (True, "We keep your votes for research.")
    changed = campaign.client.post("/api/v1/consent", json={"sha256": "0" * 64}, headers=who)
    assert (changed.status_code, changed.json()["code"]) == (409, "conflict")
    agreed = campaign.client.post("/api/v1/consent", json={"sha256": text["sha256"]}, headers=who)
    assert agreed.json()["agreed_at"]
    assert not campaign.client.get("/api/v1/consent", headers=who).json()["needed"]
    assert campaign.vote(who, early["id"]).status_code == 201
    [agreement] = campaign.client.get("/api/v1/session/me", headers=who).json()["agreements"]
    assert (agreement["version"], agreement["sha256"]) == ("2026-01", text["sha256"])
    assert agreement["text"] == "We keep your votes for research."
    document = campaign.client.get("/api/v1/votes/export?format=json", headers=who)
    assert document.headers["Content-Type"].startswith("application/json")
    [written] = document.json()["agreements"]
    assert {**written, "at": None} == {**agreement, "at": None}
    assert len(document.json()["votes"]) == 1
    assert campaign.client.get("/api/v1/assignments", headers=campaign.session("Eve")).status_code == 403


def test_without_a_text_there_is_nothing_to_agree_to(studio: ApiStudio) -> None:
    assert studio.client.get("/api/v1/consent").json() == dict.fromkeys(("text", "version", "sha256", "agreed_at")) | {
        "needed": False
    }


def test_an_invitation_lets_in_so_many_and_no_more_at_the_same_time(studio: ApiStudio) -> None:
    store = studio.services.store
    (invite,) = store.invites.create(["class"], max_uses=3, lifetime=timedelta(days=1), by="cli")
    link = Sealer(load_or_create_key(store.home)).seal_invite(invite.public_id)
    campaign = studio.with_campaign(access="invite")

    def come(number: int) -> Any:
        return campaign.client.post("/api/v1/session", json={"handle": f"guest {number}", "invite": link})

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(come, range(12)))
    assert sorted(answer.status_code for answer in answers) == [200] * 3 + [403] * 9
    assert {answer.json()["code"] for answer in answers if answer.status_code == 403} == {"invite_needed"}
    for body in ({}, {"invite": "nonsense"}, {"invite": ""}, {"invite": link[:-1] + "x"}):
        refused = campaign.client.post("/api/v1/session", json=body)
        assert (refused.status_code, refused.json()["code"]) == (403, "invite_needed"), refused.text
    assert studio.client.post("/api/v1/session", json={"invite": link}).status_code == 200, (
        "open to all, it is not asked"
    )
