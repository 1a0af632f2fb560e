"""The quality of a lineage's votes as people look at it: overall, and annotator by annotator under made-up names.

Shapes:  N votes;  K annotators;  P pairs.
"""

import csv
import hashlib
import hmac
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.domain.vote import Outcome
from dmpo_app.labeling.quality import checks, quality_votes
from dmpo_app.labeling.quality.agreement import alpha_interval, majority_agreement, outcome_counts
from dmpo_app.labeling.quality.standing import established_annotators, open_studio_note
from dmpo_app.labeling.quality.vote_weights import VoteWeighing, dawid_skene
from dmpo_app.labeling.sign_in import load_or_create_key
from dmpo_app.labeling.tables import safe_cell
from dmpo_app.settings import Settings
from dmpo_app.store import Store

FALSE_DISCOVERY_RATE = 0.05
MIN_TIMED = 10
"""The least number of timed votes for the flag of fast votes."""
_SEED = 0


@dataclass(frozen=True, slots=True)
class AnnotatorQuality:
    """The quality of one annotator's votes.

    agreement: with the majority of the others. repeats: voted as the first time. gold: right votes on gold pairs.
    left: for the image on the left; left_p its exact two-sided test against 1/2. disagreement_p: exact one-sided test
    for agreeing less often than everybody does on average. Both p-values are adjusted over all annotators (Benjamini
    and Hochberg). fast: in less than 600 ms. accuracy, compared, relative and weight: see
    `vote_weights.Reliability`. counts: the weight of a vote in rounds as weighing and cap are set now;
    vote_share: their share of all weight. established: no newcomer. flags: what stands out, in words.
    """

    name: str
    votes: int
    agreement: quality_votes.Share
    repeats: quality_votes.Share
    gold: quality_votes.Share
    left: quality_votes.Share
    left_p: float | None
    disagreement_p: float | None
    median_ms: float | None
    fast: quality_votes.Share
    ties: quality_votes.Share
    accuracy: float
    compared: int
    relative: float
    weight: float
    counts: float
    vote_share: float
    established: bool
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StruckAnnotatorEntry:
    """A struck annotator: votes, open reports and prompts that do not count until they are restored."""

    name: str
    struck_at: str
    votes: int
    reports: int
    prompts: int


@dataclass(frozen=True, slots=True)
class QualityReport:
    """The quality report: everybody together, and `annotators`, those with the most votes first.

    overlapping_pairs: by two people or more. alpha: Krippendorff's, nominal, with an interval over pairs; None where
    nothing can be compared. Intervals of shares allow for votes of one annotator being alike. left_p: an exact sign
    test over annotators, by the side each chose more often. weights_in_use, max_annotator_share, newcomer_share:
    whether training weighs votes by reliability, and the caps, as they are set now. notes: what the studio cannot
    prevent as it is set now, in sentences. struck: annotators whose votes are not in any of the numbers.
    time_edges_ms, time_counts: histogram of times.
    """

    votes: int
    skips: int
    both_bad: int
    pairs: int
    overlapping_pairs: int
    alpha: quality_votes.Interval | None
    agreement: quality_votes.Share
    repeats: quality_votes.Share
    gold: quality_votes.Share
    left: quality_votes.Share
    left_p: float | None
    ties: quality_votes.Share
    fast: quality_votes.Share
    median_ms: float | None
    weights_in_use: bool
    max_annotator_share: float | None
    newcomer_share: float | None
    time_edges_ms: tuple[int, ...]
    time_counts: tuple[int, ...]
    annotators: tuple[AnnotatorQuality, ...]
    notes: tuple[str, ...]
    struck: tuple[StruckAnnotatorEntry, ...]


