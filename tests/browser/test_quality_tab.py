"""The quality tab as an administrator meets it."""

import csv
import json
import random
import zipfile
from datetime import timedelta
from pathlib import Path

import pytest
from playwright.sync_api import expect

from dmpo_app.domain.campaign import ReportReason
from dmpo_app.domain.data_import import ImportUse
from dmpo_app.domain.vote import Choice
from tests.browser.conftest import NewPage
from tests.browser.page_studio import PageStudio, open_label, open_tab
from tests.exchange.readers.preference_files import mixed_rows, write_pick_a_pic

pytestmark = pytest.mark.browser


def judge_all(studio: PageStudio, how: str, *, elapsed_ms: int) -> None:
    """A new annotator judges all pairs: by the images, or always the one on the left."""
    store, base = studio.services.store, studio.services.base
    who = store.annotators.ensure("<img src=x onerror=alert(1)>").id
    rng = random.Random(who)
    while assignments := store.assignments.issue(base, who, 8, rng=rng, lifetime=timedelta(hours=1)).result():
        for assignment in assignments:
            left = how == "left" or (assignment.a_on_left == (assignment.pair_id % 2 == 0))
            store.votes.record(
                assignment.id, who, Choice.LEFT if left else Choice.RIGHT, elapsed_ms + assignment.pair_id
            )


def test_an_administrator_sees_who_goes_by_the_side_and_takes_the_table_home(
    page_studio: PageStudio, new_page: NewPage, tmp_path: Path
) -> None:
    for how, elapsed_ms in (("images", 1500), ("images", 2500), ("images", 900), ("left", 250)):
        judge_all(page_studio, how, elapsed_ms=elapsed_ms)
    page = new_page()
    open_label(page, page_studio.url)
    open_tab(page, "Quality")
    message = page.locator(".qu-message")
    page.get_by_role("button", name="Show").click()
    expect(message).to_contain_text("Enter the administrator's token")
    token = page.get_by_label("Administrator's token, to see the quality of votes")
    token.fill("a-guess")
    token.press("Enter")
    expect(message).to_contain_text("for administrators")
    expect(page.locator(".qu-tile")).to_have_count(0)
    token.fill("the-admin-token")
    token.press("Enter")
    expect(message).to_have_text("96 votes by 4 annotators on 24 pairs.")
    rows = page.locator(".qu-table tbody tr")
    expect(rows).to_have_count(4)
    biased = rows.filter(has_text="side bias")
    expect(biased).to_have_count(1)
    expect(biased).to_contain_text("fast")
    expect(page.get_by_role("img", name="Weights of 4 annotators")).to_be_visible()
    assert "onerror" not in page.locator("dmpo-quality").inner_html()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").click()
    assert download.value.suggested_filename == "annotators.csv"
    download.value.save_as(tmp_path / "annotators.csv")
    with (tmp_path / "annotators.csv").open(newline="") as file:
        assert sorted(row["votes"] for row in csv.DictReader(file)) == ["24"] * 4
    page.get_by_label("Format of the votes").select_option("Pick-a-Pic")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download votes").click()
    assert download.value.suggested_filename == "pick-a-pic.zip"
    with zipfile.ZipFile(download.value.path()) as archive:
        assert json.loads(archive.read("manifest.json"))["rows"] > 0
    expect(message).to_have_text("The votes are downloaded.")
    [entry] = page_studio.services.store.audit.list()
    assert (entry.act, entry.subject) == ("export", "pick-a-pic")


def test_on_a_phone_in_the_dark_the_table_scrolls_by_key_and_the_page_does_not_widen(
    page_studio: PageStudio, new_page: NewPage
) -> None:
    judge_all(page_studio, "images", elapsed_ms=1500)
    page = new_page(phone=True, dark=True)
    open_label(page, page_studio.url)
    open_tab(page, "Quality")
    page.get_by_label("Administrator's token, to see the quality of votes").fill("the-admin-token")
    page.get_by_role("button", name="Show").click()
    table = page.get_by_role("region", name="Annotators, a table that scrolls")
    expect(table).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    table.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("document.querySelector('.qu-scroll').scrollLeft > 0")
    expect(page.locator(".qu-tile").first).to_contain_text("no pair was voted on by several")


