"""The objective: a loss as a function of `PairTerms`, with the facts needed to use and to compare it.

An objective lives in a file of its own that defines `OBJECTIVE` and is named in `registry`.

Shapes:  B pairs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from torch import Tensor


class Needs(StrEnum):
    """The reference's outputs that an objective's loss depends on.

    NOTHING: the policy alone. ERRORS: two numbers a pair, which can be kept from step to step. PREDICTIONS: the whole
    prediction, which costs a pass of the base model in every step.
    """

    NOTHING = "nothing"
    ERRORS = "errors"
    PREDICTIONS = "predictions"


Loss = Callable[..., Tensor]
"""`loss(terms, *, beta, **options)`: the loss of each pair, (B,), in the errors' dtype; finite for finite errors."""


@dataclass(frozen=True, slots=True)
class Objective:
    """A preference objective: its loss with name, formula, source and options.

    `name` is what settings say, `title` what people say; `formula` is in terms of u, p, q and the errors.

    `options` are the objective's own numbers with their usual values. `soft` tells whether the whole target q counts,
    and the margin comes to rest at its log odds, or only the side that it takes. `start_spread` says how beta is found
    when it is not set: such that the base model's errors on the two images of a pair differ by this on average, as
    0.5 beta |r_a - r_b|; None where there is no beta.
    """

    name: str
    title: str
    formula: str
    source: str
    loss: Loss
    needs: Needs = Needs.ERRORS
    soft: bool = False
    start_spread: float | None = 18.0
    options: Mapping[str, float] = field(default_factory=dict)
