"""Rankings as what a round can learn from: the pairs of their images, which together count as the one vote they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import combinations
from math import comb

from dmpo_app.domain import Outcome, TrainingVote
from dmpo_app.domain.rankings import LETTERS

_FIRST = 1 << 40
_PLACES = len(LETTERS) ** 2


def in_pairs(votes: Iterable[TrainingVote]) -> Iterator[TrainingVote]:
    """The votes, each ranking as votes on all pairs of its set's images: 3 of three images, 6 of four.

    The pair of images a and b keeps the set's id, the others have ids of their own beyond any that a store gives.
    """
    for vote in votes:
        if vote.ranking is None:
            yield vote
            continue
        latents = (vote.latents_a, vote.latents_b, *vote.more_latents)
        for i, j in combinations(range(len(latents)), 2):
            a_first = vote.ranking.index(LETTERS[i]) < vote.ranking.index(LETTERS[j])
            yield replace(
                vote,
                pair_id=vote.pair_id if (i, j) == (0, 1) else _FIRST + vote.pair_id * _PLACES + i * len(LETTERS) + j,
                outcome=Outcome.A if a_first else Outcome.B,
                latents_a=latents[i],
                latents_b=latents[j],
            )


def share_of_vote(vote: TrainingVote) -> float:
    """What one of the pairs counts that a vote is taken as, so that the vote counts 1: the pairs of a ranking are not
    independent."""
    return 1.0 if vote.ranking is None else 1 / comb(len(vote.ranking), 2)


def set_of(pair_id: int) -> int:
    """The set that a pair is one of, which is what it shares timesteps and noise with; a pair by itself is its own."""
    return pair_id if pair_id < _FIRST else (pair_id - _FIRST) // _PLACES
