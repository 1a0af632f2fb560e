"""Zoom, gestures, goals, languages: what makes judging many pairs bearable."""

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import NewPage
from tests.browser.page_studio import (
    GESTURE_MS,
    HOLD_MS,
    READY,
    PageStudio,
    open_label,
    open_label_with_pairs_ahead,
    pump_until,
    vote,
    wait_for_page_clock,
    wait_until_sent,
    wait_until_still,
)

pytestmark = pytest.mark.browser

ZOOMED = "[...document.querySelectorAll('.dl-image')].map(image => getComputedStyle(image).transform)"
NO_ZOOM = ["none", "none"]


class Fingers:
    """Fingers on a page, as the browser gets them from a touch screen."""

    def __init__(self, page: Page) -> None:
        self._session = page.context.new_cdp_session(page)

    def touch(self, kind: str, *places: tuple[float, float]) -> None:
        """`kind`: touchStart, touchMove or touchEnd; `places`: where every finger is then."""
        fingers: Any = [{"x": x, "y": y, "id": index} for index, (x, y) in enumerate(places)]
        self._session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})


def test_space_zooms_both_images_alike_held_or_kept_and_the_mouse_moves_the_part(
    page_studio: PageStudio, new_page: NewPage
) -> None:
    page = new_page()
    open_label(page, page_studio.url)
    page.keyboard.press("Space")
    left, right = page.evaluate(ZOOMED)
    assert left == right == "matrix(2.5, 0, 0, 2.5, 0, 0)"
    box = page.locator(".dl-frame").nth(1).bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 0.75 * box["height"])
    origins = page.evaluate("[...document.querySelectorAll('.dl-image')].map(p => getComputedStyle(p).transformOrigin)")
    x, y = (float(part.removesuffix("px")) for part in origins[0].split())
    assert origins[0] == origins[1]
    assert x == pytest.approx(0.25 * box["width"], abs=6)
    assert y == pytest.approx(0.75 * box["height"], abs=6)
    page.keyboard.press("Space")
    assert page.evaluate(ZOOMED) == NO_ZOOM
    page.keyboard.down("Space")
    wait_for_page_clock(page, HOLD_MS)
    assert page.evaluate(ZOOMED) != NO_ZOOM
    page.keyboard.up("Space")
    assert page.evaluate(ZOOMED) == NO_ZOOM
    page.keyboard.press("Space")
    vote(page, "1")
    assert page.evaluate(ZOOMED) == NO_ZOOM
    page.get_by_role("button", name="Tie", exact=True).focus()
    page.keyboard.press("Space")  # a button that has the focus is pressed by it
    page_studio.wait_for_votes(2)


def test_the_keys_are_shown_in_a_dialog_that_keeps_the_focus_and_takes_no_votes(
    page_studio: PageStudio, new_page: NewPage
) -> None:
    page = new_page()
    open_label(page, page_studio.url)
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog", name="Keys and gestures")
    expect(dialog).to_contain_text("B is better")
    for _ in range(4):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement === document.body || !!document.activeElement.closest('dialog')")
    page.keyboard.press("1")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    wait_until_sent(page)
    assert page_studio.votes == 0
    vote(page, "1")
    page_studio.wait_for_votes(1)


def test_escape_keeps_the_name_and_gives_the_keys_back_at_once(page_studio: PageStudio, new_page: NewPage) -> None:
    page = new_page()
    open_label(page, page_studio.url)
    page.get_by_role("button", name="Voting as anonymous").click()
    page.wait_for_selector("dialog input:focus")
    page.keyboard.type("Ada")
    closed = """() => {
      document.querySelector("dialog").requestClose(); // as Escape does, but nothing comes between
      return [document.querySelector("dialog"), document.activeElement === document.body];
    }"""
    assert page.evaluate(closed) == [None, True]
    expect(page.get_by_role("button", name="Voting as Ada")).to_be_visible()
    expect(page.locator(READY)).to_be_visible()  # another annotator has other pairs
    vote(page, "1")
    page_studio.wait_for_votes(1)


