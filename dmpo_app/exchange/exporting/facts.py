"""What is said of an export as a whole, counted while it is written."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np

from dmpo_app.domain.vote import Outcome, Question
from dmpo_app.exchange.exporting.verdict import counted
from dmpo_app.labeling.quality.agreement import alpha_interval
from dmpo_app.labeling.quality.quality_votes import ANSWERS
from dmpo_app.labeling.quality.shares import Interval
from dmpo_app.store.voting.judgements import JudgedPair

_SEED = 0


@dataclass(slots=True)
class Facts:
    """Counts of what was exported; memory grows by annotators and kinds of pairs, not by votes."""

    pairs: int = 0
    votes: Counter[Question] = field(default_factory=Counter)
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    annotators: set[int] = field(default_factory=set)
    versions: Counter[int] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    first: datetime | None = None
    last: datetime | None = None
    _kinds: dict[Question, Counter[tuple[int, ...]]] = field(default_factory=lambda: defaultdict(Counter))

    def add(self, pair: JudgedPair) -> None:
        """A pair of which rows were exported, with the votes behind them."""
        self.pairs += 1
        self.versions[pair.adapter_version] += 1
        answers: dict[Question, Counter[Outcome]] = defaultdict(Counter)
        for vote in pair.votes:
            self.votes[vote.question] += 1
            self.outcomes[vote.outcome] += 1
            self.annotators.add(vote.annotator_id)
            self.first = vote.at if self.first is None else min(self.first, vote.at)
            self.last = vote.at if self.last is None else max(self.last, vote.at)
        if pair.gold is None:  # they were picked for being easy
            for vote in counted(pair.votes):
                answers[vote.question][vote.outcome] += 1
        for question, given in answers.items():
            self._kinds[question][tuple(given[answer] for answer in ANSWERS)] += 1

    def overlapping(self, question: Question) -> int:
        """Pairs judged by two or more."""
        return sum(count for kind, count in self._kinds[question].items() if sum(kind) >= 2)

    def alpha(self, question: Question) -> Interval | None:
        """Krippendorff's, nominal, with a 95 % interval over pairs; None where nothing can be compared."""
        kinds = {kind: count for kind, count in sorted(self._kinds[question].items()) if sum(kind) >= 2}
        if not kinds:
            return None
        counts = np.repeat(np.array(list(kinds), np.int64), list(kinds.values()), axis=0)
        return alpha_interval(counts, np.random.default_rng(_SEED))
