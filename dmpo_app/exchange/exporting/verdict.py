"""What the votes on a pair come to: by majority, or weighed by how reliable the annotators are.

Shapes:  N votes;  K annotators.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dmpo_app.domain.pair_choice import Purpose
from dmpo_app.domain.vote import Outcome
from dmpo_app.labeling.quality.quality_votes import numbered
from dmpo_app.labeling.quality.reliability import dawid_skene
from dmpo_app.store.voting.judgements import GivenVote, JudgedPair

_SUREST = 0.99
_DECIDED = (Outcome.A, Outcome.B)


@dataclass(frozen=True, slots=True)
class Verdict:
    """`outcome`: what most said, a tie where nothing is ahead. `agreement`: the share that said so, or how probable it
    is, 0 to 1. `votes`: those that say something, by outcome."""

    outcome: Outcome
    agreement: float
    votes: Mapping[Outcome, int]

    @property
    def num_votes(self) -> int:
        return sum(self.votes.values())


def counted(votes: Iterable[GivenVote]) -> list[GivenVote]:
    """The votes that preferences are made of: no repeats, no answers on gold pairs, no skips."""
    return [vote for vote in votes if vote.purpose is Purpose.VOTE and vote.outcome is not Outcome.SKIP]


def majority(votes: Sequence[GivenVote]) -> Verdict | None:
    """The most frequent answer. None without votes that count."""
    answers = Counter(vote.outcome for vote in counted(votes))
    if not answers:
        return None
    most = max(answers.values())
    first = [outcome for outcome in (*_DECIDED, Outcome.TIE, Outcome.BOTH_BAD) if answers[outcome] == most]
    outcome = first[0] if len(first) == 1 else Outcome.TIE
    return Verdict(outcome, most / answers.total(), answers)


def posterior(votes: Sequence[GivenVote], accuracy: Mapping[int, float]) -> Verdict | None:
    """As `majority`, but between the images by the annotators' accuracies.

    Where votes for an image are no fewer than ties and than those for neither, with s = +1 for a and -1 for b,
    log odds that a is better = sum_j s_j logit(q_j). `accuracy`: q by annotator id, see `accuracies`.
    """
    plain = majority(votes)
    if plain is None:
        return None
    decided = [vote for vote in counted(votes) if vote.outcome in _DECIDED]
    if len(decided) < max(plain.votes.get(Outcome.TIE, 0), plain.votes.get(Outcome.BOTH_BAD, 0), 1):
        return plain
    log_odds = sum(
        (1 if vote.outcome is Outcome.A else -1) * _logit(accuracy.get(vote.annotator_id, 0.5)) for vote in decided
    )
    if log_odds == 0:
        return Verdict(Outcome.TIE, 0.5, plain.votes)
    return Verdict(Outcome.A if log_odds > 0 else Outcome.B, 1 / (1 + math.exp(-abs(log_odds))), plain.votes)


def accuracies(pairs: Iterable[JudgedPair]) -> dict[int, float]:
    """Each annotator's probability of naming the better image (Dawid and Skene), by id; 24 bytes a vote in memory."""
    ids: list[int] = []
    pair_ids: list[int] = []
    chose_a: list[bool] = []
    for pair in pairs:
        for vote in counted(pair.votes):
            if vote.outcome in _DECIDED:
                ids.append(vote.annotator_id)
                pair_ids.append(pair.id)
                chose_a.append(vote.outcome is Outcome.A)
    people, annotator_N = numbered(ids)
    _, pair_N = numbered(pair_ids)
    votes_of_K = np.bincount(annotator_N, minlength=len(people)).astype(np.int64)
    found = dawid_skene(annotator_N, pair_N, np.array(chose_a, np.bool_), votes_of=votes_of_K)
    return dict(zip(people, (float(q) for q in found.accuracy), strict=True))


def _logit(accuracy: float) -> float:
    held = min(max(accuracy, 1 - _SUREST), _SUREST)
    return math.log(held / (1 - held))
