"""A person alone with a real studio: vote by keyboard, wait for the round, see the images change."""

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from dmpo_app.settings import POCKET_MODEL
from tests.browser.conftest import NewPage
from tests.browser.page_studio import READY, open_label, open_tab, vote
from tests.patience import PATIENCE
from tests.preloaded_studio import PreloadedStudio
from tests.tiny_pipeline import make_tiny_pipeline

pytestmark = pytest.mark.browser
VOTES = 32


@pytest.fixture
def base_model(tmp_path: Path) -> Path:
    """The pocket model if it is there, else a tiny one with random weights."""
    pocket = (POCKET_MODEL / "model_index.json").is_file()
    return POCKET_MODEL if pocket else make_tiny_pipeline(tmp_path / "tiny")


def test_32_votes_by_keyboard_change_the_images(base_model: Path, tmp_path: Path, new_page: NewPage) -> None:
    held_out = tmp_path / "held-out.txt"
    held_out.write_text("a yellow tree in the snow\na green boat at night\n")
    studio = PreloadedStudio(
        tmp_path / "home",
        BASE_MODEL=base_model,
        MIN_VOTES=VOTES,
        POOL__HELD_OUT_PROMPTS=held_out,
        POOL__SIZE=16,
        RENDER__NUM_STEPS=4,
        ROUND__NUM_STEPS=10,
        ROUND__BATCH_PAIRS=4,
        ROUND__SLOTS_PER_PAIR=4,
        ROUND__HEALTH_IMAGES=2,
    )
    with studio:
        page = new_page()
        open_label(page, studio.url)
        for index in range(VOTES):
            page.wait_for_selector(READY)
            vote(page, "12"[index % 2])
        status = studio.wait_for(lambda status: status["votes"] == VOTES)
        assert status["live_version"] == 0
        expect(page.locator(".dl-toast")).to_contain_text("Version 1 learned from", timeout=3 * 1000 * PATIENCE)
        page.get_by_role("button", name="See Before / after").click()
        expect(page.locator(".dc-side figcaption").first).to_contain_text("Base model")
        expect(page.locator(".dc-side figcaption").nth(1)).to_contain_text("Version 1")
        before, after = (_pixels(page, index) for index in (0, 1))
        assert before != after
        open_tab(page, "Progress")
        expect(page.locator(".pr-version.pr-live")).to_contain_text("Version 1")
        expect(page.locator(".pr-round").first).to_contain_text("published as version 1")


def _pixels(page: Page, index: int) -> list[int]:
    """The pixels of one of the two images of the before/after tab, as the browser decoded it."""
    found: list[int] = (
        page.locator(".dc-box img")
        .nth(index)
        .evaluate(
            """image => {
          const canvas = Object.assign(document.createElement("canvas"), { width: 32, height: 32 });
          const context = canvas.getContext("2d");
          context.drawImage(image, 0, 0, 32, 32);
          return [...context.getImageData(0, 0, 32, 32).data];
        }"""
        )
    )
    return found
