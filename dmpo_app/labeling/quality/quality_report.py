"""The quality of a lineage's votes as people look at it: overall, and annotator by annotator under made-up names.

Shapes:  N votes;  K annotators;  P pairs.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from dmpo_app.domain.vote import Outcome
from dmpo_app.labeling.quality import checks
from dmpo_app.labeling.quality.agreement import alpha_interval, answer_counts, majority_agreement
from dmpo_app.labeling.quality.quality_votes import (
    BOTH_BAD,
    NOT_GOLD,
    SKIPPED,
    TIE,
    A,
    Floats,
    Interval,
    Ints,
    Judged,
    Share,
    VoteArrays,
    benjamini_hochberg,
    clustered_share,
    share_of,
)
from dmpo_app.labeling.quality.reliability import dawid_skene
from dmpo_app.labeling.quality.vote_weights import VoteWeighing, cap_factors
from dmpo_app.labeling.tables import safe_cell

FALSE_DISCOVERY_RATE = 0.05
MIN_TIMED = 10
"""Fewer times do not make somebody fast."""
_SEED = 0


@dataclass(frozen=True, slots=True)
class AnnotatorQuality:
    """One annotator.

    agreement: with what most others answered. repeats: answered as the first time. gold: right answers on gold pairs.
    left: for the image on the left; left_p its exact two-sided test against 1/2. disagreement_p: exact one-sided test
    for agreeing less often than everybody does on average. Both p-values are adjusted over all annotators (Benjamini
    and Hochberg). fast: in less than 600 ms. accuracy, compared, relative and weight: see
    `reliability.Reliability`. counts: what a vote counts in rounds as weighing and cap are set now; vote_share: what
    that comes to of all votes. flags: what stands out, in words.
    """

    name: str
    votes: int
    agreement: Share
    repeats: Share
    gold: Share
    left: Share
    left_p: float | None
    disagreement_p: float | None
    median_ms: float | None
    fast: Share
    ties: Share
    accuracy: float
    compared: int
    relative: float
    weight: float
    counts: float
    vote_share: float
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class QualityReport:
    """Everybody together, and `annotators`, those with the most votes first.

    overlapping_pairs: judged by two or more. alpha: Krippendorff's, nominal, with an interval over pairs; None where
    nothing can be compared. Intervals of shares allow for votes of one annotator being alike. left_p: an exact sign
    test over annotators, by the side each chose more often. weights_in_use, max_annotator_share: whether training
    weighs votes by reliability, and the cap, as they are set now. time_edges_ms, time_counts: histogram of times.
    """

    votes: int
    skips: int
    both_bad: int
    pairs: int
    overlapping_pairs: int
    alpha: Interval | None
    agreement: Share
    repeats: Share
    gold: Share
    left: Share
    left_p: float | None
    ties: Share
    fast: Share
    median_ms: float | None
    weights_in_use: bool
    max_annotator_share: float | None
    time_edges_ms: tuple[int, ...]
    time_counts: tuple[int, ...]
    annotators: tuple[AnnotatorQuality, ...]


def quality_report(
    votes: Sequence[Judged],
    *,
    name_of: Callable[[int], str],
    weighing: VoteWeighing,
    gold: Mapping[int, Outcome] | None = None,
) -> QualityReport:
    """Everything there is to say about these votes, given in their order.

    Args:
        name_of: what an annotator (by id) is called in the report; not to be traced back to a person.
        weighing: how training weighs votes, as set now. What reliability would give is shown even where it is off.
        gold: the right answer of gold pairs, by pair id.
    """
    arrays = VoteArrays.of(votes, gold)
    counts = answer_counts(arrays)
    agreement = majority_agreement(arrays)
    left = checks.left_choices(arrays)
    timed = arrays.elapsed_ms[arrays.elapsed_ms > 0]
    return QualityReport(
        votes=len(votes),
        skips=int((arrays.answer == SKIPPED).sum()),
        both_bad=int((arrays.answer == BOTH_BAD).sum()),
        pairs=arrays.num_pairs,
        overlapping_pairs=int((counts.sum(1) >= 2).sum()),
        alpha=alpha_interval(counts, np.random.default_rng(_SEED)),  # the same votes give the same interval
        agreement=clustered_share(*agreement),
        repeats=clustered_share(*checks.repeat_consistency(arrays)),
        gold=clustered_share(*checks.gold_accuracy(arrays)),
        left=clustered_share(*left),
        left_p=_leaning(*left),
        ties=clustered_share(*checks.ties(arrays)),
        fast=clustered_share(*checks.fast_votes(arrays)),
        median_ms=float(np.median(timed)) if timed.size else None,
        weights_in_use=weighing.reliability != "off",
        max_annotator_share=weighing.max_annotator_share,
        time_edges_ms=checks.TIME_EDGES_MS,
        time_counts=tuple(int(count) for count in checks.time_histogram(arrays)),
        annotators=_annotators(arrays, agreement, left, name_of, weighing),
    )


def _leaning(left: Ints, decided: Ints) -> float | None:
    """Exact sign test over annotators: do more of them lean to one side? Votes of one of them are not independent."""
    to_left, to_right = int((2 * left > decided).sum()), int((2 * left < decided).sum())
    return _known(checks.two_sided_coin_test(np.array([to_left]), np.array([to_left + to_right]))[0])


def _annotators(
    arrays: VoteArrays,
    agreement: tuple[Ints, Ints],
    left: tuple[Ints, Ints],
    name_of: Callable[[int], str],
    weighing: VoteWeighing,
) -> tuple[AnnotatorQuality, ...]:
    everybody = clustered_share(*agreement).value or 0.0
    left_p = benjamini_hochberg(checks.two_sided_coin_test(*left))
    disagreement_p = benjamini_hochberg(checks.too_few_test(*agreement, expected=everybody))
    repeats, gold = checks.repeat_consistency(arrays), checks.gold_accuracy(arrays)
    fast, ties = checks.fast_votes(arrays), checks.ties(arrays)
    medians = checks.median_times(arrays)
    trained_on = arrays.per_annotator(arrays.decided | (arrays.answer == TIE))
    found = dawid_skene(
        arrays.annotator[arrays.decided],
        arrays.pair[arrays.decided],
        arrays.answer[arrays.decided] == A,
        votes_of=trained_on,
        truth=_truth(arrays),
    )
    in_force = np.ones_like(found.weight) if weighing.reliability == "off" else found.weight
    if weighing.max_annotator_share is not None:
        in_force = in_force * cap_factors(in_force * trained_on, weighing.max_annotator_share)
    masses = in_force * trained_on
    num_votes = np.bincount(arrays.annotator, minlength=arrays.num_annotators)
    rows = []
    for k in np.argsort(-num_votes, kind="stable"):
        biased = _below(left_p[k]) and "side bias"
        apart = _below(disagreement_p[k]) and "disagrees"
        hasty = fast[1][k] >= MIN_TIMED and 2 * fast[0][k] > fast[1][k] and "fast"
        rows.append(
            AnnotatorQuality(
                name=name_of(arrays.annotator_ids[k]),
                votes=int(num_votes[k]),
                agreement=_share(agreement, k),
                repeats=_share(repeats, k),
                gold=_share(gold, k),
                left=_share(left, k),
                left_p=_known(left_p[k]),
                disagreement_p=_known(disagreement_p[k]),
                median_ms=_known(medians[k]),
                fast=_share(fast, k),
                ties=_share(ties, k),
                accuracy=float(found.accuracy[k]),
                compared=int(found.compared[k]),
                relative=float(found.relative[k]),
                weight=float(found.weight[k]),
                counts=float(in_force[k]),
                vote_share=float(masses[k] / masses.sum()) if masses.any() else 0.0,
                flags=tuple(flag for flag in (biased, apart, hasty) if flag),
            )
        )
    return tuple(rows)


def _truth(arrays: VoteArrays) -> Floats:
    """(P,) 1 where image a is known to be better, 0 where b is, NaN elsewhere."""
    truth = np.full(arrays.num_pairs, np.nan)
    known = (arrays.gold != NOT_GOLD) & (arrays.gold < TIE)
    truth[arrays.pair[known]] = arrays.gold[known] == A
    return truth


def _share(counts: tuple[Ints, Ints], k: int) -> Share:
    return share_of(int(counts[0][k]), int(counts[1][k]))


def _below(p_value: float) -> bool:
    return bool(p_value < FALSE_DISCOVERY_RATE)  # False for NaN, where nothing was tested


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


_SHARES = ("agreement", "repeats", "gold", "left", "fast", "ties")


def to_json(report: QualityReport) -> str:
    """The whole report; what is not known is null."""
    return json.dumps(asdict(report), indent=1, allow_nan=False)


def to_csv(report: QualityReport) -> str:
    """A line an annotator; each share takes four columns. What is not known is empty."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\r\n")
    writer.writerow(_header())
    for row in report.annotators:
        writer.writerow([safe_cell(cell) if isinstance(cell, str) else cell for cell in _cells(row)])
    return file.getvalue()


def _header() -> list[str]:
    shares = [f"{name}{part}" for name in _SHARES for part in ("", "_low", "_high", "_trials")]
    return [
        "annotator", "votes", *shares, "left_p", "disagreement_p", "median_ms", "accuracy", "compared", "relative",
        "weight", "counts", "vote_share", "flags",
    ]  # fmt: skip


def _cells(row: AnnotatorQuality) -> list[object]:
    shares: list[Share] = [getattr(row, name) for name in _SHARES]
    return [
        row.name,
        row.votes,
        *(part for share in shares for part in (share.value, share.low, share.high, share.trials)),
        row.left_p,
        row.disagreement_p,
        row.median_ms,
        row.accuracy,
        row.compared,
        row.relative,
        row.weight,
        row.counts,
        row.vote_share,
        "; ".join(row.flags),
    ]
