"""DMPO as a function: the table, the limits, the gradient, the numerics."""

import math

import pytest
import torch

from dmpo_app.objective import dmpo

# alpha, c, dL/du at u = 0, L(0), the band of u in which the loss is convex
TABLE = [
    (0.1, 2.197, -0.549, 0.511, (-0.72, 3.28)),
    (0.05, 2.944, -0.736, 0.830, (-0.58, 3.98)),
    (0.01, 4.595, -1.149, 1.614, (-0.41, 5.60)),
    (0.001, 6.907, -1.727, 2.761, (-0.28, 7.91)),
]


def closed_form_gradient(u: torch.Tensor, q: float) -> torch.Tensor:
    return torch.sigmoid(u) * torch.sigmoid(-u) * (u - math.log(q / (1 - q)))


def gradient(u: torch.Tensor, q: float) -> torch.Tensor:
    u = u.detach().requires_grad_()
    return torch.autograd.grad(dmpo(u, torch.full_like(u, q)).sum(), u)[0]


@pytest.mark.parametrize(("alpha", "c", "slope_at_zero", "value_at_zero", "convex"), TABLE)
def test_the_loss_is_the_one_in_the_table(
    alpha: float, c: float, slope_at_zero: float, value_at_zero: float, convex: tuple[float, float]
) -> None:
    zero = torch.zeros(1, dtype=torch.float64)
    assert dmpo(zero, torch.tensor([1 - alpha], dtype=torch.float64)).item() == pytest.approx(value_at_zero, abs=5e-4)
    assert gradient(zero, 1 - alpha).item() == pytest.approx(slope_at_zero, abs=5e-4)
    goal = torch.tensor([math.log((1 - alpha) / alpha)], dtype=torch.float64)
    assert goal.item() == pytest.approx(c, abs=1e-3)
    assert dmpo(goal, 1 - alpha).item() == pytest.approx(0, abs=1e-12)
    assert gradient(goal, 1 - alpha).item() == pytest.approx(0, abs=1e-12)
    # The curvature is positive just inside the band and negative just outside of it.
    low, high = convex
    u = torch.tensor([low - 0.02, low + 0.02, high - 0.02, high + 0.02], dtype=torch.float64, requires_grad=True)
    first = torch.autograd.grad(dmpo(u, 1 - alpha).sum(), u, create_graph=True)[0]
    second = torch.autograd.grad(first.sum(), u)[0]
    assert (second > 0).tolist() == [False, True, True, False]


@pytest.mark.parametrize("q", [0.05, 0.3, 0.5, 0.95, 0.999])
def test_autograd_agrees_with_the_closed_form_gradient(q: float) -> None:
    u = torch.linspace(-30, 30, 601, dtype=torch.float64)
    torch.testing.assert_close(gradient(u, q), closed_form_gradient(u, q), rtol=1e-9, atol=1e-13)


def test_gradcheck_passes_in_float64_for_margin_and_target() -> None:
    margin = torch.tensor([-25.0, -3.0, -0.1, 0.0, 0.7, 2.944, 19.9, 20.1], dtype=torch.float64, requires_grad=True)
    target = torch.tensor([0.95, 0.05, 0.5, 0.9, 0.99, 0.95, 0.7, 0.2], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(dmpo, (margin, target))
    assert torch.autograd.gradgradcheck(dmpo, (margin, target))


def test_the_limits_are_minus_log_of_the_targets() -> None:
    u = torch.tensor([-80.0, 80.0], dtype=torch.float64)
    expected = torch.tensor([-math.log(0.05), -math.log(0.95)], dtype=torch.float64)
    torch.testing.assert_close(dmpo(u, torch.full_like(u, 0.95)), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_value_and_gradient_are_finite_for_margins_up_to_ten_thousand_in_every_dtype(dtype: torch.dtype) -> None:
    magnitudes = torch.tensor([0.0, 1.0, 15.0, 17.0, 20.0, 88.0, 104.0, 710.0, 1e4], dtype=dtype)
    margin = torch.cat([magnitudes, -magnitudes]).requires_grad_()
    for q in (0.001, 0.05, 0.5, 0.95, 0.999):
        loss = dmpo(margin, torch.full_like(margin, q))
        (slope,) = torch.autograd.grad(loss.sum(), margin)
        assert loss.dtype == dtype == slope.dtype
        assert loss.shape == margin.shape
        assert torch.isfinite(loss).all()
        assert torch.isfinite(slope).all()
        assert (loss >= -1e-6).all()


def test_half_precision_is_rounded_once_and_not_at_every_operation() -> None:
    margin = torch.linspace(-8, 8, 65).to(torch.bfloat16)
    target = torch.full_like(margin, 0.95)
    in_float32 = dmpo(margin.float(), target.float())
    torch.testing.assert_close(dmpo(margin, target), in_float32.to(torch.bfloat16), rtol=0, atol=0)


def test_a_target_of_other_precision_or_a_plain_number_keeps_the_margins_dtype() -> None:
    margin = torch.tensor([0.5, -0.5], dtype=torch.float64)
    as_number = dmpo(margin, 0.9)
    assert as_number.dtype == torch.float64
    torch.testing.assert_close(as_number, dmpo(margin, torch.tensor([0.9, 0.9], dtype=torch.float64)), rtol=0, atol=0)
    assert dmpo(margin, torch.tensor([0.9, 0.9], dtype=torch.float32)).dtype == torch.float64


def test_a_lost_pair_pulls_less_than_an_undecided_one() -> None:
    pull = gradient(torch.tensor([-12.0, 0.0], dtype=torch.float64), 0.95).abs()
    assert pull[0] < 0.001 * pull[1]


def test_swapping_the_images_of_a_pair_changes_nothing() -> None:
    margin = torch.linspace(-6, 6, 41, dtype=torch.float64)
    target = torch.linspace(0.05, 0.95, 41, dtype=torch.float64)
    torch.testing.assert_close(dmpo(margin, target), dmpo(-margin, 1 - target))


def test_an_even_target_is_smallest_at_an_even_margin() -> None:
    margin = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
    low, middle, high = dmpo(margin, 0.5).tolist()
    assert middle == pytest.approx(0, abs=1e-15)
    assert low == pytest.approx(high)
    assert low > 0.1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_a_target_rounded_to_certainty_still_gives_a_finite_loss_and_slope(dtype: torch.dtype) -> None:
    margin = torch.tensor([-1e4, -1.0, 0.0, 1.0, 1e4], dtype=dtype, requires_grad=True)
    for certain in (0.0, 1.0):
        loss = dmpo(margin, torch.full_like(margin, certain))
        assert torch.isfinite(loss).all()
        assert torch.isfinite(torch.autograd.grad(loss.sum(), margin)[0]).all()
