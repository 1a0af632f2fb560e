"""The gate: held-out votes that refuse a version, call it better, or cannot tell."""

import math
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from dmpo_app.domain.judging import Verdict
from dmpo_app.domain.verdict import MIN_HELD_OUT_VOTES, GateVerdict
from dmpo_app.domain.vote import Outcome
from dmpo_app.labeling.quality.wrong_votes import PRIOR_WRONG_SHARE, estimate_wrong_share
from dmpo_app.training.monitoring.gate import judge
from tests.labeling.quality.crowds import Vote, crowd

RNG = random.Random(0)
SHARES = [float(RNG.random() < 0.5) for _ in range(100)]
PROMPTS = [f"prompt {number // 2}" for number in range(100)]


def margins_right_on(num_right: int) -> list[float]:
    """Margins of different sizes towards the voted side on `num_right` of the pairs, chosen by chance."""
    right = set(RNG.sample(range(100), num_right))
    sides = [(1 if share else -1) * (1 if number in right else -1) for number, share in enumerate(SHARES)]
    return [side * RNG.uniform(0.5, 4.0) for side in sides]


def verdict_of(
    margins: Sequence[float], live: Sequence[float], *, prompts: Sequence[str] = PROMPTS, num_votes: int = 100
) -> GateVerdict:
    return judge(
        margins,
        live,
        vote_shares=SHARES,
        weights=[1.0] * 100,
        prompts=prompts,
        num_votes=num_votes,
        live_version=3,
        wrong_share=PRIOR_WRONG_SHARE,
    )


BASE = [0.0] * 100
GOOD, BAD = margins_right_on(75), margins_right_on(50)


def test_a_version_with_fewer_votes_on_its_side_is_worse_and_the_other_way_round_better() -> None:
    assert verdict_of(BAD, GOOD).outcome is Verdict.WORSE
    assert verdict_of(GOOD, BAD).outcome is Verdict.BETTER
    assert verdict_of(GOOD, BASE).outcome is Verdict.BETTER


def test_the_same_version_is_neither_better_nor_worse_than_itself() -> None:
    verdict = verdict_of(GOOD, GOOD)
    assert verdict.outcome is Verdict.UNSURE
    assert verdict.difference == verdict.standard_error == 0


@pytest.mark.parametrize(("new", "live"), [(GOOD, BAD), (BAD, GOOD), (GOOD, BASE), (BAD, BASE)])
def test_how_large_margins_are_changes_no_verdict(new: list[float], live: list[float]) -> None:
    verdict = verdict_of(new, live)
    assert verdict_of([2 * margin for margin in new], live) == verdict
    assert verdict_of(new, [0.01 * margin for margin in live]) == verdict
    assert verdict_of([math.copysign(margin**2, margin) for margin in new], live) == verdict


def test_swapping_the_images_of_every_pair_changes_no_verdict() -> None:
    verdict = verdict_of(GOOD, BAD)
    swapped = judge(
        [-margin for margin in GOOD],
        [-margin for margin in BAD],
        vote_shares=[1 - share for share in SHARES],
        weights=[1.0] * 100,
        prompts=PROMPTS,
        num_votes=100,
        live_version=3,
        wrong_share=PRIOR_WRONG_SHARE,
    )
    assert swapped == verdict


def test_swapping_the_versions_turns_the_difference_round() -> None:
    verdict, reverse = verdict_of(GOOD, BAD), verdict_of(BAD, GOOD)
    assert reverse.difference == pytest.approx(-verdict.difference)
    assert (reverse.agreement, reverse.live_agreement) == (verdict.live_agreement, verdict.agreement)


def test_votes_on_one_prompt_do_not_count_as_independent() -> None:
    """All that the new version is better by lies in one of ten prompts."""
    live = margins_right_on(60)
    new = list(live)
    for number in range(10):
        new[number] = math.copysign(live[number], SHARES[number] - 0.5)
    by_vote = verdict_of(new, live, prompts=[str(number) for number in range(100)])
    by_prompt = verdict_of(new, live, prompts=[str(number // 10) for number in range(100)])
    assert by_vote.difference == by_prompt.difference > 0
    assert by_prompt.standard_error > by_vote.standard_error
    assert by_prompt.low < by_vote.low


def test_a_single_prompt_or_too_few_votes_refuse_nothing() -> None:
    assert verdict_of(BAD, GOOD, prompts=["one"] * 100).outcome is Verdict.UNSURE
    few = verdict_of(BAD, GOOD, num_votes=MIN_HELD_OUT_VOTES - 1)
    assert few.outcome is Verdict.UNSURE
    assert "too few votes" in few.sentence


def test_a_sure_answer_counts_for_more_than_an_unsure_one() -> None:
    sides = [1.0 if share else -1.0 for share in SHARES]
    sure_and_wrong = [side * (-5.0 if number < 20 else 1.0) for number, side in enumerate(sides)]
    unsure_and_wrong = [side * (-0.1 if number < 20 else 1.0) for number, side in enumerate(sides)]
    verdict = verdict_of(unsure_and_wrong, sure_and_wrong)
    assert verdict.agreement == verdict.live_agreement == 0.8
    assert verdict.outcome is Verdict.BETTER


def test_a_verdict_says_in_words_how_many_votes_each_version_agrees_with() -> None:
    verdict = verdict_of(BAD, GOOD)
    assert verdict.sentence == ("It agrees with 50 of 100 votes it has not seen, version 3 does with 75. It is worse.")
    assert "a coin would with 50" in replace(verdict_of(GOOD, BASE), live_version=0).sentence
    assert "20 pairs of 100" in verdict.caution


def test_a_verdict_comes_back_from_the_metrics_of_an_adapter() -> None:
    for verdict in (verdict_of(GOOD, BAD), verdict_of(GOOD, BAD, prompts=["one"] * 100)):
        metrics = verdict.to_metrics()
        assert all(math.isfinite(value) for value in metrics.values())
        assert GateVerdict.from_metrics({"held_out_loss": 0.3, **metrics}) == verdict
    assert GateVerdict.from_metrics({"held_out_loss": 0.3}) is None


def test_the_share_of_wrong_votes_cannot_exceed_what_the_better_version_disagrees_with() -> None:
    assert verdict_of(margins_right_on(90), BASE).wrong_share == pytest.approx(0.1)


def test_the_share_of_wrong_votes_comes_from_votes_of_several_on_one_pair() -> None:
    for wrong_share in (0.05, 0.3):
        votes = crowd([1 - wrong_share] * 4, pairs=300, judges=4, seed=1)
        assert estimate_wrong_share(votes) == pytest.approx(wrong_share, abs=0.04)
    alone = [Vote(1, pair, Outcome.A) for pair in range(300)]
    assert estimate_wrong_share(alone) == pytest.approx(PRIOR_WRONG_SHARE)
    assert estimate_wrong_share([]) == PRIOR_WRONG_SHARE
