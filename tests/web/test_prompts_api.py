"""Prompts through the JSON API: who may do what, uploads, suggestions, proposals."""

from typing import Any

import pytest

from dmpo_app.settings.sections import LabelingSettings
from dmpo_app.web.routes.prompt_routes import MAX_UPLOAD_BYTES
from tests.web.api_studio import ADMIN, ApiStudio


def upload(studio: ApiStudio, content: bytes, **parameters: Any) -> Any:
    return studio.client.post("/api/v1/prompts/import", params=parameters, content=content, headers=ADMIN)


def listed(studio: ApiStudio, **parameters: Any) -> Any:
    answer = studio.client.get("/api/v1/prompts", params=parameters, headers=ADMIN)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_only_administrators_see_import_and_change_prompts(studio: ApiStudio) -> None:
    body = {"prompts": [1], "act": "retire"}
    for headers, status in (({}, 401), (studio.session(), 403)):
        assert studio.client.get("/api/v1/prompts", headers=headers).status_code == status
        assert studio.client.post("/api/v1/prompts/edit", json=body, headers=headers).status_code == status
        answer = studio.client.post("/api/v1/prompts/import", content=b"a fox", headers=headers)
        assert answer.status_code == status
    assert listed(studio)["training"] == 12


def test_an_upload_is_previewed_taken_in_once_and_its_refusals_are_listed(studio: ApiStudio) -> None:
    studio.services.store.prompts.ensure(["an owl at night"], held_out=True)
    content = "Prompt\tCategory\na violin\tThings\nan owl, at night!\tAnimals\n\u0007\tx\na violin\tx\n".encode()
    preview = upload(studio, content, format="tsv", dry_run=True, tag="New ones").json()
    assert listed(studio, search="violin")["total"] == 0
    taken = upload(studio, content, format="tsv", tag="New ones").json()
    assert taken == {**preview, "dry_run": False}
    assert (taken["new"], taken["known"], [row["row"] for row in taken["rows"]]) == (1, 0, [2, 3, 4])
    assert taken["refused"] == {
        "control characters": 1, "duplicate": 1, "near duplicate of a held-out prompt": 1
    }  # fmt: skip
    assert upload(studio, content, format="tsv").json()["known"] == 1
    [prompt] = listed(studio, tag="new-ones")["prompts"]
    assert (prompt["text"], prompt["tags"], prompt["source"]) == ("a violin", ["new-ones", "things"], "import")


@pytest.mark.parametrize(
    ("content", "parameters", "status", "words"),
    [
        (b"x" * (MAX_UPLOAD_BYTES + 1), {}, 413, "4096 KiB"),
        (b"\xff\xfe\x00", {}, 422, "UTF-8"),
        (b"PAR1", {"format": "parquet"}, 422, "format"),
        (b"id\n1\n", {"format": "csv"}, 422, "none of the columns"),
        (b"[" * 60_000, {"format": "json"}, 422, "not JSON"),
        (b"a fox", {"held_out_share": "nan"}, 422, "held_out_share"),
        (b"a fox", {"held_out_share": 2}, 422, "held_out_share"),
        (b"a fox", {"tag": "!"}, 422, "no tag"),
        (b"a fox", {"column": "prompt"}, 422, "no column"),
    ],
)
def test_an_upload_that_cannot_be_taken_is_refused(
    shared_studio: ApiStudio, content: bytes, parameters: dict[str, Any], status: int, words: str
) -> None:
    answer = upload(shared_studio, content, **parameters)
    assert answer.status_code == status, answer.text
    assert words in answer.json()["detail"]
    assert listed(shared_studio, search="fox")["total"] == 0


def test_an_upload_may_be_larger_than_other_bodies(studio: ApiStudio) -> None:
    content = "\n".join(f"number {n} is about the letter {chr(97 + n % 26)}{n}" for n in range(3000)).encode()
    assert len(content) > 70_000
    assert upload(studio, content, dry_run=True, held_out_share=0.5).json()["new"] == 3000


def test_prompts_are_paged_retired_tagged_and_moved(studio: ApiStudio) -> None:
    first = listed(studio, limit=5)
    rest = listed(studio, limit=50, before=first["prompts"][-1]["id"])
    assert (len(first["prompts"]), first["more"], len(rest["prompts"]), rest["more"]) == (5, True, 7, False)
    with_pairs = first["prompts"][0]
    assert (with_pairs["pairs"], with_pairs["votes"]) == (1, 0)
    upload(studio, b"a violin\na trumpet")
    [violin] = [prompt["id"] for prompt in listed(studio, search="vio")["prompts"]]

    def edit(**body: Any) -> Any:
        return studio.client.post("/api/v1/prompts/edit", json=body, headers=ADMIN)

    assert edit(prompts=[violin], act="tag", tag="Music").json() == {"done": 1, "refused": []}
    assert edit(prompts=[violin], act="retire").status_code == 200
    assert [prompt["text"] for prompt in listed(studio, tag="Music", retired=True)["prompts"]] == ["a violin"]
    moved = edit(prompts=[violin, with_pairs["id"]], act="hold_out").json()
    assert (moved["done"], [row["reason"] for row in moved["refused"]]) == (1, ["has pairs already"])
    assert listed(studio, held_out=True)["total"] == 1
    assert edit(prompts=[10**9], act="retire").status_code == 404
    for body in ({"prompts": [], "act": "retire"}, {"prompts": [1], "act": "tag"}, {"prompts": [1], "act": "burn"}):
        assert edit(**body).status_code == 422


