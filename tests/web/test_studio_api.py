import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from dmpo_app.domain.effects import Effect, PromptChange, VersionComparison, VersionEffects
from dmpo_app.domain.lineage import ImageKind
from dmpo_app.errors import AdapterCorruptError
from tests.patience import PATIENCE, wait_until
from tests.web.api_studio import ADMIN, ApiStudio
from tests.web.studio_fakes import VERDICT, Rounds, scene_image


def test_status_needs_no_token_and_has_the_documented_fields(studio: ApiStudio) -> None:
    status = studio.client.get("/api/v1/status").json()
    documented = {"votes", "votes_until_round", "pool", "live_version", "round", "last_round", "last_error"}
    assert documented <= set(status)
    assert (status["votes"], status["votes_until_round"], status["live_version"]) == (0, 4, 0)
    assert status["round"] is None
    assert status["last_round"] is None


def test_status_follows_a_round_from_its_start_to_its_version(studio: ApiStudio) -> None:
    studio.vote_times(4)
    rounds = Rounds(studio.services.store, studio.services.base)
    round_id = rounds.start(steps=80)
    rounds.step(round_id, 20)
    running = studio.client.get("/api/v1/status").json()["round"]
    assert {"id", "status", "step", "steps", "loss", "margin", "accuracy"} <= set(running)
    assert (running["status"], running["step"], running["steps"]) == ("running", 20, 80)
    rounds.publish(round_id)
    status = studio.client.get("/api/v1/status").json()
    assert status["round"] is None
    assert status["live_version"] == 1
    assert (status["last_round"]["status"], status["last_round"]["reason"]) == ("published", None)
    assert status["votes_until_round"] == 4


def test_a_failed_round_says_why_without_naming_folders(studio: ApiStudio) -> None:
    studio.vote_times(4)
    rounds = Rounds(studio.services.store, studio.services.base)
    reason = "cannot read /home/ada/latents/x.safetensors: gone"
    studio.services.store.rounds.fail(rounds.start(), reason, token=rounds.token, final=True)
    status = studio.client.get("/api/v1/status").json()
    assert status["last_round"]["status"] == "failed"
    assert "x.safetensors" in status["last_round"]["reason"]
    assert "/home/ada" not in studio.client.get("/api/v1/status").text


def test_adapters_list_the_base_model_and_every_version(studio: ApiStudio) -> None:
    studio.vote_times(4)
    studio.publish(proven=False)
    answer = studio.client.get("/api/v1/adapters").json()
    base, first = answer["adapters"]
    assert answer["live_version"] == 1
    assert (base["version"], base["parent"], base["live"], base["votes"]) == (0, None, False, 0)
    assert (first["version"], first["parent"], first["live"], first["votes"]) == (1, 0, True, 4)
    assert first["proven"] is False
    assert first["metrics"]["held_out_accuracy"] == pytest.approx(0.81)
    assert base["verdict"] is None
    assert first["verdict"]["outcome"] == "better"
    assert first["verdict"]["sentence"] == VERDICT.sentence
    assert "it agrees with 71 of 96 votes it has not seen" in VERDICT.sentence.lower()
    assert "refused about 9 times in 10" in first["verdict"]["caution"]


def test_a_version_can_be_downloaded_and_the_base_model_cannot(studio: ApiStudio) -> None:
    studio.vote_times(4)
    studio.publish()
    answer = studio.client.get("/api/v1/adapters/1/download")
    assert answer.status_code == 200
    assert answer.content == b"weights of version 1"
    assert "dmpo-version-1.safetensors" in answer.headers["Content-Disposition"]
    assert studio.client.get("/api/v1/adapters/0/download").status_code == 404
    assert studio.client.get("/api/v1/adapters/7/download").status_code == 404


def test_an_administrator_rolls_back_to_any_version(studio: ApiStudio) -> None:
    studio.vote_times(4)
    studio.publish()
    answer = studio.client.post("/api/v1/adapters/0/live", headers=ADMIN)
    assert (answer.status_code, answer.json()) == (200, {"live_version": 0})
    assert studio.client.get("/api/v1/status").json()["live_version"] == 0
    assert studio.client.post("/api/v1/adapters/1/live", headers=ADMIN).json() == {"live_version": 1}
    assert studio.client.post("/api/v1/adapters/9/live", headers=ADMIN).status_code == 404


