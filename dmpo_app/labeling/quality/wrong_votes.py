"""The share of wrong votes: estimated from votes of several annotators on one pair, drawn towards a prior."""

from collections.abc import Sequence

import numpy as np

from dmpo_app.labeling.quality.quality_votes import OutcomeVote, number_ids
from dmpo_app.labeling.quality.vote_weights import estimate_reliability

PRIOR_WRONG_SHARE = 0.2
"""The share where nobody can be compared with anybody: one vote in five, as crowds have it."""
PRIOR_COMPARED = 50.0
"""The prior's weight, as votes that could be compared."""


def estimate_wrong_share(votes: Sequence[OutcomeVote]) -> float:
    """Estimate the share of votes that name the worse image of their pair, in [0, 0.5].

    From the accuracies of Dawid and Skene's model, by the votes that can be compared with somebody else's on the same
    pair; `PRIOR_COMPARED` votes of the prior are added. Nothing is said here of whose votes they are.
    """
    if not votes:
        return PRIOR_WRONG_SHARE
    ids, annotator = number_ids([vote.annotator_id for vote in votes])
    num_votes = np.bincount(annotator, minlength=len(ids)).astype(np.int64)
    reliability = estimate_reliability(votes, annotator, num_votes, np.ones(len(ids), np.bool_))
    num_compared = float(reliability.compared.sum())
    num_wrong = float(((1 - reliability.accuracy) * reliability.compared).sum())
    share = (PRIOR_WRONG_SHARE * PRIOR_COMPARED + num_wrong) / (PRIOR_COMPARED + num_compared)
    return min(max(share, 0.0), 0.5)
