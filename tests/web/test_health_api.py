"""A studio seen from outside: damage to its files, alive and ready, metrics."""

import errno
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from dmpo_app.errors import BackupUnreachableError, BusyError
from tests.web.api_studio import ADMIN, ApiStudio, client_of

HOW = ("missing", "half", "html", "empty")


def image_path(studio: ApiStudio, address: str) -> Path:
    token = address.rsplit("/", 1)[1]
    return studio.services.store.files.image_path(studio.services.labeling.open_image(token).sha256)


def damage(path: Path, how: str) -> bytes:
    content = path.read_bytes()
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes({"half": content[: len(content) // 2], "html": b"<html></html>", "empty": b""}[how])
    return content


@pytest.mark.parametrize("how", HOW)
def test_a_damaged_image_is_gone_and_its_pair_is_shown_to_nobody(studio: ApiStudio, how: str) -> None:
    who = studio.session()
    [shown] = studio.assignments(who)
    path = image_path(studio, shown["right"])
    content = damage(path, how)
    answer = studio.client.get(shown["right"])
    assert (answer.status_code, answer.json()["code"]) == (410, "damaged")
    assert path.stem[:12] not in answer.text
    assert answer.headers["content-type"] == "application/json"
    assert studio.vote(who, shown["id"]).status_code == 410
    others = studio.assignments(studio.session("Ben"), 16)
    assert len(others) == 11
    listed = studio.client.get("/api/v1/damage", headers=ADMIN).json()
    assert (listed["out_of_pool"], listed["pairs"][0]["prompt"]) == (1, shown["prompt"])
    path.write_bytes(content)
    studio.services.store.damage.recheck(limit=9)
    assert len(studio.assignments(studio.session("Cem"), 16)) == 12
    assert studio.client.get("/api/v1/damage", headers=ADMIN).json() == {"out_of_pool": 0, "pairs": []}


def test_damage_is_for_administrators(studio: ApiStudio) -> None:
    assert studio.client.get("/api/v1/damage").status_code == 401
    assert studio.client.get("/api/v1/damage", headers=studio.session()).status_code == 403


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO])
def test_an_image_that_cannot_be_read_for_now_is_asked_for_again(
    studio: ApiStudio, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    who = studio.session()
    [shown] = studio.assignments(who)

    def fails(path: Path) -> bytes:
        raise OSError(number, os.strerror(number), str(path))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", fails)
        answer = studio.client.get(shown["left"])
    assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (503, "exhausted", "5")
    assert studio.client.get(shown["left"]).status_code == 200
    assert studio.client.get("/api/v1/damage", headers=ADMIN).json()["out_of_pool"] == 0


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EMFILE, "Too many open files"),
        OSError(errno.ENFILE, "Too many open files in system"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        MemoryError(),
        RuntimeError("can't start new thread"),
    ],
    ids=lambda error: f"{type(error).__name__} {getattr(error, 'errno', '')}",
)
def test_what_the_system_lacks_for_now_is_503_on_any_route_and_a_bug_stays_500(
    studio: ApiStudio, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    raised: list[Exception] = [error]

    def fails(*_: object, **__: object) -> None:
        raise raised[0]

    monkeypatch.setattr(type(studio.services.store.votes), "count", fails)
    monkeypatch.setattr(type(studio.services.store.reports), "list", fails)
    for address in ("/api/v1/status", "/api/v1/reports"):
        answer = studio.client.get(address, headers=ADMIN)
        assert (answer.status_code, answer.json()["code"]) == (503, "exhausted")
        assert int(answer.headers["retry-after"]) > 0
    raised[0] = RuntimeError("a bug")
    answer = studio.client.get("/api/v1/status")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")


def test_alive_needs_no_store_and_ready_does(studio: ApiStudio, monkeypatch: pytest.MonkeyPatch) -> None:
    ready = studio.client.get("/readyz")
    assert ready.status_code == 200
    assert ready.json() == {
        "ready": True, "store": "ok", "votes": "taken", "pairs": 12, "renderer": "ready", "trainer": "running"
    }  # fmt: skip

    def busy(*_: object, **__: object) -> None:
        raise BusyError("40 readers are at work")

    with monkeypatch.context() as patched:
        patched.setattr(type(studio.services.store.pairs), "count_unjudged", busy)
        assert studio.client.get("/healthz").json() == {"status": "alive"}
        failed = studio.client.get("/readyz")
    assert (failed.status_code, failed.json()["store"], failed.json()["votes"]) == (503, "failed", "refused")


def test_a_model_that_failed_leaves_a_studio_ready_and_a_backup_that_refuses_votes_does_not(studio: ApiStudio) -> None:
    studio.renderer.failed = "the folder is missing"
    answer = studio.client.get("/readyz")
    assert (answer.status_code, answer.json()["renderer"]) == (200, "failed")

    class OutOfReach:
        is_synchronous = False

        def check_writable(self) -> None:
            raise BackupUnreachableError("out of reach")

        def wait_until_durable(self) -> None:
            raise BackupUnreachableError("out of reach")

    studio.services.labeling._durability = OutOfReach()
    answer = studio.client.get("/readyz")
    assert (answer.status_code, answer.json()["store"], answer.json()["votes"]) == (503, "ok", "refused")


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Every sample by its name and the values of its labels."""
    families = text_string_to_metric_families(text)
    return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}


def test_metrics_tell_of_votes_requests_and_the_state(studio: ApiStudio) -> None:
    who = studio.session()
    shown = studio.assignments(who, 3)
    studio.vote(who, shown[0]["id"])
    studio.vote(who, shown[0]["id"])
    studio.vote(who, shown[0]["id"], "right")
    studio.vote(who, "there-is-no-such")
    studio.client.get("/api/v1/rounds/77/progress")
    studio.client.get("/api/v1/rounds/78/progress")
    studio.client.get("/api/v1/x/" + "y" * 50)
    found = samples(studio.client.get("/metrics").text)
    assert [found["dmpo_votes_total", one] for one in ("new", "repeated", "conflict", "not_found")] == [1, 1, 1, 1]
    assert found["dmpo_requests_total", "GET", "/api/v1/rounds/{round_id}/progress", "404"] == 2
    assert found["dmpo_requests_total", "GET", "other", "404"] == 1
    assert found["dmpo_request_seconds_count", "POST", "/api/v1/votes"] == 4
    assert found[("dmpo_open_assignments",)] == 2
    assert found[("dmpo_pool_pairs",)] == 9
    assert found[("dmpo_live_votes",)] == 1
    assert (found[("dmpo_store_up",)], found[("dmpo_trainer_up",)], found[("dmpo_damaged_pairs",)]) == (1, 1, 0)
    assert found["dmpo_renderer_phase", "ready"] == 1
    assert not any("y" * 20 in label for key in found for label in key), "callers do not name series"


def test_metrics_say_that_the_store_is_down(studio: ApiStudio, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*_: object, **__: object) -> None:
        raise BusyError("40 readers are at work")

    monkeypatch.setattr(type(studio.services.store.votes), "count", busy)
    found = samples(studio.client.get("/metrics").text)
    assert found[("dmpo_store_up",)] == 0
    assert ("dmpo_live_votes",) not in found


def test_rounds_are_counted_by_their_outcome(studio: ApiStudio) -> None:
    studio.vote_times(4)
    studio.publish()
    found = samples(studio.client.get("/metrics").text)
    assert found["dmpo_rounds", "published"] == 1
    assert found[("dmpo_live_version",)] == 1


def test_in_public_mode_metrics_are_for_holders_of_their_token_alone(studio: ApiStudio) -> None:
    public = studio.with_settings(public=True)
    answer = public.get("/metrics")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    with_token = studio.with_settings(public=True, metrics_token=SecretStr("scrape-me-every-15-s"))
    assert with_token.get("/metrics").status_code == 401
    for wrong in ("scrape m", "scrape mee", "scrape mé", ADMIN["Authorization"].removeprefix("Bearer ")):
        assert with_token.get("/metrics", headers={b"Authorization": f"Bearer {wrong}".encode()}).status_code == 401
    assert with_token.get("/metrics", headers={"Authorization": "Bearer scrape-me-every-15-s"}).status_code == 200
    private = studio.with_settings(metrics_token=SecretStr("scrape-me-every-15-s"))
    assert private.get("/metrics").status_code == 401
    for client in (public, with_token):
        assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200


def test_two_studios_in_one_process_count_for_themselves(studio: ApiStudio) -> None:
    other = client_of(replace(studio.services))
    studio.client.get("/api/v1/status")
    assert ("dmpo_requests_total", "GET", "/api/v1/status", "200") not in samples(other.get("/metrics").text)


def test_metrics_while_many_ask_count_every_request(studio: ApiStudio) -> None:
    threads = [threading.Thread(target=lambda: [studio.client.get("/healthz") for _ in range(20)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert samples(studio.client.get("/metrics").text)["dmpo_requests_total", "GET", "/healthz", "200"] == 80


def test_status_tells_of_a_disk_that_is_nearly_full(studio: ApiStudio, monkeypatch: pytest.MonkeyPatch) -> None:
    assert studio.client.get("/api/v1/status").json()["storage"] is None
    with monkeypatch.context() as patched:
        patched.setattr(type(studio.services.store), "storage_problem", lambda _: "3 MiB are free")
        assert studio.client.get("/api/v1/status").json()["storage"] == "3 MiB are free"
    assert studio.client.get("/api/v1/status").json()["storage"] is None
