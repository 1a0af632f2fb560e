"""Votes as plain arrays, which is what all statistics here are computed from.

Shapes:  N votes;  K annotators;  P pairs;  C = 4 answers that say something (skip says nothing).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dmpo_app.domain.vote import Outcome

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

ANSWERS = (Outcome.A, Outcome.B, Outcome.TIE, Outcome.BOTH_BAD)
A, B, TIE, BOTH_BAD = range(4)
SKIPPED = 4
"""Codes of answers; skip stands outside `ANSWERS`."""
NOT_GOLD = -1

_CODES = {outcome: code for code, outcome in enumerate((*ANSWERS, Outcome.SKIP))}


class Answered(Protocol):
    """What is asked of a vote that is to be weighed."""

    @property
    def annotator_id(self) -> int: ...
    @property
    def pair_id(self) -> int: ...
    @property
    def outcome(self) -> Outcome: ...


class Judged(Answered, Protocol):
    """What is asked of a vote that is to be looked at from every side."""

    @property
    def a_on_left(self) -> bool: ...
    @property
    def elapsed_ms(self) -> int: ...


@dataclass(frozen=True, slots=True)
class VoteArrays:
    """N votes in the order they were given. Annotators and pairs are numbered from 0.

    annotator: (N,) in 0..K-1. pair: (N,) in 0..P-1. answer: (N,) a code of `ANSWERS`, or SKIPPED.
    a_on_left: (N,). elapsed_ms: (N,) from showing to answer; 0 was not told.
    gold: (N,) the code of the right answer where one is known, else NOT_GOLD.
    repeat: (N,) whether the same annotator had judged the same pair before.
    annotator_ids: the K annotators' ids, by number.
    """

    annotator: Ints
    pair: Ints
    answer: Ints
    a_on_left: Bools
    elapsed_ms: Ints
    gold: Ints
    repeat: Bools
    annotator_ids: tuple[int, ...]
    num_pairs: int

    @classmethod
    def of(cls, votes: Sequence[Judged], gold: Mapping[int, Outcome] | None = None) -> VoteArrays:
        """From votes in the order they were given; `gold` names the right answer of some pairs, by pair id."""
        known = gold or {}
        annotators, annotator = numbered([vote.annotator_id for vote in votes])
        pairs, pair = numbered([vote.pair_id for vote in votes])
        right = [_CODES[known[vote.pair_id]] if vote.pair_id in known else NOT_GOLD for vote in votes]
        return cls(
            annotator=annotator,
            pair=pair,
            answer=np.array([_CODES[vote.outcome] for vote in votes], np.int64),
            a_on_left=np.array([vote.a_on_left for vote in votes], np.bool_),
            elapsed_ms=np.array([vote.elapsed_ms for vote in votes], np.int64),
            gold=np.array(right, np.int64),
            repeat=~first_of_each(annotator, pair),
            annotator_ids=annotators,
            num_pairs=len(pairs),
        )

    @property
    def num_annotators(self) -> int:
        return len(self.annotator_ids)

    @property
    def says_something(self) -> Bools:
        """(N,) every answer but a skip."""
        return np.not_equal(self.answer, SKIPPED)

    @property
    def decided(self) -> Bools:
        """(N,) one of the two images was preferred."""
        return np.isin(self.answer, (A, B))

    @property
    def chose_left(self) -> Bools:
        """(N,) the image on the left was preferred."""
        on_the_left: Bools = (self.answer == A) == self.a_on_left
        return self.decided & on_the_left

    @property
    def independent(self) -> Bools:
        """(N,) what agreement is measured on: answers, one for each annotator and pair. Gold pairs are left out, since
        they were picked for being easy."""
        return self.says_something & ~self.repeat & np.equal(self.gold, NOT_GOLD)

    def per_annotator(self, which: Bools) -> Ints:
        """(K,) how many of the votes marked in `which` (N,) each annotator gave."""
        return np.bincount(self.annotator[which], minlength=self.num_annotators).astype(np.int64)


def first_of_each(annotator: Ints, pair: Ints) -> Bools:
    """(N,) whether a vote is the first that its annotator gave on its pair."""
    first = np.zeros(len(annotator), np.bool_)
    if len(annotator):
        _, places = np.unique(np.stack([annotator, pair]), axis=1, return_index=True)
        first[places] = True
    return first


def numbered(ids: Sequence[int]) -> tuple[tuple[int, ...], Ints]:
    """The distinct ids in ascending order, and each id's place among them, (N,)."""
    distinct, places = np.unique(np.array(ids, np.int64), return_inverse=True)
    return tuple(int(one) for one in distinct), places.astype(np.int64)
