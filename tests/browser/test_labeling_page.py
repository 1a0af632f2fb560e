import pytest
from playwright.sync_api import Dialog, Page, Route, expect

from dmpo_app.domain.lineage import ImageRef, NewPair, PairSource
from dmpo_app.domain.vote import Outcome
from tests.browser.conftest import NewPage
from tests.browser.page_studio import (
    DOUBLE_CLICK_MS,
    PAYLOADS,
    READY,
    PageStudio,
    images_shown,
    open_label,
    open_tab,
    prompt_shown,
    vote,
    wait_for_page_clock,
    wait_until_sent,
    wait_until_still,
)
from tests.patience import wait_until
from tests.web.studio_fakes import scene_image

pytestmark = pytest.mark.browser

SHA256_OF_ADDRESS = """async (address) => {
  const content = await (await fetch(address)).arrayBuffer();
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", content));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}"""


def outcomes(studio: PageStudio) -> list[Outcome]:
    return [vote.outcome for vote in studio.services.store.votes.training_votes(studio.services.base)]


def preferred_images(studio: PageStudio) -> list[ImageRef]:
    """The images that the votes so far, none of them a tie, are for."""
    store = studio.services.store
    votes = store.votes.training_votes(studio.services.base)
    pairs = [store.pairs.get(vote.pair_id) for vote in votes]
    return [
        pair.image_a if vote.outcome is Outcome.A else pair.image_b for vote, pair in zip(votes, pairs, strict=True)
    ]


def test_votes_by_key_button_and_image_all_arrive(page_studio: PageStudio, new_page: NewPage) -> None:
    page = new_page()
    open_label(page, page_studio.url)
    for key in ("1", "2", "ArrowLeft", "ArrowRight", "t", "b", "s"):
        vote(page, key)
    page_studio.wait_for_votes(7)
    assert len(outcomes(page_studio)) == 5
    wait_for_page_clock(page, DOUBLE_CLICK_MS)
    page.get_by_role("button", name="Tie", exact=True).click()
    wait_for_page_clock(page, DOUBLE_CLICK_MS)
    page.locator(".dl-frame").first.click()
    page_studio.wait_for_votes(9)


def test_a_vote_is_for_the_side_that_was_pressed(page_studio: PageStudio, new_page: NewPage) -> None:
    page = new_page()
    open_label(page, page_studio.url)
    pressed = []
    for key in ("1", "2", "1", "2"):
        left, right = images_shown(page)
        pressed.append(page.evaluate(SHA256_OF_ADDRESS, left if key == "1" else right))
        with page.expect_request(lambda request: request.url.endswith("/votes")) as sent:
            vote(page, key)
        body = sent.value.post_data_json
        assert body is not None
        assert body["choice"] == {"1": "left", "2": "right"}[key]
        assert body["elapsed_ms"] >= 0
    page_studio.wait_for_votes(4)
    assert [image.sha256 for image in preferred_images(page_studio)] == pressed


def test_undo_brings_the_last_pair_back_to_be_judged_anew(page_studio: PageStudio, new_page: NewPage) -> None:
    page = new_page()
    open_label(page, page_studio.url)
    first = images_shown(page)
    vote(page, "t")
    second = images_shown(page)
    page_studio.wait_for_votes(1)
    page.keyboard.press("z")
    assert images_shown(page) == first
    page_studio.wait_for_votes(0)
    vote(page, "b")
    assert images_shown(page) == second
    page_studio.wait_for_votes(1)
    assert outcomes(page_studio) == []


def test_keys_do_nothing_while_typing_or_on_another_tab(page_studio: PageStudio, new_page: NewPage) -> None:
    page = new_page()
    open_label(page, page_studio.url)
    page.get_by_role("button", name="Voting as anonymous").click()
    page.get_by_label("Your name (optional)").click()
    page.keyboard.type("tbs12")
    page.keyboard.press("Escape")
    open_tab(page, "Progress")
    page.keyboard.press("1")
    wait_until_sent(page)
    assert page_studio.votes == 0


