"""Every prompt its share of votes."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from dmpo_app.domain.pair_choice import Candidate, Fact, Overlap


@dataclass(frozen=True, slots=True)
class ByCoverage:
    """Pairs of the prompts with the fewest votes first, and within a request no prompt twice while there are others."""

    needs: frozenset[Fact] = frozenset({Fact.PROMPT_VOTES})
    overlap: Overlap | None = None

    def order(self, candidates: Sequence[Candidate], rng: random.Random) -> list[Candidate]:  # noqa: ARG002
        turns: Counter[int] = Counter()
        keyed = []
        for one in candidates:
            keyed.append((one.prompt_votes + turns[one.prompt_id], one))
            turns[one.prompt_id] += 1
        return [one for _, one in sorted(keyed, key=lambda pair: pair[0])]
