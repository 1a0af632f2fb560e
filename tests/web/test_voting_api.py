import io
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from dmpo_app.domain.limits import MAX_HANDLE
from tests.web.api_studio import ApiStudio


def test_a_session_gives_an_annotator_and_a_token(studio: ApiStudio) -> None:
    answer = studio.client.post("/api/v1/session", json={"handle": "Ada"})
    assert answer.status_code == 200
    assert set(answer.json()) == {"annotator", "token"}


def test_two_sessions_of_one_name_are_two_annotators(studio: ApiStudio) -> None:
    first, second = (studio.client.post("/api/v1/session", json={"handle": "Ada"}).json() for _ in range(2))
    assert first["annotator"] != second["annotator"]


def test_a_handle_may_be_as_long_as_the_studio_stores_it_and_no_longer(studio: ApiStudio) -> None:
    longest = studio.client.post("/api/v1/session", json={"handle": "é" * MAX_HANDLE}).json()["annotator"]
    assert studio.services.store.annotators.get(longest).handle == "é" * MAX_HANDLE
    assert studio.client.post("/api/v1/session", json={"handle": "é" * (MAX_HANDLE + 1)}).status_code == 422


def test_a_handle_may_be_left_out(studio: ApiStudio) -> None:
    assert studio.client.post("/api/v1/session", json={}).status_code == 200


def test_assignments_have_the_documented_fields_and_stay_the_same_until_answered(studio: ApiStudio) -> None:
    who = studio.session()
    first = studio.assignments(who, 3)
    assert [set(item) for item in first] == [
        {"id", "prompt", "left", "right", "more", "question", "asks", "expires_at"}
    ] * 3
    assert [item["id"] for item in studio.assignments(who, 3)] == [item["id"] for item in first]


def test_assignments_say_what_the_campaign_asks_for_beside_a_choice(studio: ApiStudio) -> None:
    assert studio.assignments(studio.session())[0]["asks"] == []
    campaign = studio.with_campaign(asks=("strength", "comment"))
    assert campaign.assignments(campaign.session())[0]["asks"] == ["strength", "comment"]


def test_more_assignments_than_can_be_open_are_cut_not_refused(studio: ApiStudio) -> None:
    assert 0 < len(studio.assignments(studio.session(), 500)) <= 16


def test_assignments_without_a_token_or_with_a_forged_one_are_401(studio: ApiStudio) -> None:
    assert studio.client.get("/api/v1/assignments").status_code == 401
    for token in ("nonsense", "gAAAAABforged", "é" * 9):
        headers = {b"Authorization": f"Bearer {token}".encode()}
        assert studio.client.get("/api/v1/assignments", headers=headers).status_code == 401
    basic = studio.client.get("/api/v1/assignments", headers={"Authorization": "Basic QWRhOng="})
    assert basic.status_code == 401
    assert basic.headers["WWW-Authenticate"] == "Bearer"


def test_a_vote_is_201_the_same_again_200_and_another_choice_409(studio: ApiStudio) -> None:
    who = studio.session()
    [pair] = studio.assignments(who)
    first, again, other = (studio.vote(who, pair["id"], choice) for choice in ("left", "left", "right"))
    assert (first.status_code, again.status_code, other.status_code) == (201, 200, 409)
    assert first.json() == again.json() == {"vote": first.json()["vote"], "votes_until_round": 3}


def test_a_vote_sent_three_times_at_once_is_one_vote(studio: ApiStudio) -> None:
    who = studio.session()
    [pair] = studio.assignments(who)
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda _: studio.vote(who, pair["id"]), range(3)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 201]
    assert len({answer.json()["vote"] for answer in answers}) == 1
    assert studio.client.get("/api/v1/status").json()["votes"] == 1


@pytest.mark.parametrize("choice", ["left", "right", "tie"])
def test_a_preference_counts_towards_the_round(studio: ApiStudio, choice: str) -> None:
    who = studio.session()
    assert studio.vote(who, studio.assignments(who)[0]["id"], choice).json()["votes_until_round"] == 3


@pytest.mark.parametrize("choice", ["both_bad", "skip"])
def test_no_preference_is_kept_but_does_not_count(studio: ApiStudio, choice: str) -> None:
    who = studio.session()
    assert studio.vote(who, studio.assignments(who)[0]["id"], choice).json()["votes_until_round"] == 4
    assert studio.client.get("/api/v1/status").json()["votes"] == 1


