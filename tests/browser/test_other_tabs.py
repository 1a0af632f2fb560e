import httpx
import pytest
from playwright.sync_api import Route, expect

from tests.browser.conftest import NewPage
from tests.browser.page_studio import PageStudio, open_label, open_tab, vote
from tests.patience import PATIENCE
from tests.web.studio_fakes import Rounds

pytestmark = pytest.mark.browser


def test_both_versions_are_rendered_and_named_and_a_new_one_appears_in_the_lists(
    page_studio: PageStudio, new_page: NewPage
) -> None:
    page = new_page()
    open_label(page, page_studio.url)
    open_tab(page, "Before / after")
    expect(page.locator("#ba-right input")).to_have_value("Base · live")
    page.locator("#ba-prompt textarea").fill("a pink house in the snow")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".dc-side figcaption").first).to_contain_text("Base model before any vote")
    assert page_studio.renderer.requests[-1].prompt == "a pink house in the snow"
    open_tab(page, "Label")
    for key in ("1", "2", "1", "2"):
        vote(page, key)
    page_studio.wait_for_votes(4)
    page_studio.publish()
    open_tab(page, "Before / after")
    expect(page.locator("#ba-right input")).to_have_value("Version 1 · live")
    expect(page.locator("#ba-left input")).to_have_value("Base")
    expect(page.locator(".dc-side figcaption").nth(1)).to_contain_text("Version 1 learned from 4 votes")
    sources = [page.locator(".dc-box img").nth(i).get_attribute("src") for i in (0, 1)]
    assert sources[0] != sources[1]
    with page.expect_download() as download:
        page.get_by_role("link", name="Download version 1").click()
    assert download.value.suggested_filename == "dmpo-version-1.safetensors"


def test_a_withheld_image_is_explained_instead_of_shown_black(page_studio: PageStudio, new_page: NewPage) -> None:
    page_studio.renderer.withheld = {0}
    page = new_page()
    open_label(page, page_studio.url)
    open_tab(page, "Before / after")
    page.locator("#ba-render").click()
    expect(page.locator(".dc-message")).to_have_text(
        "2 images were withheld by the model's safety checker. Try another seed or prompt."
    )
    expect(page.locator(".dc-withheld").first).to_be_visible()
    page_studio.renderer.withheld = set()
    page.locator("#ba-render").click()
    expect(page.locator(".dc-withheld").first).to_be_hidden()
    expect(page.locator(".dc-message")).to_have_text("")


def test_the_wipe_moves_by_pointer_and_by_key(page_studio: PageStudio, new_page: NewPage) -> None:
    page = new_page()
    open_label(page, page_studio.url)
    open_tab(page, "Before / after")
    page.locator("#ba-render").click()
    page.wait_for_selector("dmpo-compare.dc-filled")
    page.get_by_role("button", name="Wipe").click()
    handle = page.get_by_role("slider", name="Where the left image ends")
    expect(handle).to_have_attribute("aria-valuenow", "50")
    box = page.locator("dmpo-wipe").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + 50)
    page.mouse.up()
    expect(handle).to_have_attribute("aria-valuenow", "25")
    moves = {"ArrowRight": "27", "Shift+ArrowLeft": "17", "End": "100", "Home": "0", "PageUp": "10"}
    for key, value in moves.items():
        handle.press(key)
        expect(handle).to_have_attribute("aria-valuenow", value)


def test_a_refused_render_says_why(page_studio: PageStudio, new_page: NewPage) -> None:
    page = new_page()
    open_label(page, page_studio.url)
    open_tab(page, "Before / after")
    page_studio.renderer.full = True
    page.locator("#ba-render").click()
    expect(page.locator(".dc-message")).to_contain_text("32 people are waiting")
    page.locator("#ba-prompt textarea").fill(" ")
    page.locator("#ba-render").click()
    expect(page.locator(".dc-message")).to_have_text("Write a prompt first.")


def test_a_model_that_failed_to_load_is_explained(page_studio: PageStudio, new_page: NewPage) -> None:
    page_studio.renderer.failed = "the base model is incomplete; run `dmpo doctor`"
    page = new_page()
    open_label(page, page_studio.url)
    expect(page.locator("dmpo-header")).to_have_text("model not loaded")
    expect(page.locator("dmpo-label .rc-notes")).to_contain_text("run `dmpo doctor`")


def test_the_contact_sheet_shows_a_row_with_its_images(page_studio: PageStudio, new_page: NewPage) -> None:
    page = new_page()
    open_label(page, page_studio.url)
    open_tab(page, "Contact sheet")
    expect(page.locator(".ds-cell img")).to_have_count(2)
    expect(page.locator(".ds-row .ds-name").nth(1)).to_contain_text("Base model")


