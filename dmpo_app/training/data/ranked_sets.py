"""Rankings as votes on the pairs of their images, which together count as the one vote they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import combinations
from math import comb

from dmpo_app.domain.ranking import LETTERS
from dmpo_app.domain.round import TrainingVote
from dmpo_app.domain.vote import Outcome

_FIRST = 1 << 40
_PLACES = len(LETTERS) ** 2


def in_pairs(votes: Iterable[TrainingVote], *, only_neighbours: bool = False) -> Iterator[TrainingVote]:
    """The votes, each ranking as votes on all pairs of its set's images: 3 of three images, 6 of four.

    The pair of images a and b keeps the set's id, the others have ids of their own beyond any that a store gives.
    `only_neighbours`: only the pairs of images that follow one another in their set, ab, bc and cd.
    """
    for vote in votes:
        if vote.ranking is None:
            yield vote
            continue
        latents = (vote.latents_a, vote.latents_b, *vote.more_latents)
        for i, j in combinations(range(len(latents)), 2):
            if only_neighbours and j != i + 1:
                continue
            a_first = vote.ranking.index(LETTERS[i]) < vote.ranking.index(LETTERS[j])
            yield replace(
                vote,
                pair_id=pair_of(vote.pair_id, i, j),
                outcome=Outcome.A if a_first else Outcome.B,
                latents_a=latents[i],
                latents_b=latents[j],
            )


def pair_of(set_id: int, i: int, j: int) -> int:
    """The id of the pair of images i < j of a set, counted from 0."""
    return set_id if (i, j) == (0, 1) else _FIRST + set_id * _PLACES + i * len(LETTERS) + j


def share_of_vote(vote: TrainingVote, *, only_neighbours: bool = False) -> float:
    """What one of the pairs counts that a vote is taken as, so that the vote counts 1: the pairs of a ranking are not
    independent. Of neighbours, which are learnt from as a whole, the first pair counts for all."""
    if vote.ranking is None:
        return 1.0
    if only_neighbours:
        return 1.0 if set_of(vote.pair_id) == vote.pair_id else 0.0
    return 1 / comb(len(vote.ranking), 2)


def set_of(pair_id: int) -> int:
    """The set that a pair is one of, which is what it shares timesteps and noise with; a pair by itself is its own."""
    return pair_id if pair_id < _FIRST else (pair_id - _FIRST) // _PLACES