def test_votes_without_a_connection_are_kept_shown_and_sent_later(page_studio: PageStudio, new_page: NewPage) -> None:
    page = new_page()
    open_label(page, page_studio.url)
    page.route("**/api/v1/votes", lambda route: route.abort())
    for key in ("1", "2"):
        vote(page, key)
    expect(page.locator(".dl-saving")).to_contain_text("2 votes kept here, will retry")
    assert page_studio.votes == 0
    page.unroute("**/api/v1/votes")
    page_studio.wait_for_votes(2)
    expect(page.locator(".dl-saving")).to_have_text("")


def test_votes_survive_closing_the_page(page_studio: PageStudio, new_page: NewPage) -> None:
    page = new_page()
    open_label(page, page_studio.url)
    page.route("**/api/v1/votes", lambda route: route.abort())
    vote(page, "1")
    again = page.context.new_page()
    page.close()
    open_label(again, page_studio.url)
    page_studio.wait_for_votes(1)


def test_a_vote_whose_answer_is_lost_is_counted_once(page_studio: PageStudio, new_page: NewPage) -> None:
    page = new_page()
    open_label(page, page_studio.url)
    lost: list[int] = []

    def lose(route: Route) -> None:
        if lost:
            route.continue_()
            return
        lost.append(1)
        route.fetch()
        route.abort()

    page.route("**/api/v1/votes", lose)
    with page.expect_response(lambda response: response.url.endswith("/votes")) as answered:
        vote(page, "1")
    assert answered.value.status == 200
    assert page_studio.votes == 1


def test_busy_answers_are_tried_again(page_studio: PageStudio, new_page: NewPage) -> None:
    page = new_page()
    open_label(page, page_studio.url)
    answers = []

    def busy(route: Route) -> None:
        answers.append(1)
        if len(answers) > 2:
            route.continue_()
        else:
            route.fulfill(status=503, headers={"Retry-After": "0"}, json={"detail": "busy", "code": "busy"})

    page.route("**/api/v1/votes", busy)
    with page.expect_response(lambda response: response.status == 201):
        vote(page, "1")
    assert (len(answers), page_studio.votes) == (3, 1)


def test_a_session_the_studio_does_not_know_is_replaced(page_studio: PageStudio, new_page: NewPage) -> None:
    page = new_page()
    page.goto(page_studio.url)
    page.evaluate("localStorage.setItem('dmpo.token', 'of another home')")
    open_label(page, page_studio.url)
    vote(page, "1")
    page_studio.wait_for_votes(1)


def test_nothing_moves_between_pairs(page_studio: PageStudio, new_page: NewPage) -> None:
    for phone in (False, True):
        page = new_page(phone=phone)
        open_label(page, page_studio.url)
        page.wait_for_selector("dmpo-header[data-kind]")
        wait_until_still(page)
        parts = "[...document.querySelectorAll('.dl-frame,.dl-choice,.rc')]"
        places = f"{parts}.map(part => JSON.stringify(part.getBoundingClientRect()))"
        page.mouse.move(2, 2)
        before = page.evaluate(places)
        for key in ("1", "t", "2"):
            vote(page, key)
            wait_until_sent(page)
            wait_until_still(page)
            assert page.evaluate(places) == before


def test_everything_fits_a_phone_and_a_desktop_without_scrolling(page_studio: PageStudio, new_page: NewPage) -> None:
    for phone in (False, True):
        page = new_page(phone=phone)
        open_label(page, page_studio.url)
        sizes = page.evaluate(
            "[document.documentElement.scrollWidth - innerWidth,"
            " document.querySelector('.rc').getBoundingClientRect().bottom - innerHeight]"
        )
        assert sizes[0] <= 0
        assert sizes[1] <= 0
        box = page.locator(".dl-image img").first.bounding_box()
        assert box is not None
        assert box["width"] >= 170