def test_an_administrator_trains_and_rolls_back_from_the_page(page_studio: PageStudio, new_page: NewPage) -> None:
    page = new_page()
    open_label(page, page_studio.url)
    for key in ("1", "2", "1", "2"):
        vote(page, key)
    page_studio.wait_for_votes(4)
    page_studio.publish()
    open_tab(page, "Progress")
    expect(page.locator(".pr-version.pr-live")).to_contain_text("Version 1")
    expect(page.locator("dmpo-progress")).to_contain_text("nobody has judged version 1 against the base model yet")
    expect(page.locator(".pr-version.pr-live")).to_contain_text("It agrees with 71 of 96 votes it has not seen")
    expect(page.locator(".pr-curve")).to_have_count(3)
    page.get_by_role("button", name="Make the base model live").click()
    expect(page.locator(".ad-message")).to_contain_text("Enter the administrator's token")
    token = page.get_by_label("Administrator's token")
    token.fill("wrong")
    page.get_by_role("button", name="Make the base model live").click()
    expect(page.locator(".ad-message")).to_contain_text("does not match")
    token.fill("the-admin-token")
    page.get_by_role("button", name="Make the base model live").click()
    expect(page.locator(".pr-version.pr-live")).to_contain_text("Base model")
    assert page_studio.services.store.adapters.live_version(page_studio.services.base) == 0
    page.get_by_role("button", name="Train now").click()
    expect(page.locator(".ad-message")).to_contain_text("is queued")
    assert "the-admin-token" not in page.evaluate("JSON.stringify(localStorage) + document.cookie")


@pytest.mark.parametrize("phone", [False, True], ids=["light desk", "dark phone"])
def test_a_rounds_health_unfolds_by_key_stays_open_and_says_what_stopped_it(
    page_studio: PageStudio, new_page: NewPage, phone: bool
) -> None:
    store, base = page_studio.services.store, page_studio.services.base
    rounds = Rounds(store, base)
    round_id = rounds.start()
    drift = {"saturation": 1.4, "contrast": 3.1, "sharpness": 1.2, "diversity": 0.4}
    rounds.step(round_id, 10, health={"chosen_gain": -0.01, "grad_norm": 3.0, "adapter_norm": 0.5})
    rounds.step(round_id, 20, health={"chosen_gain": -0.02, "grad_norm": 5.0, "adapter_norm": 0.9, **drift})
    rounds.publish(round_id, reason="stopped at step 20: the contrast is 3.1, <b>the limit</b> is 2.5")
    page = new_page(phone=phone, dark=phone)
    page.goto(page_studio.url)
    open_tab(page, "Progress")
    health = page.locator(".pr-health")
    expect(health.locator("summary")).to_have_text("Health of round 1")
    expect(health.locator(".pr-curve").first).to_be_hidden()
    health.locator("summary").focus()
    page.keyboard.press("Enter")
    expect(health.locator(".pr-curve")).to_have_count(7)
    expect(health.get_by_role("img", name="Contrast, of its images, over the base model's")).to_be_visible()
    expect(health).to_contain_text("× 3.10")
    expect(page.locator(".pr-why")).to_have_text("stopped at step 20: the contrast is 3.1, <b>the limit</b> is 2.5")
    page.evaluate("document.querySelector('dmpo-progress').refresh()")
    expect(health.locator(".pr-curve").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


def test_every_tab_works_at_phone_width(page_studio: PageStudio, new_page: NewPage) -> None:
    page = new_page(phone=True, dark=True)
    open_label(page, page_studio.url)
    for tab, element in (
        ("Before / after", "dmpo-compare"),
        ("Contact sheet", "dmpo-sheet"),
        ("Progress", "dmpo-progress"),
        ("Quality", "dmpo-quality"),
        ("Label", "dmpo-label"),
    ):
        open_tab(page, tab)
        expect(page.locator(element)).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, tab


def test_a_frozen_trainer_is_told_of_in_the_midst_of_a_round_and_no_longer_once_it_is_well(
    page_studio: PageStudio, new_page: NewPage
) -> None:
    page = new_page()
    trainer = {"running": False, "restarts": 0, "message": "no sign of life for 16 s", "phase": "training"}
    round_ = {"id": 1, "status": "running", "step": 3, "steps": 10, "votes": 8, "trigger": "votes", "parent_version": 0}
    numbers = {"loss": 0.5, "margin": 0.1, "accuracy": 0.6, "eta_seconds": 5.0}
    status = httpx.get(f"{page_studio.url}api/v1/status", timeout=PATIENCE).raise_for_status().json()

    def answer(route: Route) -> None:
        route.fulfill(json={**status, "trainer": trainer, "round": {**round_, **numbers}})

    page.route("**/api/v1/status", answer)
    open_label(page, page_studio.url)
    expect(page.locator(".rc-notes").first).to_have_text("The trainer is not running: no sign of life for 16 s")
    open_tab(page, "Progress")
    tile = page.locator(".pr-tile", has_text="Trainer").locator("b")
    expect(tile).to_have_text("no sign of life for 16 s")
    trainer |= {"running": True, "message": "", "phase": "evaluating"}
    expect(tile).to_have_text("evaluating")
    expect(page.locator("dmpo-progress .rc-notes")).to_contain_text("3 / 10")
