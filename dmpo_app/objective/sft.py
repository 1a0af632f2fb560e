"""SFT: supervised fine-tuning on the winners with the denoiser's own training loss.

Shapes:  B pairs.
"""

from torch import Tensor

from dmpo_app.objective.margins import Needs, Objective, PairTerms, by_side


def sft(terms: PairTerms, *, beta: float) -> Tensor:  # noqa: ARG001 - all losses are called alike
    """The chosen image's denoising error, a mean over dimensions, per pair. A tie trains on both at half weight."""
    return by_side(terms.target, terms.policy_a, terms.policy_b)


OBJECTIVE = Objective(
    name="sft",
    title="SFT on winners",
    formula="l(x_w)",
    source="the denoiser's own loss, Ho et al. 2020, arXiv 2006.11239",
    loss=sft,
    needs=Needs.NOTHING,
    start_spread=None,
)