def quality_report(
    votes: Sequence[quality_votes.DetailedVote],
    *,
    annotator_name: Callable[[int], str],
    weighing: VoteWeighing,
    gold: Mapping[int, Outcome] | None = None,
) -> QualityReport:
    """Compute the quality report of votes, which are in the order they were given.

    Args:
        annotator_name: the pseudonym of an annotator (by id) in the report.
        weighing: how training weighs votes, as set now. Reliability is reported even where it is off.
        gold: the right outcome of gold pairs, by pair id.
    """
    arrays = quality_votes.VoteArrays.from_votes(votes, gold)
    counts = outcome_counts(arrays)
    agreement = majority_agreement(arrays)
    left = checks.left_votes(arrays)
    timed = arrays.elapsed_ms[arrays.elapsed_ms > 0]
    return QualityReport(
        votes=len(votes),
        skips=int((arrays.outcome == quality_votes.SKIPPED).sum()),
        both_bad=int((arrays.outcome == quality_votes.BOTH_BAD).sum()),
        pairs=arrays.num_pairs,
        overlapping_pairs=int((counts.sum(1) >= 2).sum()),
        alpha=alpha_interval(counts, np.random.default_rng(_SEED)),  # the same votes give the same interval
        agreement=quality_votes.clustered_share(*agreement),
        repeats=quality_votes.clustered_share(*checks.repeat_consistency(arrays)),
        gold=quality_votes.clustered_share(*checks.gold_accuracy(arrays)),
        left=quality_votes.clustered_share(*left),
        left_p=_side_bias_p(*left),
        ties=quality_votes.clustered_share(*checks.tie_votes(arrays)),
        fast=quality_votes.clustered_share(*checks.fast_votes(arrays)),
        median_ms=float(np.median(timed)) if timed.size else None,
        weights_in_use=weighing.reliability != "off",
        max_annotator_share=weighing.max_annotator_share,
        newcomer_share=None if weighing.established is None else weighing.newcomer_share,
        time_edges_ms=checks.TIME_EDGES_MS,
        time_counts=tuple(int(count) for count in checks.time_histogram(arrays)),
        annotators=_annotators(arrays, agreement, left, annotator_name, weighing),
        notes=(),
        struck=(),
    )


def _side_bias_p(left: quality_votes.Ints, decided: quality_votes.Ints) -> float | None:
    """P-value of an exact sign test of side bias over annotators, since votes of one of them are not independent."""
    to_left, to_right = int((2 * left > decided).sum()), int((2 * left < decided).sum())
    return _none_if_nan(checks.two_sided_coin_test(np.array([to_left]), np.array([to_left + to_right]))[0])


def _annotators(
    arrays: quality_votes.VoteArrays,
    agreement: tuple[quality_votes.Ints, quality_votes.Ints],
    left: tuple[quality_votes.Ints, quality_votes.Ints],
    annotator_name: Callable[[int], str],
    weighing: VoteWeighing,
) -> tuple[AnnotatorQuality, ...]:
    mean_agreement = quality_votes.clustered_share(*agreement).value or 0.0
    left_p = quality_votes.benjamini_hochberg(checks.two_sided_coin_test(*left))
    disagreement_p = quality_votes.benjamini_hochberg(checks.too_few_test(*agreement, expected=mean_agreement))
    repeats, gold = checks.repeat_consistency(arrays), checks.gold_accuracy(arrays)
    fast, ties = checks.fast_votes(arrays), checks.tie_votes(arrays)
    medians = checks.median_times(arrays)
    is_established = weighing.is_established(arrays.annotator_ids)
    num_trained_on = arrays.per_annotator(arrays.is_decided | (arrays.outcome == quality_votes.TIE))
    reliability = dawid_skene(
        arrays.annotator[arrays.is_decided],
        arrays.pair[arrays.is_decided],
        arrays.outcome[arrays.is_decided] == quality_votes.A,
        num_votes=num_trained_on,
        truth=_truth(arrays),
        established=is_established,
    )
    weights = np.ones_like(reliability.weight) if weighing.reliability == "off" else reliability.weight
    weights = weights * weighing.share_factors(weights * num_trained_on, is_established)
    masses = weights * num_trained_on
    num_votes = np.bincount(arrays.annotator, minlength=arrays.num_annotators)
    rows = []
    for k in np.argsort(-num_votes, kind="stable"):
        side_bias_flag = _is_significant(left_p[k]) and "side bias"
        disagreement_flag = _is_significant(disagreement_p[k]) and "disagrees"
        fast_flag = fast[1][k] >= MIN_TIMED and 2 * fast[0][k] > fast[1][k] and "fast"
        rows.append(
            AnnotatorQuality(
                name=annotator_name(arrays.annotator_ids[k]),
                votes=int(num_votes[k]),
                agreement=_share(agreement, k),
                repeats=_share(repeats, k),
                gold=_share(gold, k),
                left=_share(left, k),
                left_p=_none_if_nan(left_p[k]),
                disagreement_p=_none_if_nan(disagreement_p[k]),
                median_ms=_none_if_nan(medians[k]),
                fast=_share(fast, k),
                ties=_share(ties, k),
                accuracy=float(reliability.accuracy[k]),
                compared=int(reliability.compared[k]),
                relative=float(reliability.relative[k]),
                weight=float(reliability.weight[k]),
                counts=float(weights[k]),
                vote_share=float(masses[k] / masses.sum()) if masses.any() else 0.0,
                established=bool(is_established[k]),
                flags=tuple(flag for flag in (side_bias_flag, disagreement_flag, fast_flag) if flag),
            )
        )
    return tuple(rows)


