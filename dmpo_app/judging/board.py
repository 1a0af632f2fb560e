"""The board: Bradley-Terry scores of all versions and the base model by evalica, with intervals by bootstrap.

Shapes:  N judgements;  K kinds of them: two versions and an outcome;  R resamples.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from dmpo_app.domain.judging import Board, BoardRow, Judgement
from dmpo_app.domain.vote import Question

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BASE = 0
RESAMPLES = 1000
PRIOR_TIES = 1.0
"""Ties that are added between two versions that met, so that one that won all its duels has a finite score."""
_CHUNK = 100
_MAX_ITERATIONS = 10_000
_TOLERANCE = 1e-6

Kind = tuple[int, int, float]
"""Two versions, the lower one first, and its score: 1, 0, or 0.5 for a tie."""


@dataclass(frozen=True, slots=True)
class _Judged:
    """Judgements of versions that a chain of duels joins: (N,) numbers of their kinds, annotators and prompts."""

    kinds: tuple[Kind, ...]
    kind: Ints
    annotator: Ints
    prompt: Ints

    @classmethod
    def of(cls, judgements: Sequence[Judgement]) -> "_Judged":
        each_kind = [_kind(one) for one in judgements]
        kinds = tuple(sorted(set(each_kind)))
        places = {kind: place for place, kind in enumerate(kinds)}
        return cls(
            kinds,
            np.array([places[kind] for kind in each_kind], np.int64),
            _numbered([one.annotator_id for one in judgements]),
            _numbered([one.prompt for one in judgements]),
        )

    def resampled(self, rng: np.random.Generator, resamples: int) -> Iterator[Floats]:
        """(R, K) how often each kind is in a resample, in chunks.

        Annotators and prompts are drawn with replacement, and a judgement counts as often as its annotator times as
        its prompt was drawn (Owen, The pigeonhole bootstrap, 2007): the intervals are a little wide, never narrow.
        """
        order = np.argsort(self.kind, kind="stable")
        starts = np.searchsorted(self.kind[order], np.arange(len(self.kinds)))
        for start in range(0, resamples, _CHUNK):
            size = min(_CHUNK, resamples - start)
            counts = _draws(rng, self.annotator, size) * _draws(rng, self.prompt, size)
            yield np.add.reduceat(counts[:, order], starts, axis=1).astype(np.float64)


def make_board(
    judgements: Sequence[Judgement],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    question: Question = Question.OVERALL,
) -> Board:
    """Rank all versions by the judgements of their duels; a tie is half a win for each."""
    asked = [one for one in judgements if one.question is question and one.version_a != one.version_b]
    if not asked:
        return Board((), None, 0, 0, 0)
    groups = _groups(asked)
    group = next((group for group in groups if BASE in group), groups[0])
    anchor = min(group)
    rows = _rank([one for one in asked if one.version_a in group], anchor, np.random.default_rng(seed), resamples)
    disconnected = tuple(sorted(version for other in groups if other is not group for version in other))
    rows += [BoardRow(version, _num_judgements(asked, version)) for version in disconnected]
    return Board(
        tuple(rows),
        anchor,
        len(asked),
        len({one.annotator_id for one in asked}),
        len({one.prompt for one in asked}),
        disconnected,
    )


def _rank(judgements: Sequence[Judgement], anchor: int, rng: np.random.Generator, resamples: int) -> list[BoardRow]:
    """The rows of versions that a chain of duels joins, best first."""
    judged = _Judged.of(judgements)
    counts = np.bincount(judged.kind, minlength=len(judged.kinds)).astype(np.float64)
    scores = _scores(judged.kinds, counts, anchor)
    lows: dict[int, float | None] = dict.fromkeys(scores)
    highs: dict[int, float | None] = dict.fromkeys(scores)
    if resamples and max(judged.annotator.max(), judged.prompt.max()) > 0:
        samples = [
            _scores(judged.kinds, sample, anchor) for chunk in judged.resampled(rng, resamples) for sample in chunk
        ]
        for version in scores:
            low, high = np.quantile([sample[version] for sample in samples], (0.025, 0.975))
            lows[version], highs[version] = float(low), float(high)
    rows = [
        BoardRow(
            version,
            _num_judgements(judgements, version),
            score,
            lows[version],
            highs[version],
            *(_chance(value) for value in (score, lows[version], highs[version])),
        )
        for version, score in scores.items()
    ]
    return sorted(rows, key=lambda row: (-(row.score or 0.0), row.version))


def _scores(kinds: Sequence[Kind], counts: Floats, anchor: int) -> Mapping[int, float]:
    """Scores by version from how often each kind of judgement was given."""
    import evalica  # it imports pandas, which no page should wait for

    met = sorted({(first, second) for first, second, _ in kinds})
    winners = {1.0: evalica.Winner.X, 0.0: evalica.Winner.Y, 0.5: evalica.Winner.Draw}
    result = evalica.bradley_terry(
        [first for first, _, _ in kinds] + [first for first, _ in met],
        [second for _, second, _ in kinds] + [second for _, second in met],
        [winners[score] for _, _, score in kinds] + [evalica.Winner.Draw] * len(met),
        weights=[*counts.tolist(), *[PRIOR_TIES] * len(met)],
        tolerance=_TOLERANCE,
        limit=_MAX_ITERATIONS,
    )
    logs = dict(zip(result.scores.index.tolist(), np.log(result.scores.to_numpy()).tolist(), strict=True))
    return {version: log - logs[anchor] for version, log in logs.items()}


def _kind(judgement: Judgement) -> Kind:
    if judgement.version_a < judgement.version_b:
        return judgement.version_a, judgement.version_b, judgement.score
    return judgement.version_b, judgement.version_a, 1 - judgement.score


def _numbered(keys: Sequence[int] | Sequence[str]) -> Ints:
    """(N,) the number of each key, in the order of their first appearance."""
    places = {key: place for place, key in enumerate(dict.fromkeys(keys))}
    return np.array([places[key] for key in keys], np.int64)


def _draws(rng: np.random.Generator, cluster: Ints, size: int) -> Ints:
    """(size, N) how often the cluster of each judgement is drawn."""
    count = int(cluster.max()) + 1
    drawn: Ints = rng.multinomial(count, np.full(count, 1 / count), size=size)[:, cluster]
    return drawn


def _chance(score: float | None) -> float | None:
    """The chance of winning against the anchor."""
    return None if score is None else float(expit(score))


def _num_judgements(judgements: Sequence[Judgement], version: int) -> int:
    return sum(version in (one.version_a, one.version_b) for one in judgements)


def _groups(judgements: Sequence[Judgement]) -> list[set[int]]:
    """Groups of versions that chains of duels join, the largest first, among equals the one with the oldest version."""
    groups: list[set[int]] = []
    for pair in {(one.version_a, one.version_b) for one in judgements}:
        joined = [group for group in groups if group & set(pair)]
        groups = [group for group in groups if group not in joined] + [set(pair).union(*joined)]
    return sorted(groups, key=lambda group: (-len(group), min(group)))
