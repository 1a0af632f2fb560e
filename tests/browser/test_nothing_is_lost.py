"""Reloads, kills and doubled requests: the person goes on where they were, and every vote counts once."""

import shutil
from collections.abc import Iterator
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Route, expect

from dmpo_app.store import Store
from tests.browser.conftest import NewPage
from tests.browser.page_studio import (
    READY,
    PageStudio,
    open_label,
    open_label_with_pairs_ahead,
    prompt_shown,
    vote,
    wait_until_sent,
)
from tests.browser.served_home import serve
from tests.patience import PATIENCE, wait_until
from tests.preloaded_process import preloaded_processes
from tests.studio_process import free_port

pytestmark = pytest.mark.browser


class KillableStudio:
    """The page on a home in a process of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self._process: ForkServerProcess | None = None

    def start(self) -> None:
        self._process = preloaded_processes().Process(target=serve, args=(self.home, self.port), daemon=True)
        self._process.start()
        wait_until(self._answers, "the page is served")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}api/v1/status", timeout=PATIENCE).is_success
        except httpx.HTTPError:  # not up yet
            return False


@pytest.fixture
def killable(home_with_images: Path, tmp_path: Path) -> Iterator[KillableStudio]:
    studio = KillableStudio(Path(shutil.copytree(home_with_images, tmp_path / "home")))
    studio.start()
    yield studio
    studio.kill()


def test_after_a_reload_the_same_pairs_come_in_the_same_order_without_the_answered_ones(
    page_studio: PageStudio, new_page: NewPage
) -> None:
    page = new_page()
    open_label(page, page_studio.url)
    prompts = []
    for _ in range(5):
        prompts.append(prompt_shown(page))
        vote(page, "s")
    for _ in range(5):
        page.keyboard.press("z")
        page.wait_for_selector(READY)
    page_studio.wait_for_votes(0)
    page.route("**/api/v1/votes", lambda route: route.abort())
    vote(page, "1")
    vote(page, "2")
    page.reload()
    page.wait_for_selector(READY)
    again = []
    for _ in range(3):
        again.append(prompt_shown(page))
        vote(page, "t")
    assert again == prompts[2:]
    page.unroute("**/api/v1/votes")
    page_studio.wait_for_votes(5)
    expect(page.locator(".dl-toast")).to_have_count(0)


def test_every_request_sent_three_times_doubles_nothing(page_studio: PageStudio, new_page: NewPage) -> None:
    page = new_page()

    def thrice(route: Route) -> None:
        route.fetch()
        route.fetch()
        route.continue_()

    page.route("**/api/v1/*", thrice)
    page.route("**/api/v1/votes/*", thrice)
    open_label(page, page_studio.url)
    for key in "12tbs":
        vote(page, key)
    page.keyboard.press("z")
    wait_until_sent(page)  # the answer to the last copy of each is what the page gets
    assert page_studio.votes == 4
    expect(page.locator(".dl-toast")).to_have_count(0)


def test_a_server_killed_in_the_middle_loses_and_doubles_nothing(killable: KillableStudio, new_page: NewPage) -> None:
    page = new_page()
    open_label_with_pairs_ahead(page, killable.url)
    vote(page, "1")
    vote(page, "2")
    killable.kill()
    vote(page, "1")
    vote(page, "2")
    expect(page.locator(".dl-saving")).to_contain_text("kept here")
    killable.start()
    expect(page.locator(".dl-saving")).to_have_text("")
    vote(page, "t")
    status = f"{killable.url}api/v1/status"
    wait_until(lambda: httpx.get(status, timeout=PATIENCE).json()["votes"] == 5, "five votes are counted")
    killable.kill()
    with Store.open(killable.home) as store:
        base = store.models.register("pocket", "stable_diffusion", "f" * 64)
        assert store.votes.count(base) == 5
        assert len({vote.pair_id for vote in store.votes.training_votes(base)}) == 5
