"""The page of a campaign that asks for more than a choice. The API's responses are made up: only the page is tested."""

from typing import Any

import pytest
from playwright.sync_api import Dialog, Page, Route, expect

from tests.browser.conftest import NewPage
from tests.browser.page_studio import (
    DOUBLE_CLICK_MS,
    PAYLOADS,
    READY,
    PageStudio,
    images_shown,
    open_label,
    pump_until,
    vote,
    wait_for_page_clock,
)

pytestmark = pytest.mark.browser
OPTIONAL = [".dl-report", ".dl-comment", ".dl-strengths", ".dl-consent", "dialog"]


def asks(page: Page, question: str, *extras: str) -> None:
    """Let every assignment ask a question and for more than a choice."""

    def handle(route: Route) -> None:
        answer = route.fetch()
        items = [{**item, "question": question, "asks": list(extras)} for item in answer.json()["assignments"]]
        route.fulfill(json={"assignments": items})

    page.route("**/api/v1/assignments*", handle)


def votes_sent(page: Page) -> list[Any]:
    sent: list[Any] = []
    page.on("request", lambda request: sent.append(request.post_data_json) if request.url.endswith("/votes") else None)
    return sent


def test_a_studio_that_asks_for_nothing_more_shows_nothing_more(page_studio: PageStudio, new_page: NewPage) -> None:
    page = new_page()
    page.route("**/api/v1/session/me", lambda route: route.fulfill(status=404, json={"detail": "no", "code": "no"}))
    with page.expect_response("**/api/v1/session/me"):
        open_label(page, page_studio.url)
    sent = votes_sent(page)
    vote(page, "1")
    pump_until(page, lambda: len(sent) == 1, "the vote is sent")
    for selector in OPTIONAL:
        expect(page.locator(selector).locator("visible=true")).to_have_count(0)
    assert set(sent[0]) == {"assignment", "choice", "elapsed_ms"}


def test_question_strength_and_comment_go_with_the_vote(page_studio: PageStudio, new_page: NewPage) -> None:
    page = new_page()
    asks(page, "fit", "strength", "comment")
    open_label(page, page_studio.url)
    sent = votes_sent(page)
    expect(page.locator(".dl-question")).to_have_text("Which image fits the prompt better?")
    page.get_by_role("button", name="Comment").click()
    page.get_by_label("Sent with your vote").fill("the boat is not red")
    page.get_by_role("button", name="Keep").click()
    vote(page, "1")
    vote(page, "Shift+2")
    vote(page, "t")
    before = images_shown(page)
    wait_for_page_clock(page, DOUBLE_CLICK_MS)
    page.locator(".dl-frame").nth(1).click()
    expect(page.locator(".dl-how")).to_have_text("How much better is B?")
    page.get_by_role("button", name="Slightly better").click()
    pump_until(page, lambda: len(sent) == 4, "all four votes are sent")
    pump_until(page, lambda: images_shown(page) != before, "another pair is shown")
    said = [(body["choice"], body.get("strength"), body.get("comment")) for body in sent]
    assert said == [
        ("left", "clearly", "the boat is not red"),
        ("right", "slightly", None),
        ("tie", None, None),
        ("right", "slightly", None),
    ]


def test_what_is_written_in_a_comment_is_text(page_studio: PageStudio, new_page: NewPage) -> None:
    page = new_page()
    asks(page, "overall", "comment")
    said: list[str] = []

    def dismiss(dialog: Dialog) -> None:
        said.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", dismiss)
    open_label(page, page_studio.url)
    for text in PAYLOADS:
        page.get_by_role("button", name="Comment").click()
        page.get_by_label("Sent with your vote").fill(text)
        page.get_by_role("button", name="Keep").click()
    page.get_by_role("button", name="Comment").click()
    expect(page.get_by_label("Sent with your vote")).to_have_value(PAYLOADS[-1])
    assert said == []


