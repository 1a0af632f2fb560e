"""Signing in from the page, with a real provider in a process of its own: as a page, and in a frame of another site."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Frame, Page, expect

from tests.browser.conftest import NewPage
from tests.browser.page_studio import READY, PageStudio, open_label, open_tab, pump_until, vote
from tests.browser.test_accessibility import violations
from tests.browser.test_embedded import embed, on_spaces
from tests.oidc_provider import RunningProvider, running_provider

__all__ = ["on_spaces"]
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def provider() -> Iterator[RunningProvider]:
    with running_provider() as running:
        yield running


@pytest.fixture
def campaign(provider: RunningProvider) -> dict[str, Any]:
    provider.misbehave()
    return {"identity": {**provider.settings, "admins": ["ada"]}, "labeling": {"access": "login"}}


def voters(studio: PageStudio) -> list[tuple[bool, str]]:
    """Of each annotator: whether a provider vouched for them, and the name that is stored."""
    rows = studio.services.store.read("SELECT identity IS NOT NULL, handle FROM annotators ORDER BY id")
    return [(bool(row[0]), row[1]) for row in rows]


def begin(page: Page, where: Page | Frame) -> Page:
    """The window that opens for a click on Sign in, at the provider."""
    expect(where.locator(".dl-prompt")).to_have_text("Sign in to vote here.")
    with page.expect_popup() as opened:
        where.locator(".dl-ask").get_by_role("button", name="Sign in").click()
    opened.value.get_by_role("button", name="Allow as ada").wait_for()
    return opened.value


def test_who_signs_in_votes_and_administers_until_they_sign_out(page_studio: PageStudio, new_page: NewPage) -> None:
    page = new_page()
    page.goto(page_studio.url)
    window = begin(page, page)
    page.wait_for_selector("dialog[open]")
    expect(page.locator("dialog[open]")).to_be_visible()
    assert violations(page, "dialog[open]") == []
    with window.expect_event("close"):
        window.get_by_role("button", name="Allow as ada").click()
    page.wait_for_selector(READY)
    for key in "12":
        vote(page, key)
    page_studio.wait_for_votes(2)
    assert voters(page_studio) == [(True, "anonymous")]
    open_tab(page, "Progress")
    page.get_by_role("button", name="Train now").click()
    expect(page.locator(".ad-message")).to_contain_text("is queued")
    assert page_studio.services.store.audit.list()[0].actor == "administrator ada"
    open_label(page, page_studio.url)  # a reload changes nothing
    page.get_by_role("button", name="Voting as ada").click()
    expect(page.get_by_label("Your name")).to_have_count(0)
    expect(page.locator("dialog[open]")).to_be_visible()
    assert violations(page, "dialog[open]") == []
    page.get_by_role("button", name="Sign out").click()
    expect(page.locator(".dl-prompt")).to_have_text("Sign in to vote here.")
    expect(page.get_by_role("button", name="Voting as anonymous")).to_be_visible()


def test_in_a_frame_without_cookies_a_code_does_where_windows_cannot_reach_each_other(
    on_spaces: None, provider: RunningProvider, page_studio: PageStudio, new_page: NewPage
) -> None:
    provider.misbehave(isolated=True)
    page = new_page()
    frame = embed(page, page_studio.url, ready="dmpo-label .dl-ask button:visible")
    window = begin(page, frame)
    window.get_by_role("button", name="Allow as ada").click()
    window.locator("output").wait_for()
    frame.get_by_label("If that window shows a code").fill(window.locator("output").inner_text().lower())
    frame.get_by_role("button", name="Use the code").click()
    frame.wait_for_selector(READY)
    frame.locator(".dl-question").click()
    page.keyboard.press("2")
    pump_until(page, lambda: page_studio.votes == 1, "the vote is stored")
    assert voters(page_studio) == [(True, "anonymous")]


def test_in_a_frame_without_cookies_the_window_tells_the_frame(
    on_spaces: None, page_studio: PageStudio, new_page: NewPage
) -> None:
    page = new_page()
    frame = embed(page, page_studio.url, ready="dmpo-label .dl-ask button:visible")
    window = begin(page, frame)
    with window.expect_event("close"):
        window.get_by_role("button", name="Allow as ada").click()
    frame.wait_for_selector(READY)
    expect(frame.get_by_role("button", name="Voting as ada")).to_be_visible()
