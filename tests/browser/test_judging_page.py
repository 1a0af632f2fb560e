"""Duels on the Label tab: two versions' images judged with the same keys, by a switch in the line below the choices."""

import os
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from dmpo_app.domain.judging import NewDuel
from tests.browser.conftest import NewPage
from tests.browser.page_studio import READY, PageStudio, images_shown, open_label, prompt_shown, vote, wait_until_still
from tests.patience import wait_until
from tests.web.studio_fakes import scene_image

pytestmark = pytest.mark.browser

HELD_OUT = "a white cat on a beach"
QUESTION = "Two versions, one prompt: which image do you prefer?"


def add_duels(studio: PageStudio, count: int) -> None:
    store, base = studio.services.store, studio.services.base
    for seed in range(count):
        image_a, image_b = (scene_image(HELD_OUT, seed, version, size=64) for version in (1, 0))
        store.duels.add(base, NewDuel(HELD_OUT, image_a, image_b))


def scores(studio: PageStudio) -> list[float]:
    return [one.score for one in studio.services.store.duels.judgements(studio.services.base, 1, 0)]


def judge(page: Page) -> None:
    """Press the switch between pairs and duels alone."""
    page.get_by_role("button", name="Judge versions").click()


def keep_screenshot(page: Page, name: str) -> None:
    """Screenshot of the page for whoever changes it, into the folder that DMPO_SCREENSHOTS names, if it does."""
    if folder := os.environ.get("DMPO_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png")


@pytest.mark.parametrize("phone", [False, True])
def test_two_versions_are_judged_with_the_keys_of_pairs_and_the_switch_is_kept_over_a_reload(
    page_studio: PageStudio, new_page: NewPage, phone: bool
) -> None:
    page_studio.publish()
    page = new_page(phone=phone)
    open_label(page, page_studio.url)
    pair = prompt_shown(page)
    judge(page)
    expect(page.locator(".dl-question")).to_have_text(QUESTION)
    expect(page.locator(".dl-prompt")).to_have_text("Images of both versions are being made…")
    add_duels(page_studio, 3)
    expect(page.locator(READY)).to_be_visible()
    assert prompt_shown(page) == HELD_OUT
    wait_until_still(page)
    keep_screenshot(page, f"judging-{'phone' if phone else 'desktop'}")
    first = images_shown(page)
    vote(page, "1")
    wait_until(lambda: len(scores(page_studio)) == 1, "the judgement is stored")
    page.keyboard.press("z")
    wait_until(lambda: scores(page_studio) == [], "the judgement is taken back")
    assert images_shown(page) == first
    vote(page, "t")
    wait_until(lambda: scores(page_studio) == [0.5], "the tie is stored")
    page.reload()
    page.wait_for_selector(READY)
    expect(page.locator(".dl-question")).to_have_text(QUESTION)
    vote(page, "2")
    page.keyboard.press("1")
    expect(page.locator(".dl-prompt")).to_have_text("Images of both versions are being made…")
    wait_until(lambda: len(scores(page_studio)) == 3, "all are judged")
    judge(page)
    expect(page.locator(".dl-question")).to_have_text("Which image do you prefer?")
    expect(page.locator(".dl-prompt")).to_have_text(pair)
    assert len(page_studio.services.store.votes.training_votes(page_studio.services.base)) == 0


def test_without_a_version_the_page_says_that_there_is_none(page_studio: PageStudio, new_page: NewPage) -> None:
    page = new_page()
    open_label(page, page_studio.url)
    judge(page)
    expect(page.locator(".dl-prompt")).to_contain_text("There are no two versions to compare now")
    keep_screenshot(page, "judging-nothing")
    judge(page)
    expect(page.locator(READY)).to_be_visible()
