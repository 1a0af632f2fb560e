"""The page on ZeroGPU: images and minutes go through Gradio's queue, votes as everywhere."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest
from playwright.sync_api import expect

from dmpo_app.domain.lineage import RenderedImage, RenderRequest
from dmpo_app.errors import GpuRefusedError
from dmpo_app.ui import build_ui, launch
from tests.browser.conftest import NewPage
from tests.browser.page_studio import PageStudio, open_label, open_tab, vote
from tests.web.studio_fakes import FakeRenderer

pytestmark = pytest.mark.browser
REFUSAL = "There is no GPU time left for you just now: try again in 1:00:00."


@dataclass
class FakeLending:
    """Draws scenes, says words; `refuses` instead."""

    renderer: FakeRenderer
    refuses: bool = False
    lent: int = 0
    asked: list[RenderRequest] = field(default_factory=list)

    def run_minute(self) -> Iterator[str]:
        if self.refuses:
            raise GpuRefusedError(REFUSAL)
        yield "Asking for a GPU…"
        self.lent += 1
        yield f"Thank you, {self.lent}."

    def render(self, request: RenderRequest) -> list[RenderedImage]:
        if self.refuses:
            raise GpuRefusedError(REFUSAL)
        self.asked.append(request)
        return self.renderer.submit(request).result()


@dataclass
class LentPage:
    url: str
    lending: FakeLending


@pytest.fixture
def lent(page_studio: PageStudio) -> Iterator[LentPage]:
    lending = FakeLending(page_studio.renderer)
    services = replace(page_studio.services, mode="zerogpu", gpu_minutes=lending)
    server = launch(build_ui(services), services)
    yield LentPage(server.url, lending)
    server.close()


def test_images_come_through_the_queue_and_only_when_asked_for(
    lent: LentPage, page_studio: PageStudio, new_page: NewPage
) -> None:
    page_studio.publish()
    page = new_page()
    open_label(page, lent.url)
    vote(page, "1")
    page_studio.wait_for_votes(1)
    open_tab(page, "Before / after")
    expect(page.locator("#ba-right input")).to_have_value("Version 1 · live")
    page.locator("#ba-prompt textarea").fill("a pink house in the snow")
    page.locator("#ba-render").click()
    page.wait_for_selector("dmpo-compare.dc-filled")
    assert [(asked.prompt, asked.versions) for asked in lent.lending.asked] == [("a pink house in the snow", (0, 1))]
    page.get_by_role("button", name="⚄ Roll").click()
    expect(page.locator(".dc-details")).not_to_contain_text("seed 7 ")
    assert lent.lending.asked[-1].seed != 7
    lent.lending.refuses = True
    page.locator("#ba-render").click()
    expect(page.locator(".dc-message")).to_have_text(REFUSAL)


def test_a_minute_is_lent_with_a_button_and_train_now_lends_the_first(lent: LentPage, new_page: NewPage) -> None:
    page = new_page()
    open_label(page, lent.url)
    for key in ("1", "2"):
        vote(page, key)
    open_tab(page, "Progress")
    said = page.locator("#lend-said textarea")
    page.locator("#lend-minute").click()
    expect(said).to_have_value("Thank you, 1.")
    expect(page.locator(".pr-tiles")).to_contain_text("GPU minutes that people lend")
    page.locator("dmpo-progress .ad-token").fill("the-admin-token")
    page.locator(".ad-train").click()
    expect(page.locator("dmpo-progress .ad-message")).to_contain_text("is queued")
    expect(said).to_have_value("Thank you, 2.")
    lent.lending.refuses = True
    page.locator("#lend-minute").click()
    expect(said).to_have_value(REFUSAL)
