"""The winner-preserving guard."""

import pytest
import torch
from torch import Tensor

from dmpo_app.objective import OBJECTIVES, PairTerms, Residuals, guarded
from tests.objective.objective_terms import make_terms

BETA = 50.0


def aligned_terms() -> tuple[PairTerms, Tensor]:
    """One pair whose loser is twice as far off as the winner, the same way; one shift moves both predictions alike."""
    shift = torch.full((1, 2, 3, 3), 0.3, dtype=torch.float64, requires_grad=True)
    residuals = Residuals(shift, shift + shift.detach())
    zero = torch.zeros(1, dtype=torch.float64)
    terms = PairTerms(
        policy_a=residuals.policy_a.square().mean((1, 2, 3)),
        policy_b=residuals.policy_b.square().mean((1, 2, 3)),
        reference_a=zero,
        reference_b=zero,
        target=torch.tensor([0.95], dtype=torch.float64),
        residuals=residuals,
    )
    return terms, shift


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_the_guard_changes_gradients_and_no_value(name: str) -> None:
    objective = OBJECTIVES[name]
    terms, _ = make_terms([0.95, 0.05, 0.5], spread=0.3)
    plain = objective.loss(terms, beta=BETA, **objective.options)
    torch.testing.assert_close(objective.loss(guarded(terms, mu=0.6), beta=BETA, **objective.options), plain)


def test_the_losers_gradient_is_scaled_by_the_closed_form() -> None:
    terms, leaves = make_terms([0.95, 0.95, 0.05], spread=0.3, seed=5)
    residuals = terms.residuals
    assert residuals is not None
    mu = 0.6
    for pair, (winner, loser) in enumerate([(0, 1), (0, 1), (1, 0)]):
        parts = (residuals.policy_a[pair], residuals.policy_b[pair])
        along = (parts[0] * parts[1]).sum()
        expected = min(1.0, ((1 - mu) * parts[winner].square().sum() / along).item()) if along > 0 else 1.0
        scaled = guarded(terms, mu=mu)
        for image, scale in ((winner, 1.0), (loser, expected)):
            before, after = (
                torch.autograd.grad(
                    getattr(t, ("policy_a", "policy_b")[image])[pair], leaves[image], retain_graph=True
                )[0]
                for t in (terms, scaled)
            )
            torch.testing.assert_close(after, scale * before)


def test_without_the_guard_the_winner_pays_and_with_it_it_does_not() -> None:
    dpo = OBJECTIVES["dpo"]
    for mu, pays in ((None, True), (0.0, False), (0.6, False)):
        terms, shift = aligned_terms()
        seen = terms if mu is None else guarded(terms, mu=mu)
        # Both images share one shift of the prediction, as they share one network.
        step = -torch.autograd.grad(dpo.loss(seen, beta=BETA).sum(), shift, retain_graph=True)[0]
        winners = torch.autograd.grad(terms.policy_a.sum(), shift)[0]
        assert bool((step * winners).sum() > 1e-12) is pays


def test_a_tie_has_no_loser() -> None:
    terms, leaves = make_terms([0.5], spread=0.3, seed=5)
    before, after = (
        torch.autograd.grad(t.policy_a.sum() + t.policy_b.sum(), leaves, retain_graph=True)
        for t in (terms, guarded(terms, mu=1.0))
    )
    for plain, scaled in zip(before, after, strict=True):
        torch.testing.assert_close(plain, scaled)


def test_nonsense_is_refused() -> None:
    terms, _ = make_terms([0.95])
    with pytest.raises(ValueError, match=r"1\.2.*between 0 and 1"):
        guarded(terms, mu=1.2)
    bare = PairTerms(terms.policy_a, terms.policy_b, terms.reference_a, terms.reference_b, terms.target)
    with pytest.raises(ValueError, match="residuals"):
        guarded(bare, mu=0.5)
