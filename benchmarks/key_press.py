"""From a key press to the next pair on the screen, in a real browser beside 50 other annotators; and no press is lost.

    python -m benchmarks.key_press [--presses 500] [--annotators 50] [--quick]

The page itself measures: from the time stamp of the key's event to the start of the frame that shows the next pair, and
to the moment after that frame was painted. Presses come ten a second. Then every request is sent three times, and
then the server is killed with -9 and started again in the middle: each time the votes in the database have to be the
presses that met a pair.
"""

import argparse
import asyncio
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, Route, sync_playwright

from benchmarks.load import Taken, run
from benchmarks.report import machine, percentile, print_table
from benchmarks.seeded_home import quiet_studio, seed
from tests.browser.conftest import ARGUMENTS, DESKTOP, chromium_path
from tests.browser.page_studio import open_label, pump_until
from tests.patience import PATIENCE
from tests.studio_process import StudioProcess

WATCH = """
window.presses = [];
const shown = () => [...document.querySelectorAll(".dl-image img")].map(image => image.src).join();
addEventListener("keydown", event => {
  const met = document.querySelector(".dl-pair")?.getAttribute("aria-busy") === "false";
  const press = { met, frame: null, painted: null }, before = shown(), begun = event.timeStamp;
  window.presses.push(press);
  if (!met) return;
  const look = frame => {
    if (shown() === before || !shown()) return requestAnimationFrame(look);
    press.frame = Math.max(0, performance.now() - begun);
    const channel = new MessageChannel();
    channel.port1.onmessage = () => { press.painted = performance.now() - begun; };
    channel.port2.postMessage(null);
  };
  requestAnimationFrame(look);
}, { capture: true });
"""
UNSENT = "Object.keys(localStorage).filter(key => key.startsWith('dmpo.op.')).length"


def new_page(browser: Browser, url: str) -> Page:
    page = browser.new_context(viewport=DESKTOP).new_page()
    page.add_init_script(WATCH)
    page.set_default_timeout(1000 * PATIENCE)
    open_label(page, url)
    page.wait_for_timeout(1500)  # the pairs behind the first are fetched
    return page


def press(page: Page, count: int, *, a_second: float) -> None:
    """Presses at fixed times, left and right in turn."""
    started = time.perf_counter()
    for number in range(count):
        page.keyboard.press("12"[number % 2])
        page.wait_for_timeout(max(0.0, 1000 * (started + (number + 1) / a_second - time.perf_counter())))


def settled(page: Page) -> list[dict[str, Any]]:
    """Wait until every vote is acknowledged, and return the times that the page noted."""
    pump_until(page, lambda: page.evaluate(UNSENT) == 0, "every vote has arrived")
    presses: list[dict[str, Any]] = page.evaluate("window.presses")
    return presses


def votes_now(studio: StudioProcess) -> int:
    return int(studio.wait_for(bool, seconds=30)["votes"])


def beside_others(browser: Browser, studio: StudioProcess, presses: int, annotators: int) -> list[dict[str, Any]]:
    """Presses while others vote; what was noted of them. Raises AssertionError when a vote is missing or doubled."""
    others: list[Taken] = []
    page = new_page(browser, studio.url)
    before = votes_now(studio)
    work = threading.Thread(
        target=lambda: others.append(asyncio.run(run(studio.url, annotators, 5 + presses / 10 * 1.1)))
    )
    work.start()
    time.sleep(4)
    press(page, presses, a_second=10)
    noted = settled(page)
    work.join()
    check("beside others", noted, votes_now(studio) - before - len(others[0].acknowledged))
    page.context.close()
    return noted


def sent_thrice(browser: Browser, studio: StudioProcess, presses: int) -> str:
    page = new_page(browser, studio.url)
    before = votes_now(studio)

    def thrice(route: Route) -> None:
        route.fetch()
        route.fetch()
        route.continue_()

    page.route("**/api/v1/*", thrice)
    page.route("**/api/v1/votes/*", thrice)
    press(page, presses, a_second=4)
    noted = settled(page)
    page.unroute_all(behavior="wait")
    said = check("every request sent three times", noted, votes_now(studio) - before)
    page.context.close()
    return said


def killed(browser: Browser, studio: StudioProcess, presses: int) -> str:
    page = new_page(browser, studio.url)
    before = votes_now(studio)
    press(page, presses // 3, a_second=10)
    studio.kill()
    press(page, presses // 3, a_second=10)
    starting = threading.Thread(target=studio.start)
    starting.start()
    while starting.is_alive():  # as somebody who goes on pressing
        press(page, 2, a_second=4)
    press(page, presses // 3, a_second=10)
    noted = settled(page)
    said = check("server killed in the middle", noted, votes_now(studio) - before)
    page.context.close()
    return said


def check(what: str, noted: list[dict[str, Any]], found: int) -> str:
    met = sum(press["met"] for press in noted)
    said = f"{what}: {len(noted)} presses, {met} met a pair, {found} votes; lost or doubled: {abs(found - met)}"
    print(said, flush=True)
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presses", type=int, default=500)
    parser.add_argument("--annotators", type=int, default=50)
    parser.add_argument("--quick", action="store_true", help="60 presses beside 10 others")
    arguments = parser.parse_args()
    presses, annotators = (60, 10) if arguments.quick else (arguments.presses, arguments.annotators)
    print(f"{machine()}; {presses} presses, {annotators} other annotators\n", flush=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=ARGUMENTS)
        with quiet_studio(seed(Path(folder) / "home", presses + 200)) as studio:
            noted = beside_others(browser, studio, presses, annotators)
            sent_thrice(browser, studio, min(presses, 120))
            killed(browser, studio, min(presses, 150))
        browser.close()
    rows = []
    for name, key, wanted in (("frame begins", "frame", "p50 17, p95 50"), ("frame painted", "painted", "")):
        values = [press[key] for press in noted if press[key] is not None]
        figures = [f"{percentile(values, share):.1f}" for share in (0.5, 0.95, 0.99)]
        rows.append([name, len(values), *figures, f"{max(values):.1f}", wanted])
    print()
    print_table(("from the key to", "pairs shown", "p50 ms", "p95 ms", "p99 ms", "max ms", "wanted"), rows)


if __name__ == "__main__":
    main()