def test_an_unknown_assignment_is_404(studio: ApiStudio) -> None:
    assert studio.vote(studio.session(), "no-such-assignment").status_code == 404


def test_someone_elses_assignment_is_403(studio: ApiStudio) -> None:
    [pair] = studio.assignments(studio.session())
    assert studio.vote(studio.session("Eve"), pair["id"]).status_code == 403


def test_an_expired_assignment_is_410_and_its_images_too(studio: ApiStudio) -> None:
    who = studio.session()
    [pair] = studio.assignments(who)
    studio.clock.forward(hours=2)
    assert studio.vote(who, pair["id"]).status_code == 410
    assert studio.client.get(pair["left"]).status_code == 410


def test_a_vote_without_a_token_is_401_and_not_counted(studio: ApiStudio) -> None:
    [pair] = studio.assignments(studio.session())
    assert studio.vote({}, pair["id"]).status_code == 401
    assert studio.client.get("/api/v1/status").json()["votes"] == 0


def test_undoing_opens_the_pair_again_and_twice_does_no_harm(studio: ApiStudio) -> None:
    who = studio.session()
    [pair] = studio.assignments(who)
    vote = studio.vote(who, pair["id"], "left").json()["vote"]
    answers = [studio.client.delete(f"/api/v1/votes/{vote}", headers=who) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json()["votes_until_round"] == 4
    assert studio.assignments(who)[0]["id"] == pair["id"]
    assert studio.vote(who, pair["id"], "right").status_code == 201


def test_only_ones_own_latest_vote_can_be_undone(studio: ApiStudio) -> None:
    who = studio.session()
    first, _ = (studio.vote(who, studio.assignments(who)[0]["id"]).json()["vote"] for _ in range(2))
    assert studio.client.delete(f"/api/v1/votes/{first}", headers=who).status_code == 409
    assert studio.client.delete(f"/api/v1/votes/{first}", headers=studio.session("Eve")).status_code == 403
    assert studio.client.delete("/api/v1/votes/999999", headers=who).status_code == 404
    assert studio.client.delete(f"/api/v1/votes/{first}").status_code == 401


def test_an_image_needs_no_header_and_says_nothing_of_how_it_was_made(studio: ApiStudio) -> None:
    [pair] = studio.assignments(studio.session())
    answer = studio.client.get(pair["left"])
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "image/png"
    assert answer.headers["Cache-Control"].startswith("private")
    assert "immutable" in answer.headers["Cache-Control"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    with Image.open(io.BytesIO(answer.content)) as image:
        image.load()
        assert image.info == {}
    assert pair["left"] != pair["right"]


def test_a_tampered_image_token_is_404_never_another_image(studio: ApiStudio) -> None:
    [pair] = studio.assignments(studio.session())
    prefix, token = pair["left"].rsplit("/", 1)
    flipped = [token[:i] + ("A" if token[i] != "A" else "B") + token[i + 1 :] for i in range(0, len(token), 7)]
    session = studio.session()["Authorization"].removeprefix("Bearer ")
    for forged in [*flipped, token[:-4], token + "A", "1", "..%2F..%2Fstudio.db", "%00", "%ff%fe", session]:
        assert studio.client.get(f"{prefix}/{forged}").status_code == 404, forged


def test_a_full_queue_of_writes_is_503_with_retry_after(studio: ApiStudio, monkeypatch: pytest.MonkeyPatch) -> None:
    from dmpo_app.errors import BusyError, StorageFullError

    who = studio.session()
    [pair] = studio.assignments(who)
    for error, status in ((BusyError("too many are waiting"), 503), (StorageFullError("the disk is full"), 507)):

        def fail(*_: object, error: Exception = error, **__: object) -> None:
            raise error

        with monkeypatch.context() as patched:
            patched.setattr(studio.services.store.votes, "submit", fail)
            answer = studio.vote(who, pair["id"])
        assert answer.status_code == status
        assert int(answer.headers["Retry-After"]) >= 1
    assert studio.vote(who, pair["id"]).status_code == 201


def test_a_fault_inside_is_500_without_its_words(
    studio: ApiStudio, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("secret detail in /home/ada/studio.db")

    monkeypatch.setattr(studio.services.labeling, "status", fail)
    answer = studio.client.get("/api/v1/status")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    assert "secret detail" in caplog.text