@pytest.mark.parametrize("path", ["/api/v1/adapters/0/live", "/api/v1/rounds"])
def test_administration_is_401_without_a_token_and_403_with_a_wrong_one(studio: ApiStudio, path: str) -> None:
    assert studio.client.post(path).status_code == 401
    assert studio.client.post(path, headers={"Authorization": "Bearer wrong"}).status_code == 403
    assert studio.client.post(path, headers=studio.session()).status_code == 403
    assert studio.client.get("/api/v1/status").json()["round"] is None


def test_train_now_queues_a_round_once_and_needs_votes(studio: ApiStudio) -> None:
    assert studio.client.post("/api/v1/rounds", headers=ADMIN).status_code == 409
    studio.vote_times(2)
    first = studio.client.post("/api/v1/rounds", headers=ADMIN)
    assert (first.status_code, first.json()["status"]) == (202, "queued")
    assert studio.client.post("/api/v1/rounds", headers=ADMIN).status_code == 409
    assert studio.client.get("/api/v1/status").json()["round"]["status"] == "queued"


def test_the_curves_of_a_round_can_be_followed(studio: ApiStudio) -> None:
    studio.vote_times(4)
    studio.publish()
    [done] = studio.client.get("/api/v1/rounds").json()["rounds"]
    points = studio.client.get(f"/api/v1/rounds/{done['id']}/progress").json()["points"]
    assert [point["step"] for point in points] == [40]
    assert studio.client.get("/api/v1/rounds/99/progress").status_code == 404


def test_a_rounds_health_can_be_followed_and_why_it_ended_early(studio: ApiStudio) -> None:
    studio.vote_times(4)
    rounds = Rounds(studio.services.store, studio.services.base)
    round_id = rounds.start()
    rounds.step(round_id, 19, health={"chosen_gain": -0.01})
    rounds.step(round_id, 20, health={"chosen_gain": -0.02, "contrast": 3.1})
    rounds.publish(round_id, reason="stopped at step 20: contrast")
    points = studio.client.get(f"/api/v1/rounds/{round_id}/progress").json()["points"]
    assert [point["health"] for point in points] == [{"chosen_gain": -0.01}, {"chosen_gain": -0.02, "contrast": 3.1}]
    [done] = studio.client.get("/api/v1/rounds").json()["rounds"]
    assert (done["status"], done["reason"]) == ("published", "stopped at step 20: contrast")
    assert studio.client.get("/api/v1/status").json()["last_round"]["reason"] == "stopped at step 20: contrast"


def test_history_counts_votes_by_hour(studio: ApiStudio) -> None:
    studio.vote_times(3)
    studio.clock.forward(hours=1)
    studio.vote_times(2)
    assert [hour["votes"] for hour in studio.client.get("/api/v1/history").json()["hours"]] == [3, 2]


def test_the_contact_sheet_has_a_row_a_version_with_the_same_columns(studio: ApiStudio) -> None:
    store, base = studio.services.store, studio.services.base
    studio.vote_times(4)
    studio.publish()
    for version in (1, 0):
        for seed in (2, 1):
            store.images.add(base, scene_image("a red boat", seed, version, size=16), ImageKind.CONTACT_SHEET)
    rows = studio.client.get("/api/v1/contact-sheet").json()["rows"]
    assert [row["version"] for row in rows] == [0, 1]
    columns = [[(image["prompt"], image["seed"]) for image in row["images"]] for row in rows]
    assert columns[0] == columns[1] == [("a red boat", 1), ("a red boat", 2)]
    assert studio.client.get(rows[0]["images"][0]["url"]).status_code == 200


def test_render_gives_one_image_a_version_in_the_order_asked(studio: ApiStudio) -> None:
    studio.vote_times(4)
    studio.publish()
    answer = studio.client.post("/api/v1/render", json={"prompt": "a red cat", "seed": 3, "versions": [1, 0]})
    assert answer.status_code == 200
    images = answer.json()["images"]
    assert [image["version"] for image in images] == [1, 0]
    assert [image["withheld"] for image in images] == [False, False]
    assert studio.client.get(images[0]["url"]).content != studio.client.get(images[1]["url"]).content


