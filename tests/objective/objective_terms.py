"""Random pairs for the objectives' tests, in float64, with gradients."""

import torch
from torch import Tensor

from dmpo_app.objective import PairTerms, Residuals

SHAPE_CHW = (2, 3, 3)


def make_terms(targets: list[float], *, seed: int = 0, spread: float = 0.05) -> tuple[PairTerms, list[Tensor]]:
    """Terms whose errors come from residuals, and the leaves that gradients flow to: the policy's predictions."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(targets), *SHAPE_CHW)
    target_a, target_b = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    policy = [torch.randn(shape, generator=generator, dtype=torch.float64) * spread for _ in range(2)]
    reference = [torch.randn(shape, generator=generator, dtype=torch.float64) * spread for _ in range(2)]
    leaves = [(wanted + off).requires_grad_() for wanted, off in zip((target_a, target_b), policy, strict=True)]
    residuals = Residuals(leaves[0] - target_a, leaves[1] - target_b, reference[0], reference[1])
    terms = PairTerms(
        policy_a=residuals.policy_a.square().mean((1, 2, 3)),
        policy_b=residuals.policy_b.square().mean((1, 2, 3)),
        reference_a=reference[0].square().mean((1, 2, 3)),
        reference_b=reference[1].square().mean((1, 2, 3)),
        target=torch.tensor(targets, dtype=torch.float64),
        residuals=residuals,
    )
    return terms, leaves
