"""Human studies, as administrators run them and people answer them."""

from tests.web.api_studio import ADMIN, ApiStudio
from tests.web.test_duels_api import add_duels, asked_for_duels

PLAN = {"name": "1 against the base", "version_a": 1, "version_b": 0, "questions": ["overall", "fit"], "raters": 2}


def test_a_study_is_answered_and_summed_up(studio: ApiStudio) -> None:
    client = studio.client
    studio.publish()
    created = client.post("/api/v1/studies", json={**PLAN, "pairs": 2}, headers=ADMIN).json()
    address = f"/api/v1/studies/{created['id']}"
    add_duels(studio, 2)
    assert client.get(address, headers=ADMIN).json()["results"] == []
    for person in ("Ada", "Ben"):
        who = studio.session(person)
        items = asked_for_duels(studio, who, 8)["assignments"]
        assert [item["question"] for item in items] == ["overall", "fit", "overall", "fit"]
        for item in items:
            assert studio.vote(who, item["id"], "tie").status_code == 201
    answer = client.get(address, headers=ADMIN).json()
    assert (answer["study"]["made"], answer["study"]["answers"]) == (2, 8)
    assert [(one["question"], one["ties"], one["win_rate"]) for one in answer["results"]] == [
        ("overall", 2, None),
        ("fit", 2, None),
    ]
    table = client.get(f"{address}/table", headers=ADMIN)
    assert table.headers["content-type"] == "text/csv; charset=utf-8"
    assert len(table.text.splitlines()) == 1 + 4
    assert client.post(f"{address}/close", headers=ADMIN).json()["closed_at"] is not None
    (listed,) = client.get("/api/v1/studies", headers=ADMIN).json()["studies"]
    assert listed["name"] == "1 against the base"


def test_studies_are_for_administrators_and_of_versions_there_are(studio: ApiStudio) -> None:
    client = studio.client
    for method, path in (("GET", ""), ("POST", ""), ("GET", "/1"), ("POST", "/1/close"), ("GET", "/1/table")):
        assert client.request(method, f"/api/v1/studies{path}", json={**PLAN, "pairs": 2}).status_code == 401
    refused = client.post("/api/v1/studies", json={**PLAN, "pairs": 2}, headers=ADMIN)
    assert refused.status_code == 404
    assert "there is no version 1" in refused.json()["detail"]
    assert client.get("/api/v1/studies/5", headers=ADMIN).status_code == 404
    assert client.post("/api/v1/studies", json={**PLAN, "pairs": 0}, headers=ADMIN).status_code == 422
