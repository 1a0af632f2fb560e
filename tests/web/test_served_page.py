"""The page as it is really served: Gradio, the API and the assets on one port."""

import json
import random
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import pytest

from dmpo_app.errors import SetupError
from dmpo_app.labeling.service import LabelingService
from dmpo_app.labeling.sign_in import Sealer, load_or_create_key
from dmpo_app.settings import Settings
from dmpo_app.store import Store
from dmpo_app.ui import RunningServer, build_ui, launch
from dmpo_app.ui.serving import frame_ancestors
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
    """Gradio's description of the page for the browser, read out of the page itself."""
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
    assert "frame-ancestors 'self'" in policy
    scripts = policy.split("script-src ")[1].split(";")[0]
    assert "unsafe-inline" not in scripts
    assert scripts.count("'sha256-") == len(re.findall(r"<script(?! [^>]*src=)", client.get("/").text)) > 3


@pytest.mark.parametrize(
    ("frames", "ancestors"),
    [
        (
            "https://course.example.org, https://*.example.net:8443",
            "'self' https://course.example.org https://*.example.net:8443",
        ),
        ("*", "'self' *"),
        ("none", "'none'"),
        ("", "'self'"),
    ],
)
def test_the_sites_that_may_frame_the_page_are_a_setting(
    frames: str, ancestors: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DMPO_FRAME_ANCESTORS", frames)
    assert frame_ancestors(Settings().frame_ancestors) == ancestors


def test_on_a_space_the_sites_of_spaces_may_frame_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACE_ID", "ada/studio")
    ancestors = frame_ancestors(Settings().frame_ancestors)
    assert ancestors == "'self' https://huggingface.co https://*.huggingface.co https://*.hf.space"


def test_spaces_gets_its_turn_when_the_page_is_built(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """`spaces` wraps `gr.Blocks.launch` once: on ZeroGPU it packs the weights and reports the start there."""
    original, started = gr.Blocks.launch, []

    @wraps(original)
    def launch_once(*args: Any, **kwargs: Any) -> Any:
        started.append(threading.current_thread())
        gr.Blocks.launch = original  # type: ignore[method-assign]
        return gr.Blocks.launch(*args, **kwargs)

    monkeypatch.setattr(gr.Blocks, "launch", launch_once)
    running = launch(build_ui(services), services)
    assert started == [threading.main_thread()]
    assert running.blocks.server.config.port == running.port  # its processes close what they inherit of this port
    running.close()


def test_no_request_to_itself_goes_through_a_proxy(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    running = launch(build_ui(services), services)
    assert httpx.get(running.url, trust_env=False, timeout=PATIENCE).status_code == 200
    running.close()


@pytest.mark.parametrize("root", ["/studio", "/api", "/static"])
def test_page_api_and_assets_stand_below_the_root_path(root: str, services: Services) -> None:
    settings = services.settings.model_copy(update={"root_path": root})
    below = replace(services, settings=settings)
    running = launch(build_ui(below), below)
    assert running.url.endswith(f"{root}/")
    origin = running.url.removesuffix(f"{root}/")
    with httpx.Client(base_url=origin, timeout=PATIENCE, trust_env=False) as client:
        page = client.get(f"{root}/")
        assert client.get(root).headers["location"] == f"{root}/"
        addresses = re.findall(r"\./((?:studio|assets|static)/[\w./-]+)", page.text)
        assert len(addresses) > 10
        for prefix in (root, ""):  # as a proxy passes it on, or after it took the path off
            for path in (*addresses, "theme.css", "api/v1/status", "docs", "api/v1/openapi.json"):
                assert client.get(f"{prefix}/{path}").status_code == 200, (prefix, path)
            assert client.post(f"{prefix}/gradio_api/upload", files={"files": b"x"}).status_code == 404
        assert client.get("/openapi.json").json()["servers"] == [{"url": root}]
        assert 'href="openapi.json"' in client.get(f"{root}/docs").text
        assert origin not in page.text
    running.close()


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