def test_render_hands_every_wish_to_the_renderer(studio: ApiStudio) -> None:
    body = {"prompt": " a cat ", "seed": 2**31 - 1, "versions": [0], "strength": 1.5, "steps": 7, "guidance": 0}
    assert studio.client.post("/api/v1/render", json=body).status_code == 200
    [asked] = studio.renderer.requests
    assert (asked.prompt, asked.seed, asked.versions) == ("a cat", 2**31 - 1, (0,))
    assert (asked.strength, asked.num_steps, asked.guidance) == (1.5, 7, 0.0)


def test_render_of_an_unknown_version_is_404(studio: ApiStudio) -> None:
    answer = studio.client.post("/api/v1/render", json={"prompt": "a cat", "seed": 1, "versions": [0, 5]})
    assert answer.status_code == 404


def test_render_is_503_when_the_queue_is_full_or_the_model_is_missing(studio: ApiStudio) -> None:
    body = {"prompt": "a cat", "seed": 1, "versions": [0]}
    studio.renderer.full = True
    busy = studio.client.post("/api/v1/render", json=body)
    assert (busy.status_code, busy.json()["code"]) == (503, "busy")
    assert int(busy.headers["Retry-After"]) >= 1
    studio.renderer.failed = "the model in /home/ada/model is incomplete"
    missing = studio.client.post("/api/v1/render", json=body)
    assert (missing.status_code, missing.json()["code"]) == (503, "not_ready")
    assert "/home/ada" not in missing.text


def test_while_the_queue_is_full_renders_are_turned_away_unread_and_nothing_else_is(studio: ApiStudio) -> None:
    studio.renderer.waiting = studio.services.settings.render.queue_size
    for body in (b'{"prompt": "a cat", "seed": 1, "versions": [0]}', b"not even JSON"):
        busy = studio.client.post("/api/v1/render", content=body, headers={"Content-Type": "application/json"})
        assert (busy.status_code, busy.json()["code"]) == (503, "busy")
        assert int(busy.headers["Retry-After"]) >= 1
        assert busy.headers["X-Content-Type-Options"] == "nosniff"
    assert studio.client.get("/api/v1/render").status_code == 405
    who = studio.session()
    assert studio.vote(who, studio.assignments(who)[0]["id"]).status_code == 201
    studio.renderer.waiting -= 1
    assert studio.client.post("/api/v1/render", content=b"not even JSON").status_code == 422


def test_render_of_a_damaged_version_is_409_and_keeps_its_path_to_itself(studio: ApiStudio) -> None:
    studio.renderer.error = AdapterCorruptError("/home/ada/adapters/1/weights: sha256 differs")
    answer = studio.client.post("/api/v1/render", json={"prompt": "a cat", "seed": 1, "versions": [0]})
    assert answer.status_code == 409
    assert "/home" not in answer.text


