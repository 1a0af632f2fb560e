"""A studio as on a ZeroGPU Space, in a process of its own; only what `import spaces` finds is a stand-in."""

import json
import os
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.hosting.zerogpu.stand_in import spaces
from tests.preloaded_studio import PreloadedStudio
from tests.web.test_served_page import page_config


def lend(client: httpx.Client) -> list[str]:
    """Press the button as the browser does: join Gradio's queue, then listen. What was said, in order."""
    config = page_config(client)
    button = next(c["id"] for c in config["components"] if c["props"].get("elem_id") == "lend-minute")
    event = next(d["id"] for d in config["dependencies"] if [button, "click"] in d["targets"] and d["backend_fn"])
    body = {"data": [], "fn_index": event, "session_hash": "somebody", "trigger_id": button}
    client.post("/gradio_api/queue/join", json=body).raise_for_status()
    said: list[str] = []
    with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": "somebody"}) as lines:
        for line in lines.iter_lines():
            message: dict[str, Any] = json.loads(line.removeprefix("data: ")) if line.startswith("data: ") else {}
            if message.get("msg") in ("process_generating", "process_completed"):
                assert message["success"], message
                said.append(json.dumps(message["output"].get("data")))
            if message.get("msg") in ("process_completed", "close_stream"):
                break
    return said


@pytest.mark.skipif(not hasattr(os, "fork"), reason="ZeroGPU forks")
def test_a_lent_minute_makes_pairs_and_the_next_trains_a_round_that_goes_live(tmp_path: Path, tiny_model: Path) -> None:
    studio = PreloadedStudio(
        tmp_path / "home",
        BASE_MODEL=tiny_model,
        MIN_VOTES=4,
        POOL__SIZE=6,
        RENDER__NUM_STEPS=2,
        ROUND__NUM_STEPS=3,
        ROUND__SLOTS_PER_PAIR=4,
        ROUND__RANK=2,
        ROUND__HEALTH_IMAGES=0,
    )
    studio.environment |= {"SPACES_ZERO_GPU": "true", "PYTHONPATH": str(Path(spaces.__file__).parent)}
    with studio, studio.client() as client:
        status = client.get("/api/v1/status").json()
        assert (status["mode"], status["renderer"]["phase"], status["pool"]) == ("zerogpu", "ready", 0)
        refused = client.post("/api/v1/render", json={"prompt": "a fox", "seed": 1, "versions": [0]})
        assert (refused.status_code, "press Render on the page" in refused.json()["detail"]) == (503, True)

        assert "12 images were made" in lend(client)[-1]
        token = client.post("/api/v1/session", json={}).json()["token"]
        who = {"Authorization": f"Bearer {token}"}
        for _ in range(4):
            pair = client.get("/api/v1/assignments?count=1", headers=who).json()["assignments"][0]
            body = {"assignment": pair["id"], "choice": "left", "elapsed_ms": 500}
            assert client.post("/api/v1/votes", json=body, headers=who).status_code == 201
        for _ in range(3):  # the pool comes first once it is low
            if "version 1 is published" in lend(client)[-1]:
                break
        assert client.get("/api/v1/status").json()["live_version"] == 1
        assert studio.stop() == 0