def test_a_reported_pair_is_passed_over_and_trained_versions_are_told(
    page_studio: PageStudio, new_page: NewPage
) -> None:
    page = new_page()
    page.route(
        "**/api/v1/session/me",
        lambda route: route.fulfill(json={"trained": [{"version": 3, "votes": 2}, {"version": 4, "votes": 5}]}),
    )
    reports: list[Any] = []

    def take(route: Route) -> None:
        reports.append(route.request.post_data_json)
        route.fulfill(status=201, json={"report": 1})

    page.route("**/api/v1/reports", take)
    open_label(page, page_studio.url)
    before = images_shown(page)
    page.get_by_role("button", name="Report").click()
    page.get_by_label("Broken image").check()
    page.get_by_label("Details (optional)").fill("half of it is grey")
    page.get_by_role("button", name="Send report").click()
    expect(page.locator(".dl-toast")).to_contain_text("The pair was reported")
    page.wait_for_selector(READY)
    assert images_shown(page) != before
    assert [(body["reason"], body["text"]) for body in reports] == [("broken", "half of it is grey")]
    page.get_by_role("button", name="Voting as anonymous").click()
    expect(page.locator(".dd-facts")).to_contain_text("Your votes trained versions 3, 4.")
    assert page_studio.votes == 0


def test_nothing_is_shown_before_the_terms_are_agreed_to(page_studio: PageStudio, new_page: NewPage) -> None:
    page = new_page()
    terms = {"needed": True, "text": "Votes are published.\n<b>CC0</b>", "version": "2", "sha256": "ab" * 32}
    agreed: list[Any] = []

    def consent(route: Route) -> None:
        if route.request.method == "POST":
            agreed.append(route.request.post_data_json)
        route.fulfill(json=terms)

    def assignments(route: Route) -> None:
        if agreed:
            route.continue_()
        else:
            route.fulfill(status=403, json={"detail": "agree first", "code": "consent_needed"})

    page.route("**/api/v1/consent", consent)
    page.route("**/api/v1/assignments*", assignments)
    page.goto(page_studio.url)
    dialog = page.get_by_role("dialog", name="Before you vote")
    expect(dialog).to_contain_text("<b>CC0</b>")
    dialog.get_by_role("button", name="Not now").click()
    expect(page.locator(".dl-prompt")).to_contain_text("Voting starts when you agree")
    page.get_by_role("button", name="Read and agree").click()
    dialog.get_by_role("button", name="I agree").click()
    page.wait_for_selector(READY)
    assert agreed == [{"sha256": terms["sha256"]}]
    vote(page, "1")
    page_studio.wait_for_votes(1)


def test_a_person_downloads_and_withdraws_their_votes(page_studio: PageStudio, new_page: NewPage) -> None:
    page, withdrawn = new_page(), {"withdrawn": 1, "versions": [], "votes_until_round": 4}
    page.route("**/api/v1/session/me", lambda route: route.fulfill(json={"trained": []}))
    page.route("**/api/v1/votes/export*", lambda route: route.fulfill(body="vote,choice\n1,left\n"))
    page.route("**/api/v1/votes/withdraw", lambda route: route.fulfill(json=withdrawn))
    open_label(page, page_studio.url)
    vote(page, "1")
    page.get_by_role("button", name="Voting as anonymous").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download my votes").click()
    assert download.value.suggested_filename == "my-votes.csv"
    page.get_by_role("button", name="Withdraw all my votes").click()
    page.get_by_role("dialog", name="Withdraw all").get_by_role("button", name="Withdraw all my votes").click()
    expect(page.locator(".dl-toast")).to_have_text("1 vote withdrawn.×")
    expect(page.locator(".dl-undo")).to_be_disabled()


def test_an_invitation_goes_with_the_session_and_one_that_is_used_up_loses_nobody_their_place(
    page_studio: PageStudio, new_page: NewPage
) -> None:
    page = new_page()
    sessions: list[Any] = []

    def open_session(route: Route) -> None:
        sessions.append(route.request.post_data_json)
        if len(sessions) > 1:
            route.fulfill(status=403, json={"detail": "This link is used up.", "code": "invite_needed"})
        else:
            route.continue_()

    page.route("**/api/v1/session", open_session)
    open_label(page, f"{page_studio.url}?invite=sealed")
    page.get_by_role("button", name="Voting as anonymous").click()
    page.get_by_label("Your name (optional)").fill("Ada")
    page.keyboard.press("Enter")
    expect(page.locator(".dl-prompt")).to_have_text("This link is used up.")
    expect(page.get_by_role("button", name="Voting as anonymous")).to_be_visible()
    page.reload()
    page.wait_for_selector(READY)
    assert [body.get("invite") for body in sessions] == ["sealed", "sealed"]