def test_a_render_that_takes_too_long_is_503(studio: ApiStudio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dmpo_app.web.routes.studio_routes.RENDER_TIMEOUT_SECONDS", 0.05)
    studio.renderer.hold.clear()
    answer = studio.client.post("/api/v1/render", json={"prompt": "a cat", "seed": 1, "versions": [0]})
    studio.renderer.hold.set()
    assert answer.status_code == 503


def test_a_flood_of_renders_does_not_slow_a_vote(studio: ApiStudio) -> None:
    who = studio.session()
    pairs = studio.assignments(who, 8)
    studio.renderer.hold.clear()
    body = {"prompt": "a cat", "seed": 1, "versions": [0]}
    with ThreadPoolExecutor(45) as pool:
        renders = [pool.submit(studio.client.post, "/api/v1/render", json=body) for _ in range(45)]
        wait_until(lambda: len(studio.renderer.requests) == 45, "all 45 wait for the renderer")
        began = time.perf_counter()
        statuses = [studio.vote(who, pair["id"]).status_code for pair in pairs]
        took = time.perf_counter() - began
        studio.renderer.hold.set()
        assert {render.result().status_code for render in renders} == {200}
    assert statuses == [201] * 8
    assert took < PATIENCE / 4  # with 45 of them waiting in the framework's 40 threads it would never end


def test_every_answer_carries_the_security_headers(studio: ApiStudio) -> None:
    for path in ("/api/v1/status", "/api/v1/assignments", "/api/v1/images/x", "/api/v1/adapters/9/download", "/docs"):
        headers = studio.client.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "access-control-allow-origin" not in headers


def test_every_error_has_one_shape(studio: ApiStudio) -> None:
    for answer in (
        studio.client.get("/api/v1/assignments"),
        studio.client.get("/api/v1/rounds/99/progress"),
        studio.client.post("/api/v1/votes", content=b"{", headers=studio.session()),
    ):
        assert {"detail", "code"} <= set(answer.json())


def test_openapi_documents_every_route_with_its_errors(studio: ApiStudio) -> None:
    for path in ("/openapi.json", "/api/v1/openapi.json"):
        schema = studio.client.get(path).json()
        assert {"201", "200", "401", "403", "404", "409", "410", "422"} <= set(
            schema["paths"]["/api/v1/votes"]["post"]["responses"]
        )
        wanted = {"session", "assignments", "votes", "status", "adapters", "render", "rounds"}
        assert {f"/api/v1/{name}" for name in wanted} <= set(schema["paths"])
        assert schema["components"]["schemas"]["VoteBody"]["examples"]


def test_no_request_can_name_an_objective(studio: ApiStudio) -> None:
    """Naming one may import a module: that is for who runs the studio, see `objective.registry`."""
    schema = studio.client.get("/api/v1/openapi.json").json()
    bodies = json.dumps(
        [operation.get("requestBody") for path in schema["paths"].values() for operation in path.values()]
    )
    bodies += json.dumps([model for name, model in schema["components"]["schemas"].items() if name.endswith("Body")])
    assert "VoteBody" in bodies
    assert "objective" not in bodies
    studio.vote_times(4)
    studio.client.post("/api/v1/rounds", json={"objective": "os:getcwd", "settings": "os:getcwd"}, headers=ADMIN)
    [requested] = studio.services.store.rounds.list(studio.services.base)
    assert "os:getcwd" not in str(requested)


def test_the_documentation_page_loads_nothing_from_elsewhere(studio: ApiStudio) -> None:
    page = studio.client.get("/docs").text
    assert "/api/v1/votes" in page
    assert "src=" not in page
    assert "https://" not in page


def test_what_a_version_learned_is_told_in_sentences_and_in_numbers_with_the_images(studio: ApiStudio) -> None:
    studio.vote_times(4)
    version = studio.publish()
    store, base = studio.services.store, studio.services.base
    image, other = (store.images.add(base, scene_image("a fox", 1, v, size=8), ImageKind.JUDGING) for v in (version, 0))
    effect = Effect("brightness", "darker", True, 0.001, 31, -9.1, -10.0, -8.2, "percent", -0.7)
    change = PromptChange("a fox", 12.5, 1, image.id, other.id)
    sentence = "Compared with the base model: darker in 31 of 32 images, by 9.1 %; nothing else beyond chance."
    effects = VersionEffects((effect,), (change,), 32, 16, 4.0, sentence)
    store.effects.put(base, VersionComparison(version, 0, effects))

    _, first = studio.client.get("/api/v1/adapters").json()["adapters"]
    assert first["learned"] == [sentence]
    answer = studio.client.get(f"/api/v1/adapters/{version}/effects").json()
    assert (answer["held_out_agreeing"], answer["held_out_votes"]) == (71, 96)
    (comparison,) = answer["comparisons"]
    (measure,) = comparison["measures"]
    assert (comparison["other_version"], measure["words"], measure["size"]) == (0, "darker", -9.1)
    (changed,) = comparison["prompts_changed_most"]
    for url, made in ((changed["url"], image), (changed["other_url"], other)):
        assert studio.client.get(url).content == store.files.read_image(made.sha256)
    assert studio.client.get("/api/v1/adapters/0/effects").status_code == 404
