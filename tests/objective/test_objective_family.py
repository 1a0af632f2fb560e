"""The other objectives, each against an independent calculation, and what all of them promise."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, kl_divergence

from dmpo_app.errors import SetupError
from dmpo_app.objective import (
    OBJECTIVES,
    Needs,
    dmpo,
    get_objective,
    margin,
    ranking_dmpo,
    ranking_dmpo_from_margins,
    ranking_target,
)
from dmpo_app.objective.alpha_divergence import alpha_divergence, alpha_po
from dmpo_app.objective.conservative_dpo import conservative_dpo
from dmpo_app.objective.diffusion_dpo import diffusion_dpo
from dmpo_app.objective.diffusion_kto import diffusion_kto
from dmpo_app.objective.dspo import dspo
from dmpo_app.objective.ipo import ipo
from dmpo_app.objective.mapo import mapo
from dmpo_app.objective.sft import sft
from tests.objective.objective_terms import make_terms

BETA = 500.0
U = torch.linspace(-12, 12, 97, dtype=torch.float64)
EVERY = sorted(OBJECTIVES)


def slope(values: Tensor, at: Tensor) -> Tensor:
    return torch.autograd.grad(values.sum(), at)[0]


@pytest.mark.parametrize("q", [0.05, 0.5, 0.8, 0.99])
def test_dmpo_and_cdpo_are_the_two_directions_of_torchs_own_divergence(q: float) -> None:
    target = torch.full_like(U, q)
    model, wanted = Bernoulli(logits=U), Bernoulli(probs=target)
    torch.testing.assert_close(dmpo(U, target), kl_divergence(model, wanted), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(conservative_dpo(U, target), kl_divergence(wanted, model), rtol=1e-9, atol=1e-12)


def test_cdpo_pulls_by_p_minus_q() -> None:
    u = U.clone().requires_grad_()
    torch.testing.assert_close(slope(conservative_dpo(u, torch.full_like(u, 0.9)), u), torch.sigmoid(U) - 0.9)


def test_diffusion_dpo_is_the_cross_entropy_of_the_chosen_side() -> None:
    target = torch.where(torch.arange(len(U)) % 2 == 0, 0.95, 0.05).double()
    label = (target > 0.5).double()
    expected = torch.nn.functional.binary_cross_entropy_with_logits(U, label, reduction="none")
    torch.testing.assert_close(diffusion_dpo(U, target), expected)


def test_diffusion_dpo_pulls_hardest_where_dmpo_lets_go() -> None:
    u = torch.tensor([-12.0], dtype=torch.float64, requires_grad=True)
    sure = torch.tensor([0.95], dtype=torch.float64)
    assert slope(diffusion_dpo(u, sure), u).item() == pytest.approx(-1, abs=1e-4)
    assert abs(slope(dmpo(u, sure), u).item()) < 1e-3


def test_ipo_is_the_papers_loss_in_units_of_its_temperature() -> None:
    tau = 0.1
    log_ratio_difference = U / tau
    paper = tau**2 * (log_ratio_difference - 1 / (2 * tau)) ** 2
    torch.testing.assert_close(ipo(U, torch.full_like(U, 0.9)), paper)
    torch.testing.assert_close(ipo(-U, torch.full_like(U, 0.1)), paper)


@pytest.mark.parametrize("q", [0.05, 0.6, 0.95])
def test_the_alpha_divergence_runs_from_cdpo_to_dmpo(q: float) -> None:
    target = torch.full_like(U, q)
    assert torch.equal(alpha_divergence(U, target, order=0.0), conservative_dpo(U, target))
    assert torch.equal(alpha_divergence(U, target, order=1.0), dmpo(U, target))
    for end, near in ((conservative_dpo, 1e-6), (dmpo, 1 - 1e-6)):
        torch.testing.assert_close(alpha_divergence(U, target, order=near), end(U, target), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("order", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_the_alpha_divergence_is_the_plain_formula(order: float) -> None:
    p, q = torch.sigmoid(U), 0.8
    total = p**order * q ** (1 - order) + (1 - p) ** order * (1 - q) ** (1 - order)
    expected = (total - 1) / (order * (order - 1))
    torch.testing.assert_close(alpha_divergence(U, torch.full_like(U, q), order=order), expected, rtol=1e-9, atol=1e-11)


def test_the_alpha_divergence_of_order_one_half_is_four_squared_hellinger_distances() -> None:
    p, q = torch.sigmoid(U), torch.tensor(0.7, dtype=torch.float64)
    hellinger = 0.5 * ((p.sqrt() - q.sqrt()) ** 2 + ((1 - p).sqrt() - (1 - q).sqrt()) ** 2)
    torch.testing.assert_close(alpha_divergence(U, torch.full_like(U, 0.7), order=0.5), 4 * hellinger)


@pytest.mark.parametrize("order", [0.1, 0.5, 0.9])
def test_alpha_po_is_the_plain_formula(order: float) -> None:
    p = torch.sigmoid(U)
    expected = (p**order - (1 - order) - order * p) / (order * (order - 1))
    torch.testing.assert_close(alpha_po(U, torch.full_like(U, 0.9), order=order), expected, rtol=1e-9, atol=1e-11)


def test_alpha_po_has_both_of_its_ends_right() -> None:
    p, target = torch.sigmoid(U), torch.full_like(U, 0.9)
    torch.testing.assert_close(alpha_po(U, target, order=1.0), p * p.log() - p + 1)
    torch.testing.assert_close(alpha_po(U, target, order=0.0), -p.log() + p - 1)
    torch.testing.assert_close(
        alpha_po(U, target, order=1 - 1e-7), alpha_po(U, target, order=1.0), rtol=1e-5, atol=1e-6
    )
    torch.testing.assert_close(alpha_po(U, target, order=1e-7), alpha_po(U, target, order=0.0), rtol=1e-5, atol=1e-6)


def test_the_order_of_an_alpha_divergence_must_lie_between_its_ends() -> None:
    for function in (alpha_divergence, alpha_po):
        with pytest.raises(ValueError, match=r"1\.5.*between 0 and 1"):
            function(U, torch.full_like(U, 0.9), order=1.5)


def test_sft_is_the_chosen_images_error_and_never_moves_the_other() -> None:
    terms, leaves = make_terms([0.95, 0.05, 0.5])
    loss = sft(terms, beta=BETA)
    expected = [terms.policy_a[0], terms.policy_b[1], (terms.policy_a[2] + terms.policy_b[2]) / 2]
    torch.testing.assert_close(loss, torch.stack(expected))
    gradient_b = torch.autograd.grad(loss.sum(), leaves[1])[0]
    assert (gradient_b[0] == 0).all()
    assert (gradient_b[1] != 0).any()


def test_kto_judges_each_image_against_the_batchs_gain() -> None:
    terms, _ = make_terms([0.95, 0.05])
    gain = torch.stack([terms.reference_a - terms.policy_a, terms.reference_b - terms.policy_b])
    point = max(0.0, gain.mean().item())
    a_wins = 1.5 * (1 - torch.sigmoid(BETA * (gain[0, 0] - point))) + 0.5 * (
        1 - torch.sigmoid(-BETA * (gain[1, 0] - point))
    )
    b_wins = 1.5 * (1 - torch.sigmoid(BETA * (gain[1, 1] - point))) + 0.5 * (
        1 - torch.sigmoid(-BETA * (gain[0, 1] - point))
    )
    loss = diffusion_kto(terms, beta=BETA, desirable=1.5, undesirable=0.5)
    torch.testing.assert_close(loss, torch.stack([a_wins, b_wins]))


def test_dspo_is_the_plain_formula_with_gradients_through_all_of_it() -> None:
    terms, leaves = make_terms([0.95, 0.05])
    residuals = terms.residuals
    assert residuals is not None
    assert residuals.reference_a is not None
    assert residuals.reference_b is not None
    beta = 3.0
    u = -0.5 * beta * ((terms.policy_a - terms.policy_b) - (terms.reference_a - terms.reference_b))
    winner = torch.stack([residuals.policy_a[0], residuals.policy_b[1]])
    reference = torch.stack([residuals.reference_a[0], residuals.reference_b[1]])
    pull = beta * (1 - torch.sigmoid(torch.stack([u[0], -u[1]])))
    expected = ((winner - pull.view(2, 1, 1, 1) * (winner - reference)) ** 2).flatten(1).mean(1)
    loss = dspo(terms, beta=beta)
    torch.testing.assert_close(loss, expected)
    for got, wanted in zip(
        torch.autograd.grad(loss.sum(), leaves, retain_graph=True),
        torch.autograd.grad(expected.sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(got, wanted)


def test_dspo_asks_for_what_it_needs() -> None:
    terms, _ = make_terms([0.95])
    with pytest.raises(ValueError, match="residuals"):
        dspo(type(terms)(terms.policy_a, terms.policy_b, terms.reference_a, terms.reference_b, terms.target), beta=1.0)


def test_mapo_is_the_plain_formula() -> None:
    terms, _ = make_terms([0.95, 0.05])
    a, b = terms.policy_a, terms.policy_b

    def phi(error: Tensor) -> Tensor:
        return 0.5 * error / (torch.exp(0.5 * error) - 1)

    score = 1000 * (phi(a) - phi(b))
    expected = torch.stack(
        [a[0] - 0.1 * torch.log(torch.sigmoid(score[0])), b[1] - 0.1 * torch.log(torch.sigmoid(-score[1]))]
    )
    torch.testing.assert_close(mapo(terms, beta=BETA), expected, rtol=1e-6, atol=1e-9)


def test_mapo_has_a_slope_where_an_error_is_zero() -> None:
    terms, _ = make_terms([0.95])
    zero = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    loss = mapo(
        type(terms)(zero, terms.policy_b.detach(), terms.reference_a, terms.reference_b, terms.target), beta=BETA
    )
    assert torch.isfinite(torch.autograd.grad(loss.sum(), zero)[0]).all()


def test_ranking_of_two_is_the_pairwise_loss() -> None:
    generator = torch.Generator().manual_seed(3)
    policy, reference = (torch.rand(16, 2, generator=generator, dtype=torch.float64) * 0.02 for _ in range(2))
    q = torch.rand(16, generator=generator, dtype=torch.float64) * 0.9 + 0.05
    u = margin(policy[:, 0], policy[:, 1], reference[:, 0], reference[:, 1], beta=BETA)
    ranked = ranking_dmpo(policy, reference, torch.stack([q, 1 - q], dim=1), beta=BETA)
    torch.testing.assert_close(ranked, dmpo(u, q))


def test_ranking_of_four_is_torchs_own_divergence_and_ends_at_its_target() -> None:
    generator = torch.Generator().manual_seed(4)
    policy, reference = (torch.rand(5, 4, generator=generator, dtype=torch.float64) * 0.02 for _ in range(2))
    target = ranking_target(torch.randn(5, 4, generator=generator, dtype=torch.float64), temperature=0.7)
    model = Categorical(logits=-0.5 * BETA * (policy - reference))
    torch.testing.assert_close(
        ranking_dmpo(policy, reference, target, beta=BETA), kl_divergence(model, Categorical(probs=target))
    )
    reached = reference - 2 / BETA * target.log()
    torch.testing.assert_close(
        ranking_dmpo(reached, reference, target, beta=BETA), torch.zeros(5, dtype=torch.float64), atol=1e-12, rtol=0
    )


def test_margins_of_neighbours_say_all_of_a_ranking_and_of_two_images_what_a_pair_says() -> None:
    generator = torch.Generator().manual_seed(5)
    u = (torch.randn(16, 1, generator=generator, dtype=torch.float64) * 5).requires_grad_()
    q = torch.rand(16, generator=generator, dtype=torch.float64) * 0.9 + 0.05
    ranked, paired = ranking_dmpo_from_margins(u, torch.stack([q, 1 - q], dim=1)), dmpo(u[:, 0], q)
    torch.testing.assert_close(ranked, paired)
    slopes = [torch.autograd.grad(loss.sum(), u)[0] for loss in (ranked, paired)]
    torch.testing.assert_close(*slopes)


def test_a_ranking_is_finite_where_the_model_is_sure_and_a_target_has_rounded_to_nothing() -> None:
    margins = torch.tensor([[1e4, -1e4, 1e4], [-1e4, -1e4, -1e4], [0.0, 0.0, 0.0]], requires_grad=True)
    target = torch.tensor([[1.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25]])
    losses = ranking_dmpo_from_margins(margins, target)
    assert losses.isfinite().all()
    assert losses[2] == 0
    assert torch.autograd.grad(losses.sum(), margins)[0].isfinite().all()


def test_neighbours_of_a_ranking_stand_to_each_other_as_alpha_says() -> None:
    alpha = 0.05
    q = ranking_target(torch.tensor([[-0.0, -1.0, -2.0]]), temperature=1 / math.log((1 - alpha) / alpha))
    torch.testing.assert_close(q[:, 0] / (q[:, 0] + q[:, 1]), torch.tensor([1 - alpha]))


@pytest.mark.parametrize("name", EVERY)
def test_swapping_the_images_and_the_target_changes_no_loss(name: str) -> None:
    objective = OBJECTIVES[name]
    terms, _ = make_terms([0.95, 0.3, 0.5, 0.05])
    there = objective.loss(terms, beta=BETA, **objective.options)
    torch.testing.assert_close(objective.loss(terms.swapped(), beta=BETA, **objective.options), there)
    assert there.shape == (4,)


@pytest.mark.parametrize("name", EVERY)
def test_a_small_step_down_any_loss_moves_the_policy_towards_the_chosen_image(name: str) -> None:
    objective = OBJECTIVES[name]
    terms, leaves = make_terms([0.95] * 8, seed=2, spread=0.3)
    beta = 0.001 if name == "dspo" else 5.0
    gradients = torch.autograd.grad(objective.loss(terms, beta=beta, **objective.options).sum(), leaves[0])
    along = (
        gradients[0] * (leaves[0] - (leaves[0] - terms.residuals.policy_a)) if terms.residuals else leaves[0]
    ).sum()
    assert along > 0  # the gradient points away from the chosen image's target, so a step down points towards it


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", [name for name in EVERY if OBJECTIVES[name].needs is not Needs.PREDICTIONS])
def test_every_loss_of_errors_and_its_slope_is_finite_for_margins_up_to_ten_thousand(
    name: str, dtype: torch.dtype
) -> None:
    objective = OBJECTIVES[name]
    terms, _ = make_terms([0.95, 0.05, 0.95, 0.05, 0.5], spread=1.0)
    far = torch.tensor([40.0, 40.0, 0.0, 0.0, 20.0], dtype=dtype)
    plain = {key: getattr(terms, key).detach().to(dtype) for key in ("reference_a", "reference_b", "target")}
    policy_a, policy_b = far.clone().requires_grad_(), far.flip(0).clone().requires_grad_()
    pushed = type(terms)(policy_a=policy_a, policy_b=policy_b, **plain)
    loss = objective.loss(pushed, beta=BETA, **objective.options)
    assert torch.isfinite(loss).all()
    for gradient in torch.autograd.grad(loss.sum(), [policy_a, policy_b], allow_unused=True):
        assert gradient is None or torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", [name for name in EVERY if OBJECTIVES[name].soft])
def test_soft_objectives_rest_at_the_targets_log_odds(name: str) -> None:
    objective = OBJECTIVES[name]
    q = 0.8
    u = torch.tensor([math.log(q / (1 - q))], dtype=torch.float64)
    zero = torch.zeros(1, dtype=torch.float64)
    policy_a = (-2 * u / BETA).requires_grad_()
    terms, _ = make_terms([q])
    at_rest = type(terms)(policy_a, zero, zero, zero, torch.tensor([q], dtype=torch.float64))
    loss = objective.loss(at_rest, beta=BETA, **objective.options)
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert torch.autograd.grad(loss.sum(), policy_a)[0].item() == pytest.approx(0, abs=1e-9)


def test_an_unknown_objective_or_option_is_refused_with_what_there_is() -> None:
    with pytest.raises(SetupError, match=r"'ppo'.*dmpo, dpo"):
        get_objective("ppo")
    with pytest.raises(SetupError, match=r"'order'.*weight"):
        get_objective("mapo", {"order": 0.5})
    assert get_objective("alpha-divergence", {"order": 0.2}).title == "alpha-divergence"
