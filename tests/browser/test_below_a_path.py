"""The page below a path of a proxy, which takes the path off its requests or does not, set in the studio or not."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import NewPage
from tests.browser.page_studio import PageStudio, open_label, open_tab, vote

pytestmark = pytest.mark.browser
PATH = "/studio"
TABS = ("Contact sheet", "Progress", "Prompts", "Quality", "Before / after")


CASES = {
    "set and passed on": (PATH, False),
    "not set and taken off": ("", True),  # set and taken off: tests/web/test_behind_nginx.py
}


@pytest.fixture(params=CASES.values(), ids=list(CASES))
def case(request: pytest.FixtureRequest) -> tuple[str, bool]:
    """The root path that is set, and whether the proxy takes it off."""
    chosen: tuple[str, bool] = request.param
    return chosen


@pytest.fixture
def campaign(case: tuple[str, bool]) -> dict[str, Any]:
    return {"root_path": case[0]}


def taken_off(origin: str) -> Callable[[Route], None]:
    """A proxy that takes the path off."""

    def pass_on(route: Route) -> None:
        below = route.request.url.removeprefix(f"{origin}{PATH}")
        route.fulfill(response=route.fetch(url=origin + below))

    return pass_on


def use_every_tab(page: Page, page_studio: PageStudio, url: str) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    open_label(page, url)
    vote(page, "1")
    page_studio.wait_for_votes(1)
    for tab in TABS:
        open_tab(page, tab)
    page.get_by_role("button", name="a white cat on a beach").click()
    page.locator("#ba-render").click()
    expect(page.locator(".dc-details")).to_contain_text("a white cat on a beach")
    expect(page.locator(".dc-side img").first).to_be_visible()
    assert page.evaluate("getComputedStyle(document.body).getPropertyValue('--primary-600')")  # Gradio's theme is there
    strays = [address for address in asked if not address.startswith((url, "data:", "blob:"))]
    assert strays == []


def test_every_tab_works_below_the_path(page_studio: PageStudio, new_page: NewPage, case: tuple[str, bool]) -> None:
    origin = f"http://{urlsplit(page_studio.url).netloc}"
    page = new_page()
    if case[1]:
        page.route(f"{origin}{PATH}/**", taken_off(origin))
    use_every_tab(page, page_studio, f"{origin}{PATH}/")
