"""Gold pairs, as administrators mark them."""

from tests.web.api_studio import ADMIN, ApiStudio


def test_an_administrator_marks_gold_pairs_and_nobody_else(studio: ApiStudio) -> None:
    client = studio.client
    assert client.put("/api/v1/gold/1", json={"answer": "a"}).status_code == 401
    assert client.get("/api/v1/gold", headers=studio.session()).status_code == 403
    assert client.put("/api/v1/gold/1", json={"answer": "a"}, headers=ADMIN).json()["answer"] == "a"
    (listed,) = client.get("/api/v1/gold", headers=ADMIN).json()["gold"]
    assert (listed["pair"], listed["answer"]) == (1, "a")
    assert [client.get(url).status_code for url in listed["images"]] == [200, 200]
    who = studio.session()
    shown = studio.with_campaign(gold_rate=0.5).assignments(who, 12)
    assert all(set(one) == {"id", "prompt", "left", "right", "question", "asks", "expires_at", "more"} for one in shown)
    assert client.delete("/api/v1/gold/1", headers=ADMIN).status_code == 204
    assert client.get("/api/v1/gold", headers=ADMIN).json() == {"gold": []}


def test_what_is_no_pair_or_no_answer_is_refused(studio: ApiStudio) -> None:
    assert studio.client.put("/api/v1/gold/999", json={"answer": "a"}, headers=ADMIN).status_code == 404
    assert studio.client.put("/api/v1/gold/1", json={"answer": "skip"}, headers=ADMIN).status_code == 422
