from dataclasses import replace
from typing import Any

import pytest

from tests.store.store_data import new_image, new_pair
from tests.web.api_studio import ApiStudio


@pytest.fixture
def campaign(studio: ApiStudio) -> ApiStudio:
    """A campaign in which sets of three are ranked, with two of them to rank."""
    services = studio.services
    for number in (0, 1):
        pair = new_pair(number, prompt="a set")
        services.store.pairs.add(services.base, replace(pair, more=(new_image("a set", 50 + number),)))
    return studio.with_campaign(ranking_size=3, asks=("strength", "comment"))


def answer(campaign: ApiStudio, who: dict[str, str], assignment: str, **said: Any) -> Any:
    return campaign.client.post("/api/v1/votes", json={"assignment": assignment, **said}, headers=who)


def test_a_set_is_shown_with_all_its_images_and_ranked_once_whatever_is_sent_again(campaign: ApiStudio) -> None:
    who = campaign.session()
    shown = campaign.assignments(who, 5)
    assert [len(item["more"]) for item in shown] == [1, 1]
    assert shown[0]["asks"] == ["comment"], "how much better is asked of pairs only"
    first, again, other = (
        answer(campaign, who, shown[0]["id"], order=order) for order in ([2, 0, 1], [2, 0, 1], [0, 1, 2])
    )
    assert (first.status_code, again.status_code, other.status_code) == (201, 200, 409)
    assert first.json()["vote"] == again.json()["vote"]
    [own] = campaign.client.get("/api/v1/votes", headers=who).json()["votes"]
    assert own["order"] == [2, 0, 1]
    assert len(own["more"]) == 1
    assert campaign.client.delete(f"/api/v1/votes/{first.json()['vote']}", headers=who).status_code == 200
    assert answer(campaign, who, shown[0]["id"], order=[0, 1, 2]).status_code == 201


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"choice": "left"},
        {"choice": "tie"},
        {"order": [0, 1]},
        {"order": [0, 1, 1]},
        {"order": [0, 1, 3]},
        {"order": [0, 1, 2, 3]},
        {"order": [0, 1, -1]},
        {"order": ["0", "1", "2"]},
        {"order": [True, 0, 2]},
        {"order": "012"},
        {"order": [0, 1, 2], "choice": "left"},
        {"order": [0, 1, 2], "strength": "clearly"},
    ],
)
def test_what_is_no_order_of_the_set_is_refused_and_says_why(campaign: ApiStudio, said: dict[str, Any]) -> None:
    who = campaign.session()
    refused = answer(campaign, who, campaign.assignments(who)[0]["id"], **said)
    assert refused.status_code in (400, 422)
    assert refused.json()["detail"]
    assert campaign.client.get("/api/v1/votes", headers=who).json()["votes"] == []


def test_nobody_ranks_what_was_shown_to_somebody_else(campaign: ApiStudio) -> None:
    ada, bob = campaign.session("Ada"), campaign.session("Bob")
    assert answer(campaign, bob, campaign.assignments(ada)[0]["id"], order=[0, 1, 2]).status_code == 403