def test_a_phone_swipes_taps_and_pinches(page_studio: PageStudio, new_page: NewPage) -> None:
    page = new_page(phone=True)
    open_label(page, page_studio.url)
    sent: list[Any] = []
    page.on("request", lambda request: sent.append(request.post_data_json) if request.url.endswith("/votes") else None)
    box = page.locator(".dl-pair").bounding_box()
    assert box is not None
    fingers = Fingers(page)
    middle, height = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    for to in (middle + 120, middle - 120):
        fingers.touch("touchStart", (middle, height))
        fingers.touch("touchMove", ((middle + to) / 2, height))
        fingers.touch("touchMove", (to, height))
        expect(page.locator(".dl-leaning")).to_have_count(1)
        fingers.touch("touchEnd")
        expect(page.locator(".dl-leaning")).to_have_count(0)
    pump_until(page, lambda: len(sent) == 2, "both swipes are votes")
    assert [body["choice"] for body in sent] == ["right", "left"]
    fingers.touch("touchStart", (80, height))
    fingers.touch("touchStart", (80, height), (110, height))
    fingers.touch("touchMove", (40, height), (150, height))
    fingers.touch("touchEnd")
    left, right = page.evaluate(ZOOMED)
    assert left == right != "none"
    assert page.evaluate("visualViewport.scale") == 1
    wait_for_page_clock(page, GESTURE_MS)
    page.touchscreen.tap(80, height)
    pump_until(page, lambda: len(sent) == 3, "the tap is a vote")
    assert sent[2]["choice"] == "left"
    assert page.evaluate(ZOOMED) == NO_ZOOM


FRAMES = """async () => {
  const shifts = [];
  const observer = new PerformanceObserver((list) => shifts.push(...list.getEntries()));
  observer.observe({ type: "layout-shift", buffered: false });
  const missed = [];
  for (const key of "1t2b1") {
    const before = document.querySelector(".dl-image img").src;
    document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
    const shown = [...document.querySelectorAll(".dl-image img")];
    if (shown[0]?.src === before || !shown.every((image) => image.complete && image.naturalWidth > 0)) missed.push(key);
    await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  }
  shifts.push(...observer.takeRecords());
  return [missed, shifts.filter((shift) => shift.value > 0).length];
}"""


def test_the_next_pair_is_there_before_the_next_frame_and_nothing_shifts(
    page_studio: PageStudio, new_page: NewPage
) -> None:
    page = new_page()
    page.emulate_media(reduced_motion="reduce")
    open_label_with_pairs_ahead(page, page_studio.url)
    page.wait_for_selector("dmpo-header[data-kind]")
    wait_until_still(page)
    assert page.evaluate(FRAMES) == [[], 0]
    moving = "document.getAnimations().filter(motion => motion.playState === 'running').length"
    page.keyboard.press("1")
    assert page.evaluate(moving) == 0


def test_a_goal_and_the_last_ten_votes_to_undo_outlive_a_reload(page_studio: PageStudio, new_page: NewPage) -> None:
    page = new_page()
    open_label(page, page_studio.url)
    page.get_by_role("button", name="Voting as anonymous").click()
    page.get_by_label("Goal of this session").select_option("20")
    page.keyboard.press("Escape")
    shown = []
    for key in "12t121212121":
        shown.append(page.locator(".dl-prompt").inner_text())
        vote(page, key)
    expect(page.locator(".dl-goal")).to_contain_text("12 of 20 · ")
    page_studio.wait_for_votes(12)
    page.reload()
    page.wait_for_selector(READY)
    expect(page.locator(".dl-goal")).to_contain_text("12 of 20 · ")
    for undone in range(1, 11):
        page.keyboard.press("z")
        page_studio.wait_for_votes(12 - undone)
    expect(page.locator(".dl-undo")).to_be_disabled()
    page.wait_for_selector(READY)
    expect(page.locator(".dl-prompt")).to_have_text(shown[2])
    expect(page.locator(".dl-goal")).to_contain_text("2 of 20")


def test_the_widget_speaks_the_browsers_language_or_the_chosen_one_and_english_for_what_is_missing(
    page_studio: PageStudio, new_page: NewPage
) -> None:
    page = new_page(locale="fr-CA")
    open_label(page, page_studio.url)
    expect(page.locator(".dl-question")).to_have_text("Quelle image préférez-vous ?")
    page.get_by_role("button", name="Vous votez en tant que anonyme").click()
    page.get_by_label("Langue").select_option("de")
    expect(page.get_by_role("heading", name="Du", exact=True)).to_be_visible()
    page.keyboard.press("Escape")
    page.reload()
    page.wait_for_selector(READY)
    expect(page.get_by_role("button", name="Gleich gut")).to_be_visible()
    assert page.evaluate("[document.querySelector('dmpo-label').lang, document.querySelector('dmpo-label').dir]") == [
        "de",
        "ltr",
    ]
    without = """async () => {
      const script = document.querySelector("script[src*='label.js']");
      const { words, t } = await import(script.src.replace("label/label.js", "lib/lang.js"));
      delete words.table["choice.tie"];
      return [t("choice.tie"), t("kept", { count: 2 }), t("no.such.key")];
    }"""
    assert page.evaluate(without) == ["Tie", "2 Stimmen hier behalten, neuer Versuch folgt", "no.such.key"]
