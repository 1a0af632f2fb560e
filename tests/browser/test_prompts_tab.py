"""Prompts on the page: an administrator finds, retires and imports; suggestions come while one types."""

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import NewPage
from tests.browser.page_studio import PageStudio, open_tab

pytestmark = pytest.mark.browser


def test_an_administrator_finds_retires_and_imports_prompts_by_keyboard(
    page_studio: PageStudio, new_page: NewPage
) -> None:
    page = new_page(phone=True, dark=True)
    page.goto(page_studio.url)
    open_tab(page, "Prompts")
    expect(page.locator(".pm-filters").first).to_be_hidden()
    page.get_by_label("Token for administrators").fill("the-admin-token")
    expect(page.locator(".pm-counts")).to_contain_text("26 found · in all 24 to train on, 2 held out, 0 retired")
    page.get_by_label("Search").fill("rocket")
    expect(page.locator(".pm-counts")).to_contain_text("4 found")
    row = page.locator(".pm-row", has_text="a green rocket in the desert")
    expect(row).to_contain_text("held out")
    row.get_by_role("button", name="Retire").focus()
    page.keyboard.press("Enter")
    expect(row.get_by_role("button", name="Restore")).to_be_focused()
    assert page_studio.services.store.prompt_catalog.counts().num_retired == 1

    content = "<img src=x onerror=alert(1)>\na white cat on the beach\n"
    page.get_by_label("File").set_input_files(
        {"name": "mine.txt", "mimeType": "text/plain", "buffer": content.encode()}
    )
    expect(page.get_by_role("button", name="Import")).to_be_disabled()
    page.get_by_role("button", name="Preview").click()
    expect(page.locator(".pm-import .pm-message")).to_contain_text("1 prompt would be added, 0 of them held out")
    page.locator(".pm-refused summary").click()
    expect(page.locator(".pm-refused li")).to_contain_text("near duplicate of a held-out prompt")
    page.get_by_role("button", name="Import").click()
    expect(page.locator(".pm-import .pm-message")).to_contain_text("1 prompt added")
    page.get_by_label("Search").fill("onerror")
    expect(page.locator(".pm-text")).to_have_count(1)
    expect(page.locator(".pm-text")).to_have_text("<img src=x onerror=alert(1)>")
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


def test_prompts_of_the_set_are_suggested_and_taken_by_key(page_studio: PageStudio, new_page: NewPage) -> None:
    page = new_page()
    page.goto(page_studio.url)
    open_tab(page, "Before / after")
    field = page.locator("#ba-prompt textarea")
    field.click()
    field.fill("rock")
    first = page.get_by_role("option").first
    expect(first).to_contain_text("rocket")
    page.keyboard.press("ArrowDown")
    expect(first).to_have_attribute("aria-selected", "true")
    wanted = first.locator("span").inner_text()
    page.keyboard.press("Enter")
    expect(field).to_have_value(wanted)
    expect(page.locator(".sg-list")).to_be_hidden()
    page.keyboard.press("Control+Enter")
    expect(page.locator(".dc-details")).to_contain_text(wanted)