def test_the_page_asks_nobody_but_the_studio(page_studio: PageStudio, new_page: NewPage) -> None:
    page = new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    open_label(page, page_studio.url)
    for tab, content in {
        "Before / after": ".dc-message",
        "Contact sheet": ".ds-cell img",
        "Progress": ".pr-version",
    }.items():
        open_tab(page, tab)
        expect(page.locator(content).first).to_be_visible()
    wait_until_still(page)
    assert asked
    assert [url for url in asked if not url.startswith((page_studio.url, "data:", "blob:"))] == []


def test_text_from_people_is_inert(page_studio: PageStudio, new_page: NewPage) -> None:
    store, base = page_studio.services.store, page_studio.services.base
    for index, text in enumerate(PAYLOADS):
        a, b = (scene_image(text, 90 + 2 * index + side, 0, size=32, latents=True) for side in (0, 1))
        store.pairs.add(base, NewPair(text, a, b, b"embeds", PairSource.POOL))
    page = new_page()
    said: list[str] = []

    def dismiss(dialog: Dialog) -> None:
        said.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", dismiss)
    open_label(page, page_studio.url)
    seen = set()
    for _ in range(24 + len(PAYLOADS) - 1):
        seen.add(prompt_shown(page))
        vote(page, "s")
    seen.add(prompt_shown(page))
    assert set(PAYLOADS) <= seen
    open_tab(page, "Before / after")
    page.locator("#ba-prompt textarea").fill(PAYLOADS[0])
    page.locator("#ba-render").click()
    expect(page.locator(".dc-details")).to_contain_text(PAYLOADS[0])
    open_tab(page, "Label")
    for text in PAYLOADS:
        page.locator("dmpo-label").evaluate("(widget, name) => widget.rename(name)", text)
        expect(page.locator("dmpo-label .dl-you")).to_contain_text(text)
    assert said == []


def test_an_empty_studio_says_that_it_warms_up_then_shows_pairs(page_studio: PageStudio, new_page: NewPage) -> None:
    page = new_page()
    held = {"on": True}

    def none(route: Route) -> None:
        if held["on"]:
            route.fulfill(json={"assignments": []})
        else:
            route.continue_()

    page.route("**/api/v1/assignments*", none)
    page.goto(page_studio.url)
    expect(page.locator(".dl-prompt")).to_contain_text("Fetching images")
    expect(page.get_by_role("button", name="Tie", exact=True)).to_be_disabled()
    page.keyboard.press("1")
    held["on"] = False
    page.wait_for_selector(READY)
    assert page_studio.votes == 0


def test_an_annotator_may_take_a_name(page_studio: PageStudio, new_page: NewPage) -> None:
    page = new_page()
    open_label(page, page_studio.url)
    page.get_by_role("button", name="Voting as anonymous").click()
    with page.expect_request(lambda request: request.url.endswith("/session")) as sent:
        page.get_by_label("Your name (optional)").fill("Ada")
        page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Voting as Ada")).to_be_visible()
    assert sent.value.post_data_json == {"handle": "Ada"}
    page.wait_for_selector(READY)
    vote(page, "1")
    page_studio.wait_for_votes(1)


def _bar(page: Page) -> int:
    return int(page.locator("dmpo-label .rc-bar").get_attribute("aria-valuenow") or -1)


def test_progress_counts_at_once_and_a_new_version_is_announced(page_studio: PageStudio, new_page: NewPage) -> None:
    page = new_page()
    open_label(page, page_studio.url)
    expect(page.locator("dmpo-label .rc-title")).to_have_text("0 of 4 votes until the next round")
    vote(page, "1")
    expect(page.locator("dmpo-label .rc-title")).to_have_text("1 of 4 votes until the next round")
    wait_until(lambda: _bar(page) == 25, "the bar is at a quarter")
    for key in ("2", "1", "2"):
        vote(page, key)
    page_studio.wait_for_votes(4)
    page_studio.publish()
    toast = page.locator(".dl-toast")
    expect(toast).to_contain_text("Version 1 learned from 4 votes and is live.")
    toast.get_by_role("button", name="See Before / after").click()
    expect(page.locator(".dc-side figcaption").nth(1)).to_contain_text("Version 1 learned from 4 votes")
