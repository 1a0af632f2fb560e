"""Records that establish an annotator: enough votes, the first long enough ago, nothing that speaks against them."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest

from dmpo_app.domain.vote import Outcome
from dmpo_app.labeling.quality.standing import find_established, open_studio_note
from dmpo_app.settings import IdentitySettings, LabelingSettings, NewcomerSettings, Settings
from tests.labeling.quality.crowds import Vote, crowd, said

NOW = datetime(2026, 1, 3, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=2)
RULES = NewcomerSettings(record_votes=20, record_hours=24)


def established(
    votes: list[Vote],
    *,
    vouched: set[int] | None = None,
    first: Mapping[int, datetime] | None = None,
    gold: Mapping[int, Outcome] | None = None,
) -> set[int]:
    first_votes = dict.fromkeys((vote.annotator_id for vote in votes), LONG_AGO) | dict(first or {})
    return set(
        find_established(votes, vouched=vouched or set(), first_votes=first_votes, rules=RULES, now=NOW, gold=gold)
    )


def alternating(annotator_id: int, letters: str) -> list[Vote]:
    """Votes with image a twice on the right, twice on the left, so that letters in turns go to both sides."""
    return [
        Vote(vote.annotator_id, vote.pair_id, vote.outcome, bool(vote.pair_id // 2 % 2))
        for vote in said(annotator_id, letters)
    ]


def test_a_record_takes_so_many_votes_that_say_something_and_so_long() -> None:
    votes = [*alternating(1, "a" * 20), *alternating(2, "a" * 19 + "s" * 9), *alternating(3, "abat" * 7)]
    assert established(votes) == {1, 3}
    assert established(alternating(4, "a" * 19 + "t" * 40)) == set(), "ties can be held against nothing"
    assert established(votes, first={1: NOW - timedelta(hours=23)}) == {3}


def test_whom_somebody_vouches_for_needs_no_record_nor_a_vote() -> None:
    assert established(alternating(1, "aab"), vouched={1, 9}) == {1, 9}


def test_no_votes_establish_nobody() -> None:
    assert established([]) == set()


@pytest.mark.parametrize("left", [True, False])
def test_who_clicks_one_side_stays_a_newcomer(left: bool) -> None:
    clicks = [Vote(1, pair, Outcome.A if pair % 2 == left else Outcome.B, bool(pair % 2)) for pair in range(40)]
    assert established([*clicks, *alternating(2, "ab" * 20)]) == {2}


def test_who_contradicts_themselves_or_the_gold_pairs_stays_a_newcomer() -> None:
    steady = alternating(1, "ab" * 15)
    again = [Vote(1, vote.pair_id, vote.outcome, not vote.a_on_left) for vote in steady[:12]]
    turned = [
        Vote(2, vote.pair_id, Outcome.B if vote.outcome is Outcome.A else Outcome.A, not vote.a_on_left)
        for vote in again
    ]
    votes = [*steady, *again, *alternating(2, "ab" * 15), *turned]
    assert established(votes) == {1}
    gold = dict.fromkeys(range(0, 24, 2), Outcome.B)
    assert established(alternating(1, "ab" * 15), gold=gold) == set()


def test_who_votes_against_those_before_them_stays_a_newcomer_and_who_merely_differs_does_not() -> None:
    honest = [vote for k in range(3) for vote in alternating(k, "ab" * 15)]
    hostile, different = alternating(7, "ba" * 15), alternating(8, "abba" * 7)
    assert established([*honest, *hostile, *different]) == {0, 1, 2, 8}


def test_a_crowd_that_comes_later_cannot_outvote_those_who_were_there_first() -> None:
    honest = [vote for k in range(3) for vote in alternating(k, "ab" * 15)]
    sybils = [vote for k in range(10, 60) for vote in alternating(k, "ba" * 15)]
    assert established([*honest, *sybils]) == {0, 1, 2}


def test_nearly_all_of_an_honest_crowd_are_established() -> None:
    votes = crowd([0.8] * 30, pairs=600, judges=3, seed=3)
    busy = {k for k in range(30) if sum(vote.annotator_id == k for vote in votes) >= RULES.record_votes}
    assert len(busy) == 30
    assert len(established(votes)) >= 29


def test_only_a_public_studio_that_is_open_has_something_to_tell() -> None:
    def note(access: str, *, public: bool = True) -> str | None:
        labeling = LabelingSettings.model_validate({"access": access})
        return open_studio_note(Settings(public=public, labeling=labeling, identity=IdentitySettings()))

    assert "DMPO_LABELING__ACCESS=invite" in (note("open") or "")
    assert note("auto") == note("open"), "there is nobody to sign in with"
    assert note("invite") is note("login") is note("open", public=False) is None