def test_suggestions_need_no_token_and_say_what_was_never_trained_on(studio: ApiStudio) -> None:
    studio.services.store.prompts.ensure(["an octopus at night"], held_out=True)
    answer = studio.client.get("/api/v1/prompts/suggestions", params={"like": "octo"})
    assert answer.json() == {"suggestions": [{"text": "an octopus at night", "held_out": True}]}
    assert studio.client.get("/api/v1/prompts/suggestions", params={"count": 0}).status_code == 422


def test_annotators_add_prompts_where_the_campaign_allows_it(studio: ApiStudio) -> None:
    who = studio.session()
    body = {"text": "  a violin\u00a0in snow "}
    assert studio.client.post("/api/v1/prompts", json=body, headers=who).status_code == 403
    client = studio.with_settings(labeling=LabelingSettings(free_prompts=True, free_prompts_per_day=2))
    assert client.post("/api/v1/prompts", json=body).status_code == 401
    answer = client.post("/api/v1/prompts", json=body, headers=who)
    assert (answer.status_code, answer.json()) == (201, {"text": "a violin in snow", "created": True})
    assert client.post("/api/v1/prompts", json=body, headers=who).status_code == 200
    for text in ("", "a\x07b", "x" * 301, "\u202eyo"):
        assert client.post("/api/v1/prompts", json={"text": text}, headers=who).status_code == 422, text
    assert client.post("/api/v1/prompts", json={"text": "a trumpet"}, headers=who).status_code == 201
    refused = client.post("/api/v1/prompts", json={"text": "a drum"}, headers=who)
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many")
    assert "Retry-After" in refused.headers
    assert [prompt["source"] for prompt in listed(studio)["prompts"][:2]] == ["annotator", "annotator"]


def test_what_administrators_do_with_prompts_is_on_record(studio: ApiStudio) -> None:
    assert upload(studio, b"a violin\na cello\n", tag="Strings").status_code == 200
    ids = sorted(prompt["id"] for prompt in listed(studio, tag="strings")["prompts"])
    both = f"prompts {ids[0]}-{ids[1]}"
    acts: list[dict[str, Any]] = [
        {"act": "tag", "tag": "Loud"}, {"act": "tag", "tag": "Loud"}, {"act": "untag", "tag": "Loud"},
        {"act": "retire"}, {"act": "retire"}, {"act": "restore"}, {"act": "hold_out"}, {"act": "train"},
    ]  # fmt: skip
    for act in acts:
        answer = studio.client.post("/api/v1/prompts/edit", json={"prompts": ids, **act}, headers=ADMIN)
        assert answer.json() == {"done": 2, "refused": []}
    upload(studio, b"a violin\na cello\n", tag="Strings")  # changes nothing
    log = studio.client.get("/api/v1/audit", headers=ADMIN).json()["acts"]
    assert {act["actor"] for act in log} == {"administrator"}
    assert [(act["act"], act["subject"]) for act in log[::-1]] == [
        ("import_prompts", f"2 prompts, 0 of them held out: {ids[0]}-{ids[1]}"),
        ("tag_prompts", f"loud: {both}"),
        ("untag_prompts", f"loud: {both}"),
        ("retire_prompts", both),
        ("restore_prompts", both),
        ("hold_out_prompts", both),
        ("train_prompts", both),
    ]


def test_an_act_that_fails_is_not_on_record(studio: ApiStudio) -> None:
    body = {"prompts": [1, 999], "act": "retire"}
    assert studio.client.post("/api/v1/prompts/edit", json=body, headers=ADMIN).status_code == 404
    assert studio.client.get("/api/v1/audit", headers=ADMIN).json()["acts"] == []


def test_a_prompt_of_one_s_own_needs_the_agreement_that_votes_need(studio: ApiStudio) -> None:
    campaign = studio.with_campaign(free_prompts=True, consent="We keep your prompts.")
    who = campaign.session()
    refused = campaign.client.post("/api/v1/prompts", json={"text": "a violin at dusk"}, headers=who)
    assert (refused.status_code, refused.json()["code"]) == (403, "consent_needed")
    sha256 = campaign.client.get("/api/v1/consent").json()["sha256"]
    campaign.client.post("/api/v1/consent", json={"sha256": sha256}, headers=who)
    taken = campaign.client.post("/api/v1/prompts", json={"text": "a violin at dusk"}, headers=who)
    assert taken.status_code == 201
