from typing import Any

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Page, expect

from tests.browser.conftest import NewPage
from tests.browser.page_studio import PageStudio, open_label, open_tab, vote, wait_until_still

pytestmark = pytest.mark.browser


def violations(page: Page, part: str = "html") -> list[str]:
    """The violations that axe-core finds on the page as it is now (or in a part of it), a line a rule and element."""
    if not page.evaluate("typeof axe === 'object'"):
        page.evaluate(AXE_SCRIPT)
    found: dict[str, Any] = page.evaluate("part => axe.run(part, { resultTypes: ['violations'] })", part)
    return [f"{rule['id']}: {node['html'][:160]}" for rule in found["violations"] for node in rule["nodes"]]


OTHER_TABS = {
    "Before / after": "dmpo-compare.dc-filled",
    "Contact sheet": ".ds-cell img",
    "Progress": ".pr-version",
    "Prompts": "dmpo-prompts .ad-help",
    "Quality": "dmpo-quality .qu-help",
}
"""The tabs, and of each what is there once it has all that it shows."""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_nothing_wrong_with_any_tab_or_dialog(page_studio: PageStudio, new_page: NewPage, dark: bool) -> None:
    page = new_page(dark=dark, phone=dark)
    page.emulate_media(reduced_motion="reduce")
    page.route("**/api/v1/session/me", lambda route: route.fulfill(json={"trained": [{"version": 1, "votes": 4}]}))
    open_label(page, page_studio.url)
    for key in "1212":
        vote(page, key)
    page_studio.wait_for_votes(4)
    page_studio.publish()
    page.wait_for_selector(".dl-toast")
    wrong = {"Label": violations(page)}
    for name, selector in {"keys": ".dl-keys", "you": ".dl-you", "report": ".dl-report"}.items():
        page.locator(selector).click()
        page.wait_for_selector("dialog[open]")
        wrong[name] = violations(page, "dialog[open]")
        page.keyboard.press("Escape")
    for tab, content in OTHER_TABS.items():
        open_tab(page, tab)
        expect(page.locator(content).first).to_be_visible()
        wait_until_still(page)
        wrong[tab] = violations(page)
    assert {place: found for place, found in wrong.items() if found} == {}


def test_the_focus_goes_from_the_images_over_the_choices_to_the_tools(
    page_studio: PageStudio, new_page: NewPage
) -> None:
    page = new_page()
    open_label(page, page_studio.url)
    vote(page, "1")
    page.locator(".dl-frame").first.focus()
    order = []
    for _ in range(13):
        order.append(page.evaluate("document.activeElement.className.split(' ')[1]"))
        page.keyboard.press("Tab")
    sides = ["dl-left", "dl-tie", "dl-both_bad", "dl-skip", "dl-right"]
    assert order[2:7] == sides
    assert order[7:13] == ["dl-undo", "dl-zoom", "dl-report", "dl-judge", "dl-keys", "dl-you"]