def test_an_administrator_takes_a_data_set_in_by_keyboard(
    page_studio: PageStudio, new_page: NewPage, tmp_path: Path
) -> None:
    path = write_pick_a_pic(tmp_path / "<img src=x onerror=alert(1)>.parquet", mixed_rows())
    page = new_page(phone=True, dark=True)
    open_label(page, page_studio.url)
    open_tab(page, "Quality")
    form = page.locator("section", has=page.get_by_role("heading", name="Import pairs and votes"))
    message, take = form.get_by_role("status"), form.get_by_role("button", name="Import")
    form.get_by_role("button", name="Preview").click()
    expect(message).to_have_text("Choose a file, or name a data set of the hub.")
    form.get_by_label("File").set_input_files(path)
    form.get_by_role("button", name="Preview").click()
    expect(message).to_have_text("Enter the administrator's token first.")
    page.get_by_label("Administrator's token, to see the quality of votes").fill("the-admin-token")
    form.get_by_role("button", name="Preview").focus()
    page.keyboard.press("Enter")
    expect(message).to_contain_text("10 pairs and 9 votes would be added · 2 of them ties")
    form.locator("summary").click()
    expect(form.locator("details")).to_contain_text("row 5: broken image")
    assert page_studio.services.store.pairs.count(page_studio.services.base) == 24
    take.focus()
    page.keyboard.press("Enter")
    expect(message).to_contain_text("10 pairs and 9 votes imported")
    expect(take).to_be_disabled()
    assert page_studio.services.store.pairs.count(page_studio.services.base) == 34
    assert page.locator("dmpo-quality img").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


def test_an_import_under_way_is_shown_again_after_a_reload_and_can_be_forgotten(
    page_studio: PageStudio, new_page: NewPage, tmp_path: Path
) -> None:
    content = write_pick_a_pic(tmp_path / "theirs.parquet", mixed_rows()).read_bytes()
    with page_studio.services.imports.receive_file("theirs.parquet", ImportUse.BOTH, len(content)) as write:
        write(content)
    page = new_page()
    open_label(page, page_studio.url)
    open_tab(page, "Quality")
    form = page.locator("section", has=page.get_by_role("heading", name="Import pairs and votes"))
    token = page.get_by_label("Administrator's token, to see the quality of votes")
    token.fill("the-admin-token")
    token.press("Enter")
    expect(form.get_by_role("status")).to_contain_text("10 pairs and 9 votes would be added")
    form.get_by_role("button", name="Discard").click()
    expect(form.get_by_role("status")).to_have_text("")
    assert page_studio.services.imports.current is None
    form.get_by_label("Or from the hub").fill("no hub id")
    form.get_by_role("button", name="Preview").click()
    expect(form.get_by_role("status")).to_contain_text("owner/name")


@pytest.mark.parametrize("campaign", [{"public": True}])
def test_an_administrator_strikes_an_annotator_settles_reports_and_takes_it_all_back(
    page_studio: PageStudio, new_page: NewPage
) -> None:
    store, base = page_studio.services.store, page_studio.services.base
    judge_all(page_studio, "images", elapsed_ms=1500)
    who = store.annotators.ensure("reporter").id
    shown = store.assignments.issue(base, who, 3, rng=random.Random(1), lifetime=timedelta(hours=1)).result()
    rules = page_studio.services.labeling.standings.report_rules()
    for one in shown:
        store.reports.add(one.id, who, ReportReason.BROKEN, "<b>black</b>", rules=rules)
    page = new_page()
    open_label(page, page_studio.url)
    open_tab(page, "Quality")
    tab, message = page.locator("dmpo-quality"), page.locator(".qu-message")
    token = page.get_by_label("Administrator's token, to see the quality of votes")
    token.fill("the-admin-token")
    token.press("Enter")
    expect(page.locator(".qu-note")).to_have_count(2)
    expect(page.locator(".qu-note").first).to_contain_text("one person can take part as many")
    expect(page.locator(".qu-table")).to_contain_text("newcomer")
    tab.get_by_role("button", name="Strike").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    assert store.strikes.list() == []
    tab.get_by_role("button", name="Strike").click()
    page.get_by_role("dialog").get_by_role("button", name="Strike", exact=True).click()
    expect(message).to_contain_text("is struck: 24 votes, 0 reports, 0 prompts.")
    expect(page.locator(".qu-table")).to_have_count(0)
    assert store.votes.training_votes(base) == []
    tab.get_by_role("button", name="Restore").click()
    expect(message).to_contain_text("counts again")
    assert len(store.votes.training_votes(base)) == 24
    reports = tab.locator("section", has=page.get_by_role("heading", name="Reported pairs"))
    expect(reports.locator("li")).to_have_count(3)
    expect(reports.locator("li").first).to_contain_text("<b>black</b>")
    expect(reports.locator("li").first).to_contain_text("still shown to others")
    reports.get_by_role("button", name="Confirm").first.click()
    expect(reports.locator("li").first).to_contain_text("out, its votes do not count")
    reports.get_by_role("button", name="Clear all of theirs").first.click()
    expect(message).to_have_text("2 reports cleared.")
    expect(reports.locator("li")).to_have_count(1)
    reports.get_by_role("button", name="Clear", exact=True).click()
    expect(reports).to_contain_text("No report is open.")
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
