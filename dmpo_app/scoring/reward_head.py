"""The head of the LAION aesthetic predictor and of ImageReward: five linear layers without anything between them.

Both were published with their ReLUs commented out, so it is one linear function; dropout does nothing in evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from dmpo_app.errors import ModelUnavailable
from dmpo_app.scoring.network_loading import take


class RewardHead(nn.Module):
    """(B, D) to (B,). The layers are numbered as published: 0, 2, 4, 6, 7; dropout stood between the first three."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(dimension, 1024),
            nn.Identity(),
            nn.Linear(1024, 128),
            nn.Identity(),
            nn.Linear(128, 64),
            nn.Identity(),
            nn.Linear(64, 16),
            nn.Linear(16, 1),
        )

    def forward(self, features: Tensor) -> Tensor:
        rewards: Tensor = self.layers(features)
        return rewards.squeeze(-1)


def build_head(tensors: Mapping[str, Tensor], dimension: int, source: str) -> RewardHead:
    """The head from `layers.N.weight` and `layers.N.bias`. Raises ModelUnavailable when it takes other features."""
    first = tensors.get("layers.0.weight")
    if first is not None and first.shape[-1] != dimension:
        raise ModelUnavailable(
            f"the head in {source} takes {first.shape[-1]} features and the model gives {dimension}; "
            "the two do not belong together"
        )
    head = RewardHead(dimension)
    take(head, tensors, source)
    return head
