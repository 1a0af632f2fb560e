"""Made-up votes with a known truth behind them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dmpo_app.domain.vote import Outcome

LETTERS = {"a": Outcome.A, "b": Outcome.B, "t": Outcome.TIE, "n": Outcome.BOTH_BAD, "s": Outcome.SKIP}


@dataclass(frozen=True)
class Vote:
    annotator_id: int
    pair_id: int
    outcome: Outcome
    a_on_left: bool = True
    elapsed_ms: int = 1500


def said(annotator_id: int, letters: str, *, a_on_left: bool = True, elapsed_ms: int = 1500) -> list[Vote]:
    """One annotator's answers on pairs 0, 1, 2, ...; a dot leaves one out."""
    return [
        Vote(annotator_id, pair, LETTERS[letter], a_on_left, elapsed_ms)
        for pair, letter in enumerate(letters)
        if letter != "."
    ]


def crowd(
    accuracies: Sequence[float], *, pairs: int, judges: int, seed: int, activity: Sequence[float] = ()
) -> list[Vote]:
    """`judges` different annotators on each pair; annotator k names the better image with probability accuracies[k]."""
    rng = np.random.default_rng(seed)
    busy = np.array(activity or [1.0] * len(accuracies))
    votes = []
    for pair in range(pairs):
        a_is_better = rng.random() < 0.5
        for annotator in rng.choice(len(accuracies), judges, replace=False, p=busy / busy.sum()):
            right = rng.random() < accuracies[annotator]
            outcome = Outcome.A if right == a_is_better else Outcome.B
            votes.append(Vote(int(annotator), pair, outcome, bool(rng.random() < 0.5)))
    return votes
