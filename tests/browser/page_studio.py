"""Helpers of the browser tests: they act on the page, and ask the store behind it."""

from collections.abc import Callable
from dataclasses import dataclass

from playwright.sync_api import Page, expect

from dmpo_app.web import Services
from tests.patience import wait_until
from tests.web.studio_fakes import FakeRenderer, Rounds

READY = ".dl-pair[aria-busy=false]"
DOUBLE_CLICK_MS, HOLD_MS, GESTURE_MS = 180, 300, 350
"""By the page's clock: a click on a pair that is newer than the first is no vote, a key that is held for longer than
the second is no tap, and a click that follows a gesture sooner than the third is part of it."""
IMAGES_OF_A_BATCH = 12
"""Of the pairs that the page asks for at once. Those of the next batch come when all of this one can be shown."""
PAYLOADS = [
    "<img src=x onerror=alert(1)>", "<script>alert(1)</script>", "${alert(1)}", "'-alert(1)-'", "javascript:alert(1)",
    "{{constructor.constructor('alert(1)')()}}", "\"><svg onload=alert(1)>", "</textarea><script>alert(1)</script>",
    "<svg/onload=alert(1)>", "<body onload=alert(1)>", "<iframe src=javascript:alert(1)>",
    "<a href=javascript:alert(1)>a</a>",
    "<details open ontoggle=alert(1)>", "<video><source onerror=alert(1)>", "<input autofocus onfocus=alert(1)>",
    "<math><mi//xlink:href='data:x,<script>alert(1)</script>'>", "' onmouseover='alert(1)",
    "\" onfocus=\"alert(1)\" x=\"",
    "</title><script>alert(1)</script>", "<!--><img src=x onerror=alert(1)>-->",
    "<style>@import'javascript:alert(1)'</style>",
    "<img src=x onerror=&#97;lert(1)>", "%3Cscript%3Ealert(1)%3C/script%3E",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "#{alert(1)}", "<%= alert(1) %>", "[a](javascript:alert(1))", "![a](x\"onerror=\"alert(1))", "`${alert(1)}`",
    "<template><script>alert(1)</script></template>",
]  # fmt: skip
"""Text that is a script wherever it is taken for more than text."""


@dataclass
class PageStudio:
    services: Services
    renderer: FakeRenderer
    url: str

    @property
    def votes(self) -> int:
        return self.services.store.votes.count(self.services.base)

    def wait_for_votes(self, count: int) -> None:
        wait_until(lambda: self.votes == count, f"the store holds {count} votes")

    def publish(self) -> int:
        """A round over the votes so far, from its start to its live version."""
        rounds = Rounds(self.services.store, self.services.base)
        round_id = rounds.start()
        for step in (20, 40, 80):
            rounds.step(round_id, step)
        version = rounds.publish(round_id)
        self.services.store.lease.release(self.services.base, rounds.token)
        return version


def pump_until(page: Page, condition: Callable[[], bool], what: str) -> None:
    """As `wait_until`, while the test's own handlers of the page's requests run."""
    wait_until(condition, what, pause=lambda seconds: page.wait_for_timeout(1000 * seconds))


def open_label(page: Page, url: str) -> None:
    """Open the page and wait for the first pair."""
    page.goto(url)
    page.wait_for_selector(READY)


def open_label_with_pairs_ahead(page: Page, url: str) -> None:
    """As `open_label`; then five votes need nothing of the studio to show another pair."""
    fetched: list[str] = []
    page.on(
        "requestfinished", lambda request: fetched.append(request.url) if "/api/v1/images/" in request.url else None
    )
    open_label(page, url)
    pump_until(page, lambda: len(fetched) > IMAGES_OF_A_BATCH, "images of the second batch of pairs are there")


def open_tab(page: Page, name: str) -> None:
    """Some tabs are in a menu where the window is narrow; the page is laid out once its header says something."""
    page.wait_for_selector("dmpo-header[data-kind]")
    tab = page.get_by_role("tab", name=name)
    if tab.count() > 0:
        tab.click()
    else:
        page.get_by_role("button", name="More tabs").click()
        page.locator(".overflow-dropdown button", has_text=name).click()


def wait_for_page_clock(page: Page, milliseconds: float) -> None:
    """Wait until the page's own clock has gone on by more than that."""
    page.wait_for_function("end => performance.now() > end", arg=page.evaluate("performance.now()") + milliseconds)


def wait_until_sent(page: Page) -> None:
    """Wait until the studio has answered every vote and undo made on the page, which keeps each until then."""
    page.wait_for_function("!Object.keys(localStorage).some(key => key.startsWith('dmpo.op.'))")


def wait_until_still(page: Page) -> None:
    """Wait until the page has drawn what it has, and whatever moves for a while has come to its end."""
    page.evaluate("""async () => {
      const drawn = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
      await drawn();
      const isEnding = (motion) => motion.effect.getComputedTiming().endTime < Infinity;
      await Promise.allSettled(document.getAnimations().filter(isEnding).map((motion) => motion.finished));
      await drawn();
    }""")


def prompt_shown(page: Page) -> str:
    return page.locator(".dl-prompt").inner_text()


def images_shown(page: Page) -> list[str]:
    """The addresses of both images; no two assignments share one."""
    return [image.get_attribute("src") or "" for image in page.locator(".dl-image img").all()]


def vote(page: Page, key: str) -> None:
    """Vote by key and wait until another pair is shown."""
    before = images_shown(page)
    page.keyboard.press(key)
    wait_until(lambda: images_shown(page) not in (before, []), "another pair is shown")
    expect(page.locator(READY)).to_be_visible()
