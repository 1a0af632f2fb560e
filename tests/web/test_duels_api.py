"""Duels through the API: mixed in so that nothing tells one from a pair, and alone on request."""

from datetime import datetime
from typing import Any
from urllib.parse import unquote

import pytest

from dmpo_app.domain.judging import NewDuel
from dmpo_app.settings import JudgingSettings
from tests.web.api_studio import ApiStudio
from tests.web.studio_fakes import scene_image

HELD_OUT = "a purple whale in space"


def add_duels(studio: ApiStudio, count: int, versions: tuple[int, int] = (1, 0)) -> set[int]:
    store, base = studio.services.store, studio.services.base
    store.prompts.ensure([HELD_OUT], held_out=True)
    duels = set()
    for seed in range(count):
        image_a, image_b = (scene_image(HELD_OUT, seed, version, size=16) for version in versions)
        duels.add(store.duels.add(base, NewDuel(HELD_OUT, image_a, image_b)).pair_id)
    return duels


def asked_for_duels(studio: ApiStudio, who: dict[str, str], count: int = 1) -> dict[str, Any]:
    answer = studio.client.get("/api/v1/assignments", params={"count": count, "kind": "duels"}, headers=who)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def pair_of(studio: ApiStudio, item: dict[str, Any]) -> int:
    return studio.services.store.assignments.get(item["id"]).pair_id


def test_a_person_without_duels_is_told_why(studio: ApiStudio) -> None:
    who = studio.session()
    assert asked_for_duels(studio, who) == {"assignments": [], "no_duels": "no_version"}
    studio.publish()
    assert asked_for_duels(studio, who) == {"assignments": [], "no_duels": "making"}
    none_ahead = studio.with_settings(judging=JudgingSettings(duels_ready=0))
    answer = none_ahead.get("/api/v1/assignments", params={"kind": "duels"}, headers=who)
    assert answer.json() == {"assignments": [], "no_duels": "all_judged"}
    add_duels(studio, 1)
    (item,) = asked_for_duels(studio, who, 4)["assignments"]
    assert studio.vote(who, item["id"]).status_code == 201
    assert asked_for_duels(studio, who, 4)["no_duels"] == "making"


def test_duels_alone_are_judged_undone_and_listed_among_ones_own_votes(studio: ApiStudio) -> None:
    studio.publish()
    duels = add_duels(studio, 3)
    who = studio.session()
    before = studio.client.get("/api/v1/status").json()
    shown = asked_for_duels(studio, who, 16)["assignments"]
    assert {pair_of(studio, item) for item in shown} == duels
    assert {item["question"] for item in shown} == {"overall"}
    voted = studio.vote(who, shown[0]["id"], "tie")
    assert voted.status_code == 201
    assert voted.json()["votes_until_round"] == before["votes_until_round"], "nothing is learnt from it"
    assert len(studio.services.store.duels.judgements(studio.services.base, 1, 0)) == 1
    assert studio.client.get("/api/v1/status").json()["votes"] == before["votes"] + 1
    assert studio.client.get("/api/v1/status").json()["pool"] == before["pool"]
    assert studio.client.delete(f"/api/v1/votes/{voted.json()['vote']}", headers=who).status_code == 200
    assert studio.services.store.duels.judgements(studio.services.base, 1, 0) == []
    assert shown[0]["id"] in {item["id"] for item in asked_for_duels(studio, who, 16)["assignments"]}
    vote = studio.vote(who, shown[0]["id"], "left").json()["vote"]
    [own, _] = studio.client.get("/api/v1/votes", headers=who).json()["votes"]
    assert (own["vote"], own["prompt"], own["versions"]) == (vote, HELD_OUT, [])


def test_pairs_and_duels_that_are_open_do_not_come_where_the_others_were_asked_for(studio: ApiStudio) -> None:
    studio.publish()
    duels = add_duels(studio, 2)
    who = studio.session()
    pairs = {pair_of(studio, item) for item in studio.with_duel_rate(0).assignments(who, 4)}
    assert not pairs & duels
    assert {pair_of(studio, item) for item in asked_for_duels(studio, who, 4)["assignments"]} == duels
    assert {pair_of(studio, item) for item in studio.with_duel_rate(0).assignments(who, 4)} == pairs


@pytest.mark.parametrize("kind", ["", "pairs", "DUELS"])
def test_a_kind_that_is_none_is_refused(studio: ApiStudio, kind: str) -> None:
    answer = studio.client.get("/api/v1/assignments", params={"kind": kind}, headers=studio.session())
    assert answer.status_code == 422


def test_nothing_in_the_answer_tells_a_duel_from_a_pair_nor_one_version_from_the_other(studio: ApiStudio) -> None:
    studio.publish()
    duels = add_duels(studio, 8)
    half = studio.with_duel_rate(0.5)
    who = studio.session()
    answer = half.client.get("/api/v1/assignments", params={"count": 16}, headers=who)
    items = answer.json()["assignments"]
    assert answer.json()["no_duels"] is None
    is_duel = [pair_of(studio, item) in duels for item in items]
    assert 2 <= sum(is_duel) <= 8
    assert sum(is_duel) < len(items)
    shapes = {shape_of(item) for item in items}
    assert len(shapes) == 1, shapes
    images = {size_of(studio, item[side]) for item in items for side in ("left", "right")}
    assert len(images) == 1, images
    sides = {studio.services.store.assignments.get(item["id"]).a_on_left for item in items}
    assert sides == {True, False}


def shape_of(item: dict[str, Any]) -> tuple[Any, ...]:
    """All that a client gets of an assignment but for its prompt: names, kinds, lengths, and when it expires."""
    lengths = tuple((name, type(value).__name__, len(value)) for name, value in item.items() if name != "prompt")
    expires_at = datetime.fromisoformat(item["expires_at"])
    return (*lengths, tuple(item["asks"]), item["question"], expires_at)


def size_of(studio: ApiStudio, url: str) -> tuple[Any, ...]:
    """All that a client gets of an image but for its pixels and their number of bytes."""
    answer = studio.client.get(unquote(url))
    headers = {name: value for name, value in answer.headers.items() if name not in ("content-length", "date")}
    return (answer.status_code, answer.content[:33], tuple(sorted(headers.items())))
