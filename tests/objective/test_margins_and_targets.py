"""The margin from four errors, and the target from the votes."""

import pytest
import torch

from dmpo_app.objective import graded_win, margin, mixed_target, score_target, soft_target


@pytest.fixture
def errors() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(64, generator=generator) for _ in range(4)]


def test_the_margin_of_a_policy_that_equals_its_reference_is_exactly_zero(errors: list[torch.Tensor]) -> None:
    a, b, _, _ = errors
    assert (margin(a, b, a.clone(), b.clone(), beta=5000.0) == 0).all()


def test_swapping_the_images_flips_the_margin_exactly(errors: list[torch.Tensor]) -> None:
    a, b, reference_a, reference_b = errors
    flipped = margin(b, a, reference_b, reference_a, beta=2000.0)
    assert torch.equal(margin(a, b, reference_a, reference_b, beta=2000.0), -flipped)


def test_the_margin_is_positive_when_the_policy_gained_on_image_a() -> None:
    u = margin(torch.tensor([0.1]), torch.tensor([0.2]), torch.tensor([0.11]), torch.tensor([0.2]), beta=2000.0)
    assert u.item() == pytest.approx(10.0, rel=1e-4)  # 0.5 * 2000 * 0.01


def test_one_vote_is_worth_what_alpha_says() -> None:
    q = soft_target(torch.tensor([1.0, 0.0, 0.5]), torch.tensor([1, 1, 1]), alpha=0.05)
    torch.testing.assert_close(q, torch.tensor([0.95, 0.05, 0.5]))


def test_no_votes_and_votes_that_cancel_ask_for_an_even_margin() -> None:
    q = soft_target(torch.tensor([0.0, 1.0, 5.0]), torch.tensor([0, 2, 10]), alpha=0.1)
    torch.testing.assert_close(q, torch.full((3,), 0.5))


def test_a_majority_lies_between_even_and_the_clamp_and_grows_with_its_share() -> None:
    two_of_three, three_of_four, unanimous = soft_target(
        torch.tensor([2.0, 3.0, 4.0]), torch.tensor([3, 4, 4]), alpha=0.05
    ).tolist()
    assert 0.5 < two_of_three < three_of_four < unanimous
    assert unanimous == pytest.approx(0.95)


def test_any_number_of_agreeing_votes_stays_within_the_clamp() -> None:
    num_votes = torch.arange(1, 200)
    assert soft_target(num_votes.float(), num_votes, alpha=0.05).max() <= 0.95
    assert soft_target(torch.zeros(199), num_votes, alpha=0.05).min() >= 0.05


def test_the_softest_alpha_asks_for_an_even_margin_whatever_the_votes() -> None:
    q = soft_target(torch.tensor([0.0, 3.0]), torch.tensor([3, 3]), alpha=0.5)
    torch.testing.assert_close(q, torch.full((2,), 0.5))


def test_a_slight_preference_lies_between_a_tie_and_a_clear_one() -> None:
    wins = torch.tensor([graded_win(1.0, strength) for strength in (0.0, 0.5, 1.0)])
    tie, slight, clear = soft_target(wins, torch.ones(3), alpha=0.05).tolist()
    assert (tie, clear) == (pytest.approx(0.5), pytest.approx(0.95))
    assert tie < slight < clear
    assert graded_win(0.0, 0.5) == 1 - graded_win(1.0, 0.5)
    assert graded_win(0.5, 0.5) == 0.5


def test_an_annotator_of_half_weight_moves_a_target_less_than_one_of_full_weight() -> None:
    # One full vote for a; against it half a vote, then a full one.
    half, full = soft_target(torch.tensor([1.0, 1.0]), torch.tensor([1.5, 2.0]), alpha=0.05).tolist()
    assert full == pytest.approx(0.5)
    assert 0.5 < half < 0.95


def test_a_scorer_is_as_sure_as_its_difference_over_the_temperature() -> None:
    q = score_target(torch.tensor([3.0, 1.0, 1.0]), torch.tensor([1.0, 1.0, 3.0]), temperature=2.0)
    torch.testing.assert_close(q, torch.tensor([0.7310586, 0.5, 0.2689414]))
    with pytest.raises(ValueError, match=r"0.*not positive"):
        score_target(q, q, temperature=0.0)


def test_human_and_automatic_evidence_mix_by_the_share_and_alone_where_there_are_no_votes() -> None:
    human, automatic = torch.tensor([0.95, 0.95, 0.5]), torch.tensor([0.05, 0.85, 0.999])
    mixed = mixed_target(human, torch.tensor([1.0, 2.0, 0.0]), automatic, human_share=0.75, alpha=0.05)
    torch.testing.assert_close(mixed, torch.tensor([0.725, 0.925, 0.95]))
    with pytest.raises(ValueError, match=r"1\.5.*between 0 and 1"):
        mixed_target(human, human, automatic, human_share=1.5, alpha=0.05)
