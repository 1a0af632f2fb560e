import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Playwright, ViewportSize, expect, sync_playwright

from dmpo_app.domain.lineage import ImageKind
from dmpo_app.labeling.service import LabelingService
from dmpo_app.labeling.sign_in import Sealer, load_or_create_key
from dmpo_app.settings import Settings
from dmpo_app.store import Store
from dmpo_app.ui import build_ui, launch
from dmpo_app.web import Services
from tests.browser.page_studio import PageStudio
from tests.patience import PATIENCE
from tests.web.studio_fakes import SAMPLING, FakeRenderer, FakeTrainer, add_pairs, scene_image

ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-dev-shm-usage", "--mute-audio",
    "--disable-features=LocalNetworkAccessChecks",  # a page of another site shows the one on this machine in a frame
]  # fmt: skip
DESKTOP: ViewportSize = {"width": 1280, "height": 800}
PHONE: ViewportSize = {"width": 390, "height": 844}


def chromium_path() -> str | None:
    """The system's Chromium if there is one; None lets Playwright use its own."""
    named = os.environ.get("DMPO_CHROMIUM")
    return named or shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    """Sets the patience with what is expected of a page; that with all else belongs to a visitor's context.

    It has an event loop in this thread, where no other can run: so it ends with each file's tests.
    """
    expect.set_options(timeout=1000 * PATIENCE)
    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="module")
def browser(playwright: Playwright) -> Iterator[Browser]:
    browser = playwright.chromium.launch(executable_path=chromium_path(), args=ARGUMENTS)
    yield browser
    browser.close()


NewPage = Callable[..., Page]


@pytest.fixture
def new_page(browser: Browser) -> Iterator[NewPage]:
    """Makes pages of fresh visitors. An error in a page's console or script fails the test."""
    faults: list[str] = []
    contexts = []

    def make(*, phone: bool = False, dark: bool = False, locale: str = "en-US") -> Page:
        context = browser.new_context(
            viewport=PHONE if phone else DESKTOP,
            has_touch=phone,
            color_scheme="dark" if dark else "light",
            accept_downloads=True,
            locale=locale,
        )
        context.set_default_timeout(1000 * PATIENCE)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(f"script error: {error}"))
        page.on("console", lambda line: faults.append(line.text) if line.type == "error" else None)
        return page

    yield make
    for context in contexts:
        context.close()
    # A request that the test itself made fail is reported by the browser, not by the page.
    assert [fault for fault in faults if "Failed to load resource" not in fault] == []


@pytest.fixture(scope="session")
def home_with_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with pairs and the first row of the contact sheet; made once, copied by every test."""
    home = tmp_path_factory.mktemp("images") / "home"
    with Store.open(home) as store:
        base = store.models.register("pocket", "stable_diffusion", "f" * 64)
        add_pairs(store, base, 24, size=64)
        store.prompts.ensure(["a green rocket in the desert", "a white cat on a beach"], held_out=True)
        for seed in (1, 2):
            store.images.add(base, scene_image("a red boat on a beach", seed, 0, size=64), ImageKind.CONTACT_SHEET)
    return home


@pytest.fixture
def campaign() -> dict[str, Any]:
    """Settings of the studio that a file of tests has for itself."""
    return {}


@pytest.fixture
def page_studio(home_with_images: Path, tmp_path: Path, campaign: dict[str, Any]) -> Iterator[PageStudio]:
    """The page as served, on a real store with 24 pairs; the renderer and the trainer are stand-ins."""
    with Store.open(Path(shutil.copytree(home_with_images, tmp_path / "home"))) as store:
        base = store.models.register("pocket", "stable_diffusion", "f" * 64)
        settings = Settings(**{"home": tmp_path / "home", "port": 0, "min_votes": 4, "public": False, **campaign})
        sealer = Sealer(load_or_create_key(store.home))
        labeling = LabelingService(store, base, settings, sealer, rng=random.Random(1))
        renderer = FakeRenderer(store, base, size=64)
        services = Services(store, base, settings, labeling, renderer, FakeTrainer(), "the-admin-token", SAMPLING)
        server = launch(build_ui(services), services)
        yield PageStudio(services, renderer, server.url)
        server.close()
        renderer.close()
