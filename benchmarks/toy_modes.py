"""A target with two modes, fitted by one bell: what the direction of the divergence does when not all can be had.

    python -m benchmarks.toy_modes [--figure docs/images/toy-modes.png]

The model is a single Gaussian, the target a mixture of two of unequal weight. Minimising the forward KL(target ||
model), Diffusion-DPO's direction, covers both modes and puts much of its mass where the target has little; minimising
the reverse KL(model || target), DMPO's direction, takes one mode and fits it, and where it starts decides which. Both
are fitted by gradient descent on the divergence, computed on a grid.
"""

import argparse
import math
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.report import print_table

GRID = torch.linspace(-8, 8, 4001, dtype=torch.float64)
WIDTH = float(GRID[1] - GRID[0])
MODES = ((-2.2, 0.7, 0.65), (2.4, 0.6, 0.35))
"""Mean, standard deviation and weight of the target's two modes."""
STEPS = 3000


def log_normal(x: Tensor, mean: Tensor | float, deviation: Tensor | float) -> Tensor:
    scale = torch.as_tensor(deviation, dtype=x.dtype)
    return -0.5 * ((x - mean) / scale) ** 2 - scale.log() - 0.5 * math.log(2 * math.pi)


def log_target(x: Tensor) -> Tensor:
    parts = [math.log(weight) + log_normal(x, mean, deviation) for mean, deviation, weight in MODES]
    return torch.logsumexp(torch.stack(parts), dim=0)


def divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) in nats, of densities on the grid."""
    return (log_p.exp() * (log_p - log_q)).sum() * WIDTH


def fit(direction: str, start: float) -> tuple[float, float]:
    """Mean and standard deviation of the Gaussian that gradient descent reaches from mean `start`, deviation 1."""
    mean = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    log_deviation = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([mean, log_deviation], lr=0.02)
    target = log_target(GRID)
    for _ in range(STEPS):
        model = log_normal(GRID, mean, log_deviation.exp())
        loss = divergence(model, target) if direction == "reverse" else divergence(target, model)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    return mean.item(), log_deviation.exp().item()


def mass_in_the_valley(mean: float, deviation: float) -> float:
    """Share of the model's samples where the target's density is below a tenth of its highest."""
    target = log_target(GRID)
    valley = target < target.max() - math.log(10)
    return float((log_normal(GRID, mean, deviation).exp() * valley).sum() * WIDTH)


def draw(path: Path, fits: dict[str, tuple[float, float]]) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3))
    axes.fill_between(GRID.numpy(), log_target(GRID).exp().numpy(), color="0.85", label="target")
    for (name, (mean, deviation)), colour in zip(fits.items(), ("#d95f02", "#1b6ca8", "#1b9e77"), strict=True):
        axes.plot(GRID.numpy(), log_normal(GRID, mean, deviation).exp().numpy(), color=colour, label=name)
    axes.set(xlim=(-6, 6), yticks=[], xlabel="x")
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figure", type=Path, help="write the figure here")
    arguments = parser.parse_args()
    fits, rows = {}, []
    for name, direction, start in (
        ("forward KL", "forward", -1.0),
        ("reverse KL, from the left", "reverse", -1.0),
        ("reverse KL, from the right", "reverse", 1.5),
    ):
        mean, deviation = fits[name] = fit(direction, start)
        model, target = log_normal(GRID, mean, deviation), log_target(GRID)
        rows.append(
            [
                name,
                f"{mean:+.2f}",
                f"{deviation:.2f}",
                f"{mass_in_the_valley(mean, deviation):.0%}",
                f"{divergence(target, model):.2f}",
                f"{divergence(model, target):.2f}",
            ]
        )
    print_table(["fit", "mean", "deviation", "mass off the target", "forward KL", "reverse KL"], rows)
    if arguments.figure:
        draw(arguments.figure, fits)


if __name__ == "__main__":
    main()