def _truth(arrays: quality_votes.VoteArrays) -> quality_votes.Floats:
    """(P,) 1 where image a is known to be better, 0 where b is, NaN elsewhere."""
    truth = np.full(arrays.num_pairs, np.nan)
    known = (arrays.gold != quality_votes.NOT_GOLD) & (arrays.gold < quality_votes.TIE)
    truth[arrays.pair[known]] = arrays.gold[known] == quality_votes.A
    return truth


def _share(counts: tuple[quality_votes.Ints, quality_votes.Ints], k: int) -> quality_votes.Share:
    return quality_votes.wilson_share(int(counts[0][k]), int(counts[1][k]))


def _is_significant(p_value: float) -> bool:
    return bool(p_value < FALSE_DISCOVERY_RATE)  # False for NaN, where nothing was tested


def _none_if_nan(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


_SHARES = ("agreement", "repeats", "gold", "left", "fast", "ties")


def to_json(report: QualityReport) -> str:
    """Format the whole report as JSON; unknown values are null."""
    return json.dumps(asdict(report), indent=1, allow_nan=False)


def to_csv(report: QualityReport) -> str:
    """Format the annotators as CSV, a line each; each share takes four columns. Unknown values are empty."""
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
        "weight", "counts", "vote_share", "established", "flags",
    ]  # fmt: skip


def _cells(row: AnnotatorQuality) -> list[object]:
    shares: list[quality_votes.Share] = [getattr(row, name) for name in _SHARES]
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
        row.established,
        "; ".join(row.flags),
    ]


_PURPOSE = b"quality report:"
_LENGTH = 12


def hash_name(key: bytes, public_id: str) -> str:
    """The pseudonym of an annotator: 12 hex digits of HMAC-SHA256 under the home's key.

    Without the key nobody can tell which annotator it is, not even one who knows all public ids.
    """
    return hmac.new(key, _PURPOSE + public_id.encode(), hashlib.sha256).hexdigest()[:_LENGTH]


def make_name_hasher(key: bytes, public_ids: Mapping[int, str]) -> Callable[[int], str]:
    """Make a function from an annotator's id to their pseudonym."""
    return lambda annotator_id: hash_name(key, public_ids[annotator_id])


def build_report(store: Store, base: BaseModelRef, settings: Settings) -> QualityReport:
    """Build the quality report of a lineage's live votes on the question that rounds learn from.

    Annotators go by pseudonyms. About 2 s for 100,000 votes. Raises SetupError when the home's key is damaged.
    """
    votes = store.vote_records.all(base, question=settings.labeling.training_question)
    key, weighing = load_or_create_key(store.home), build_weighing(store, base, settings)
    report = quality_report(
        votes,
        annotator_name=make_name_hasher(key, store.vote_records.public_ids(base)),
        weighing=weighing,
        gold=store.gold.right_outcomes(base),
    )
    struck = [
        StruckAnnotatorEntry(
            hash_name(key, one.public_id), one.struck_at.isoformat(), one.votes, one.reports, one.prompts
        )
        for one in store.strikes.list()
    ]
    return replace(report, notes=_notes(report, weighing, settings), struck=tuple(struck))


NOBODY_IS_ESTABLISHED = (
    "Nobody is established yet, so no cap holds: whoever votes most weighs most. Sign-ins, invitations and records "
    "of votes establish people."
)


def _notes(report: QualityReport, weighing: VoteWeighing, settings: Settings) -> tuple[str, ...]:
    is_capped = weighing.established is None or any(row.established for row in report.annotators)
    notes = (open_studio_note(settings), None if is_capped else NOBODY_IS_ESTABLISHED)
    return tuple(note for note in notes if note is not None)


def build_weighing(store: Store, base: BaseModelRef, settings: Settings) -> VoteWeighing:
    """Build the weighing of a lineage's votes in rounds under these settings, with who is established now."""
    labeling = settings.labeling
    return VoteWeighing(
        labeling.reliability,
        labeling.annotator_share(public=settings.public),
        labeling.newcomers.share,
        established_annotators(store, base, settings),
    )
