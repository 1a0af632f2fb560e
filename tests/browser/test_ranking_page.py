import hashlib
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from dmpo_app.domain.lineage import NewPair, PairSource
from dmpo_app.domain.vote import LETTERS
from tests.browser.conftest import NewPage
from tests.browser.page_studio import (
    DOUBLE_CLICK_MS,
    READY,
    PageStudio,
    images_shown,
    open_label,
    pump_until,
    wait_for_page_clock,
    wait_until_still,
)
from tests.browser.test_accessibility import violations
from tests.browser.test_labeling_page import SHA256_OF_ADDRESS
from tests.patience import wait_until
from tests.web.studio_fakes import scene_image

pytestmark = pytest.mark.browser

IN_FOUR = pytest.mark.parametrize("campaign", [4], indirect=True, ids=["four"])


@pytest.fixture
def campaign(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Sets of three, or of as many as the test says, are ranked."""
    return {"labeling": {"ranking_size": getattr(request, "param", 3)}}


@pytest.fixture
def letters(page_studio: PageStudio) -> dict[str, str]:
    """Adds sets to rank to the studio: the letter of each image of its set, by the hash of its content."""
    services = page_studio.services
    size = services.settings.labeling.ranking_size
    known: dict[str, str] = {}
    for number in range(8):
        prompt = f"a fox in the forest, set {number}"
        images = [scene_image(prompt, 100 + 10 * number + i, 0, size=64, latents=True) for i in range(size)]
        a, b, *more = images
        known |= {hashlib.sha256(image.png).hexdigest(): letter for image, letter in zip(images, LETTERS, strict=False)}
        services.store.pairs.add(services.base, NewPair(prompt, a, b, b"embeds", PairSource.STARTER, tuple(more)))
    assert len(known) == 8 * size
    return known


def rankings(studio: PageStudio) -> list[str | None]:
    return [vote.ranking for vote in studio.services.store.votes.training_votes(studio.services.base)]


def places(page: Page) -> list[str]:
    return page.locator(".dl-frame .dl-place").all_inner_texts()


def names(page: Page) -> list[str | None]:
    return [frame.get_attribute("aria-label") for frame in page.locator(".dl-frame").all()]


def layout(page: Page) -> list[list[int]]:
    """Places and sizes of the images and then of the choices, whatever moves on them for a moment."""
    placed: list[list[int]] = page.eval_on_selector_all(
        ".dl-frame, .dl-choices:not([hidden])",
        "all => all.map((one) => [one.offsetLeft, one.offsetTop, one.offsetWidth, one.offsetHeight])",
    )
    assert len(placed) == 5
    return placed


def rank(page: Page, keys: str) -> None:
    """Press keys until the set is ranked and another one is shown."""
    before = images_shown(page)
    for key in keys:
        page.keyboard.press(key)
    wait_until(lambda: images_shown(page) not in (before, []), "another set is shown")
    expect(page.locator(READY)).to_be_visible()


def test_keys_rank_a_set_best_first_the_last_place_fills_itself_and_undo_goes_back_pick_by_pick(
    page_studio: PageStudio, letters: dict[str, str], new_page: NewPage
) -> None:
    page = new_page()
    open_label(page, page_studio.url)
    expect(page.locator(".dl-question")).to_have_text("Rank the images, best first.")
    first = images_shown(page)
    shown = [letters[page.evaluate(SHA256_OF_ADDRESS, address)] for address in first]
    page.keyboard.press("3")
    page.keyboard.press("3")
    page.keyboard.press("4")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("t")
    assert places(page) == ["", "", "1st"]
    expect(page.locator(".dl-hidden")).to_have_text("Image 3: first place")
    page.keyboard.press("z")
    assert places(page) == ["", "", ""]
    expect(page.locator(".dl-hidden")).to_have_text("Image 3 has no place any more.")
    page.keyboard.press("2")
    assert images_shown(page) == first
    rank(page, "3")
    page_studio.wait_for_votes(1)
    assert rankings(page_studio) == [shown[1] + shown[2] + shown[0]]
    expect(page.locator(".dl-hidden")).to_contain_text("Ranked: 2, 3, 1. Next: a fox")
    assert places(page) == ["", "", ""]
    page.keyboard.press("z")
    page_studio.wait_for_votes(0)
    assert images_shown(page) == first
    assert places(page) == ["", "1st", ""], "only the pick that ended it is taken back"
    rank(page, "1")
    page_studio.wait_for_votes(1)
    assert rankings(page_studio) == [shown[1] + shown[0] + shown[2]]
    rank(page, "s")
    rank(page, "b")
    page_studio.wait_for_votes(3)
    assert len(rankings(page_studio)) == 1


@pytest.mark.usefixtures("letters")
def test_a_reload_in_the_middle_is_where_the_person_was_and_unsent_rankings_are_sent(
    page_studio: PageStudio, new_page: NewPage
) -> None:
    page = new_page()
    open_label(page, page_studio.url)
    page.route("**/api/v1/votes", lambda route: route.abort())
    first = page.locator(".dl-prompt").inner_text()
    rank(page, "21")
    expect(page.locator(".dl-saving")).to_contain_text("1 vote kept here, will retry")
    second = page.locator(".dl-prompt").inner_text()
    page.keyboard.press("2")
    page.unroute("**/api/v1/votes")
    with page.expect_request(lambda request: request.url.endswith("/votes") and request.method == "POST") as sent:
        page.reload()
        page.wait_for_selector(READY)
    body = sent.value.post_data_json
    assert body is not None
    assert (body["order"], "choice" in body) == ([1, 0, 2], False)
    page_studio.wait_for_votes(1)
    assert page.locator(".dl-prompt").inner_text() == second
    assert places(page) == ["", "1st", ""]
    page.keyboard.press("z")
    page.keyboard.press("z")
    pump_until(page, lambda: page.locator(".dl-prompt").inner_text() == first, "the first set is back")
    page_studio.wait_for_votes(0)


@IN_FOUR
@pytest.mark.usefixtures("letters")
def test_fingers_rank_four_images_two_by_two_on_a_phone_and_nothing_moves(
    page_studio: PageStudio, new_page: NewPage
) -> None:
    page = new_page(phone=True)
    page.route("**/api/v1/assignments*", lambda route: route.abort())
    page.goto(page_studio.url)
    page.wait_for_selector("dmpo-header[data-kind]")
    expect(page.locator(".dl-prompt")).to_contain_text("The studio cannot be reached.")
    empty = layout(page)
    page.unroute("**/api/v1/assignments*")
    page.wait_for_selector(READY)
    assert layout(page) == empty
    lefts, tops = zip(*(box[:2] for box in empty[:4]), strict=True)
    assert (lefts, tops) == ((lefts[0], lefts[1]) * 2, (tops[0], tops[0], tops[2], tops[2]))
    assert lefts[0] < lefts[1]
    assert tops[0] < tops[2]
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    wait_for_page_clock(page, DOUBLE_CLICK_MS)
    frames = page.locator(".dl-frame")
    for index in (2, 0):
        frames.nth(index).tap()
    assert places(page) == ["2nd", "", "1st", ""]
    assert layout(page) == empty
    page.get_by_role("button", name="Undo").tap()
    assert places(page) == ["", "", "1st", ""]
    before = images_shown(page)
    with page.expect_request(lambda request: request.url.endswith("/votes")) as sent:
        for index in (3, 1):
            frames.nth(index).tap()
    body = sent.value.post_data_json
    assert body is not None
    assert body["order"] == [2, 3, 1, 0]
    page_studio.wait_for_votes(1)
    assert images_shown(page) not in (before, [])


@pytest.mark.usefixtures("letters")
def test_axe_finds_nothing_wrong_and_images_say_their_places(page_studio: PageStudio, new_page: NewPage) -> None:
    page = new_page(dark=True)
    page.emulate_media(reduced_motion="reduce")
    open_label(page, page_studio.url)
    page.keyboard.press("2")
    prompt = page.locator(".dl-prompt").inner_text()
    unplaced = [f"Image {number}, no place yet: {prompt}" for number in (1, 3)]
    assert names(page) == [unplaced[0], "Image 2: first place", unplaced[1]]
    page.locator(".dl-frame").first.focus()
    order = []
    for _ in range(6):
        order.append(page.evaluate("document.activeElement.className.split(' ')[1]"))
        page.keyboard.press("Tab")
    assert order[3:] == ["dl-both_bad", "dl-skip", "dl-undo"]
    wrong = {"dark": violations(page)}
    page.emulate_media(color_scheme="light")
    wait_until_still(page)
    wrong["light"] = violations(page)
    page.keyboard.press("?")
    expect(page.locator("dialog[open] .dd-keys")).to_contain_text("The image is the best of those left")
    expect(page.locator("dialog[open]")).to_be_visible()
    wrong["keys"] = violations(page, "dialog[open]")
    page.keyboard.press("Escape")
    page.locator(".dl-frame").nth(2).focus()
    page.keyboard.press("Enter")
    page_studio.wait_for_votes(1)
    page.locator(".dl-report").click()
    page.get_by_role("button", name="Send report").click()
    expect(page.locator(".dl-toast")).to_contain_text("The images were reported.")
    assert {place: found for place, found in wrong.items() if found} == {}
