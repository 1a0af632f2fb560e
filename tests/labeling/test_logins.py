"""Ways of signing in: once, in time, and only for who began them."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography.fernet import Fernet

from dmpo_app.errors import BusyError, LoginRefusedError
from dmpo_app.labeling import Sealer, sign_in
from dmpo_app.labeling.sign_in import Logins, Person

ADA = Person("https://sign_in.example.org", "ada", "Ada", None)


class Clock:
    def __init__(self) -> None:
        self.at = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sealer() -> Sealer:
    return Sealer(Fernet.generate_key())


@pytest.fixture
def logins(sealer: Sealer, clock: Clock) -> Logins:
    return Logins(sealer, now=clock)


def test_who_began_gets_the_person_once(logins: Logins) -> None:
    begun = logins.begin()
    way = logins.accept_state(begun.state)
    assert way == begun.attempt
    code = logins.complete(way, ADA)
    assert logins.redeem(begun.ticket, f" {code[:4].lower()} {code[4:]} ") == ADA
    with pytest.raises(LoginRefusedError):
        logins.redeem(begun.ticket, code)


def test_a_state_comes_back_once_in_time_and_to_the_process_that_began(
    logins: Logins, sealer: Sealer, clock: Clock
) -> None:
    begun, late = logins.begin(), logins.begin()
    logins.accept_state(begun.state)
    with pytest.raises(LoginRefusedError, match="before"):
        logins.accept_state(begun.state)
    restarted = Logins(sealer, now=clock)
    for state in (late.state, late.ticket, late.state[:-2], "", sealer.seal_session("annotator"), "é" * 9):
        with pytest.raises(LoginRefusedError, match="not begun here"):
            restarted.accept_state(state)
    clock.at += sign_in.LIFETIME
    with pytest.raises(LoginRefusedError, match="too long ago"):
        logins.accept_state(late.state)


def test_neither_a_ticket_nor_a_code_alone_is_anybody(logins: Logins) -> None:
    mine, theirs = logins.begin(), logins.begin()
    code = logins.complete(logins.accept_state(theirs.state), ADA)
    logins.complete(logins.accept_state(mine.state), ADA)
    for ticket in (mine.ticket, mine.state, theirs.state, "", "forged"):
        with pytest.raises(LoginRefusedError):
            logins.redeem(ticket, code)
    assert logins.redeem(theirs.ticket, code) == ADA


def test_a_few_wrong_codes_end_the_way(logins: Logins) -> None:
    begun = logins.begin()
    code = logins.complete(logins.accept_state(begun.state), ADA)
    for wrong in ["", "\ud800", *["AAAAAAAA"] * (sign_in.MAX_TRIES - 2)]:
        with pytest.raises(LoginRefusedError, match="not the code"):
            logins.redeem(begun.ticket, wrong)
    with pytest.raises(LoginRefusedError, match="used already"):
        logins.redeem(begun.ticket, code)


def test_a_code_is_good_for_some_minutes(logins: Logins, clock: Clock) -> None:
    begun = logins.begin()
    code = logins.complete(logins.accept_state(begun.state), ADA)
    clock.at += sign_in.LIFETIME
    with pytest.raises(LoginRefusedError):
        logins.redeem(begun.ticket, code)


def test_what_is_remembered_is_bounded_and_forgotten_in_time(
    logins: Logins, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sign_in, "MAX_REMEMBERED", 3)
    for _ in range(3):
        logins.accept_state(logins.begin().state)
    with pytest.raises(BusyError):
        logins.accept_state(logins.begin().state)
    clock.at += sign_in.LIFETIME
    logins.accept_state(logins.begin().state)


def test_an_administrators_token_is_of_its_kind_and_ends(logins: Logins, sealer: Sealer, clock: Clock) -> None:
    token = logins.seal_administrator("ada: the first")
    assert logins.open_administrator(token) == "ada: the first"
    for other in (sealer.seal_session("ada"), logins.begin().ticket, "", token[1:]):
        assert logins.open_administrator(other) is None
    clock.at += timedelta(hours=12)
    assert logins.open_administrator(token) is None
