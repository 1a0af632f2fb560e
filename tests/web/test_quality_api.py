"""The quality of votes through the API: for administrators, under names that nobody can trace."""

import csv
import io

from tests.web.api_studio import ADMIN, ApiStudio


def judge_all(studio: ApiStudio, handle: str, choice: str) -> str:
    """One annotator answers every pair the same way; returns their public id."""
    opened = studio.client.post("/api/v1/session", json={"handle": handle}).json()
    who = {"Authorization": f"Bearer {opened['token']}"}
    while assignments := studio.assignments(who, 4):
        for assignment in assignments:
            assert studio.vote(who, assignment["id"], choice).status_code == 201
    return str(opened["annotator"])


def test_only_administrators_see_it(shared_studio: ApiStudio) -> None:
    for path in ("/api/v1/quality", "/api/v1/quality/annotators.csv"):
        assert shared_studio.client.get(path).status_code == 401
        assert shared_studio.client.get(path, headers=shared_studio.session()).status_code == 403
        assert shared_studio.client.get(path, headers=ADMIN).status_code == 200


def test_it_tells_of_every_annotator_without_telling_who_they_are(studio: ApiStudio) -> None:
    handles = ["=cmd|' /C calc'!A0", "<b>Ada</b>", "Ben"]
    public_ids = [
        judge_all(studio, name, choice) for name, choice in zip(handles, ("left", "tie", "left"), strict=True)
    ]
    answer = studio.client.get("/api/v1/quality", headers=ADMIN)
    report = answer.json()
    assert report["votes"] == 36
    assert report["overlapping_pairs"] == report["pairs"] == 12
    assert report["alpha"]["low"] <= report["alpha"]["value"] <= report["alpha"]["high"]
    assert report["left"]["value"] == 1
    assert report["ties"]["trials"] == 36
    assert [row["votes"] for row in report["annotators"]] == [12, 12, 12]
    assert sum("side bias" in row["flags"] for row in report["annotators"]) == 2
    table = studio.client.get("/api/v1/quality/annotators.csv", headers=ADMIN)
    assert table.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(table.text)))
    assert [row["annotator"] for row in rows] == [row["name"] for row in report["annotators"]]
    for text in (answer.text, table.text):
        assert not any(secret in text for secret in (*handles, *public_ids))


def test_a_studio_without_votes_has_an_empty_report(shared_studio: ApiStudio) -> None:
    report = shared_studio.client.get("/api/v1/quality", headers=ADMIN).json()
    assert (report["votes"], report["alpha"], report["annotators"]) == (0, None, [])
    assert report["time_edges_ms"][0] == 0


def test_it_is_documented(shared_studio: ApiStudio) -> None:
    schema = shared_studio.client.get("/api/v1/openapi.json").json()
    answer = schema["paths"]["/api/v1/quality"]["get"]["responses"]["200"]
    assert answer["content"]["application/json"]["schema"]["$ref"].endswith("/QualityReport")
