"""The page in a frame of another site, as Spaces show it, in a browser that gives frames no cookies and no storage."""

import re

import pytest
from playwright.sync_api import Frame, Page, expect

from tests.browser.conftest import NewPage
from tests.browser.page_studio import READY, PageStudio, pump_until

pytestmark = pytest.mark.browser

SPACE = "https://huggingface.co/spaces/somebody/studio"
# What browsers do that block third-party storage: touching it throws, cookies are never there.
DENY = """if (window !== window.top) {
  const denied = { get() { throw new DOMException("Access is denied for this document.", "SecurityError"); } };
  for (const name of ["localStorage", "sessionStorage", "indexedDB"]) Object.defineProperty(window, name, denied);
  Object.defineProperty(document, "cookie", { get: () => "", set: () => {} });
}"""


@pytest.fixture
def on_spaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACE_ID", "somebody/studio")


def embed(page: Page, url: str, *, ready: str = READY) -> Frame:
    """A page of another site with the studio in a frame; returns the frame once it shows what `ready` selects."""
    page.add_init_script(DENY)
    document = f'<!doctype html><title>Space</title><iframe src="{url}" style="width:1200px;height:760px"></iframe>'
    page.route(SPACE, lambda route: route.fulfill(body=document, content_type="text/html"))
    page.goto(SPACE)
    frame = page.frames[1]
    frame.wait_for_selector(ready)
    return frame


def test_votes_arrive_from_a_frame_without_cookies_or_storage(
    on_spaces: None, page_studio: PageStudio, new_page: NewPage
) -> None:
    page = new_page()
    frame = embed(page, page_studio.url)
    blocked = "() => { try { localStorage; return false; } catch { return true; } }"
    assert frame.evaluate(blocked)
    frame.locator(".dl-question").click()
    for votes, key in enumerate("12t", start=1):
        page.keyboard.press(key)
        pump_until(page, lambda votes=votes: page_studio.votes == votes, f"vote {votes} is stored")  # type: ignore[misc]
    page.keyboard.press("z")
    pump_until(page, lambda: page_studio.votes == 2, "one vote is undone")
    frame.get_by_role("button", name="Voting as anonymous").click()
    frame.get_by_label("Goal of this session").select_option("20")
    page.keyboard.press("Escape")
    expect(frame.locator(".dl-goal")).to_contain_text("2 of 20")
    frame.get_by_role("tab", name="Progress").click()
    expect(frame.locator(".pr-tile").first).to_contain_text("2")


def test_a_page_that_may_store_nothing_says_that_a_reload_makes_somebody_new(
    on_spaces: None, page_studio: PageStudio, new_page: NewPage
) -> None:
    page = new_page(locale="de-DE")
    frame = embed(page, page_studio.url)
    expect(frame.locator(".dl-forgets")).to_have_text(re.compile("nach einem Neuladen beginnst du als jemand Neues"))
    frame.get_by_role("button", name="Du stimmst ab als anonym").click()
    expect(frame.locator("dialog .dd-note")).to_have_text(frame.locator(".dl-forgets").inner_text())
    page.reload()
    page.frames[1].wait_for_selector(READY)
    assert page_studio.services.store.read("SELECT count(*) FROM annotators")[0][0] == 2
    page.goto(page_studio.url)
    page.wait_for_selector(READY)
    expect(page.locator(".dl-forgets")).to_be_hidden()
