"""The page as it is really served: Gradio, the API and the assets on one port."""

import json
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from dmpo_app.errors import SetupError
from dmpo_app.labeling.service import LabelingService
from dmpo_app.labeling.sign_in import Sealer, load_or_create_key
from dmpo_app.settings import Settings
from dmpo_app.store import Store
from dmpo_app.ui import RunningServer, build_ui, launch
from dmpo_app.web import Services
from tests.patience import PATIENCE
from tests.web.studio_fakes import SAMPLING, FakeRenderer, FakeTrainer, add_pairs


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    home = tmp_path_factory.mktemp("served") / "home"
    with Store.open(home) as store:
        base = store.models.register("pocket", "stable_diffusion", "f" * 64)
        add_pairs(store, base, 4, size=16)
        store.prompts.ensure(["a held-out prompt"], held_out=True)
        settings = Settings(home=home, port=0, public=False)
        sealer = Sealer(load_or_create_key(home))
        labeling = LabelingService(store, base, settings, sealer, rng=random.Random(1))
        renderer = FakeRenderer(store, base, size=16)
        yield Services(store, base, settings, labeling, renderer, FakeTrainer(), "admin", SAMPLING)
        renderer.close()


@pytest.fixture(scope="module")
def server(services: Services) -> Iterator[RunningServer]:
    running = launch(build_ui(services), services)
    yield running
    running.close()


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=PATIENCE) as client:
        yield client


def page_config(client: httpx.Client) -> dict[str, Any]:
    """What Gradio tells the browser of the page, read out of the page itself."""
    found = re.search(r"window\.gradio_config = (\{.*?\});</script>", client.get("/").text)
    assert found is not None
    config: dict[str, Any] = json.loads(found[1].replace("document.baseURI.slice(0, -1)", '""'))
    return config


def test_the_page_and_the_api_answer_on_one_port(client: httpx.Client) -> None:
    page = client.get("/")
    assert page.status_code == 200
    assert "DMPO Studio" in page.text
    assert client.get("/api/v1/status").status_code == 200


def test_the_page_carries_a_policy_that_keeps_other_sites_out(client: httpx.Client) -> None:
    policy = client.get("/").headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy


def test_no_origin_but_ours_is_let_in(client: httpx.Client) -> None:
    for path in ("/api/v1/status", "/", "/theme.css", "/config"):
        headers = client.get(path, headers={"Origin": "https://evil.example", "Host": "studio.example"}).headers
        assert not [name for name in headers if name.startswith("access-control-")]


def test_openapi_and_docs_are_ours(client: httpx.Client) -> None:
    assert client.get("/openapi.json").json()["info"]["title"] == "DMPO Studio"
    assert "/api/v1/render" in client.get("/docs").text


def test_every_script_and_style_of_the_page_is_served_and_may_be_kept(client: httpx.Client) -> None:
    addresses = re.findall(r"\./studio/static/[0-9a-f]+/[a-z./-]+", client.get("/").text)
    assert len(set(addresses)) > 8
    for address in set(addresses):
        answer = client.get(address.removeprefix("."))
        assert answer.status_code == 200, address
        assert "immutable" in answer.headers["Cache-Control"]


def test_only_named_assets_are_served(client: httpx.Client) -> None:
    build = re.findall(r"studio/static/([0-9a-f]+)/", client.get("/").text)[0]
    for name in (
        "page.py", "..%2Fpage.py", "..%2F..%2Fsettings.py", "%2e%2e/page.py", "label/label.js%00", "", "label",
        "label/..%2F..%2Fpage.py", "label%2F%2e%2e%2F%2e%2e%2Fpage.py", "label/%2e%2e/%2e%2e/page.py", "label.js",
        "label/", "/label/label.js", "label//label.js", "label%5Clabel.js",
    ):  # fmt: skip
        assert client.get(f"/studio/static/{build}/{name}").status_code in (404, 422), name
    old = client.get("/studio/static/0123456789abcdef/label/label.js")
    assert (old.status_code, old.headers["Cache-Control"]) == (200, "no-cache")


def test_no_file_of_the_server_is_reachable(client: httpx.Client, services: Services) -> None:
    home = services.store.home
    project = Path.cwd() / "pyproject.toml"
    for target in (home / "studio.db", home / "secret.key", Path("/etc/passwd"), Path(__file__), project):
        for path in (
            f"/gradio_api/file={target}", f"/file={target}", f"/gradio_api/file/{target}", f"/file/{target}",
            f"/static/{target}", f"/static/../../../../../..{target}", f"/assets/..%2F..%2F..%2F..{target}",
            f"/svelte/..%2F..{target}", f"/api/v1/images/..%2F..{target}", f"/studio/static/x/..%2F..{target}",
            f"/gradio_api/proxy=file://{target}",
        ):  # fmt: skip
            answer = client.get(path)
            assert answer.status_code in (403, 404, 405, 422), (path, answer.status_code)
            assert b"root:" not in answer.content
            assert b"SQLite format" not in answer.content


def test_nothing_can_be_uploaded(client: httpx.Client) -> None:
    assert client.post("/gradio_api/upload", files={"files": b"x"}).status_code == 404


def test_no_gradio_event_takes_a_file(client: httpx.Client) -> None:
    config = page_config(client)
    kinds = {component["type"] for component in config["components"]}
    assert kinds >= {"textbox", "html"}
    assert not kinds & {"file", "uploadbutton", "image", "gallery", "video", "audio", "multimodaltextbox"}


def test_a_port_in_use_is_refused_with_advice(server: RunningServer, services: Services) -> None:
    taken = replace(services, settings=services.settings.model_copy(update={"port": server.port}))
    with pytest.raises(SetupError, match=rf"port {server.port}.*--port"):
        launch(build_ui(taken), taken)


def test_the_page_needs_no_torch() -> None:
    heavy = ("torch", "diffusers", "transformers")
    code = f"import sys, dmpo_app.ui, dmpo_app.web; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
