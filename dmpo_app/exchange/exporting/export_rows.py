"""Rows of an export: the selected pairs page by page, the verdict of their votes, and the interface of the formats.

Shapes:  N votes;  K annotators.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import PurePath
from typing import Any, Literal, Protocol

import numpy as np

from dmpo_app.domain.lineage import BaseModelRef, ImageRef, PairSource
from dmpo_app.domain.vote import Outcome, Purpose, Question
from dmpo_app.labeling.quality.quality_votes import number_ids
from dmpo_app.labeling.quality.vote_weights import VoteWeighing, dawid_skene
from dmpo_app.store import Store
from dmpo_app.store.voting.vote_queries import ExportVote, VotedPair

RowKind = Literal["votes", "pairs"]
Aggregation = Literal["majority", "posterior"]


@dataclass(frozen=True, slots=True)
class Selection:
    """The filters of an export; defaults filter nothing, except that pairs retired by reports are left out.

    since, until: votes given from the one on and before the other, aware of their time zone. annotators: by hashed
    name. versions: pairs made by these adapter versions. question: None is every question. min_votes, min_agreement:
    pairs with so many votes that say something, of which such a share (0 to 1) said the same. reported: with pairs
    that reports have retired.
    """

    since: datetime | None = None
    until: datetime | None = None
    annotators: frozenset[str] = frozenset()
    versions: frozenset[int] = frozenset()
    question: Question | None = None
    min_votes: int = 1
    min_agreement: float = 0.0
    reported: bool = False

    def to_json_values(self) -> dict[str, Any]:
        """The filters that are set, as JSON values in a fixed order."""
        values: dict[str, Any] = {
            "since": None if self.since is None else self.since.isoformat(),
            "until": None if self.until is None else self.until.isoformat(),
            "annotators": sorted(self.annotators),
            "versions": sorted(self.versions),
            "question": None if self.question is None else self.question.value,
            "min_votes": self.min_votes if self.min_votes > 1 else None,
            "min_agreement": self.min_agreement or None,
            "reported": self.reported,
        }
        return {name: value for name, value in values.items() if value}


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """The options of an export.

    rows: one for each vote, or one for each pair; None: as the format is used. decide: how a pair's votes are
    aggregated, by majority or by the posterior under annotators' reliability. with_images: None as the format is used.
    comments: with what people wrote, which may tell who they are. held_out_share: of the prompts, 0 to 0.5, for the
    split `test`. licence: as the hub names it.
    """

    rows: RowKind | None = None
    decide: Aggregation = "majority"
    with_images: bool | None = None
    comments: bool = False
    held_out_share: float = 0.1
    licence: str | None = None

    def to_json_values(self) -> Mapping[str, Any]:
        """The options as JSON values."""
        return asdict(self)


_MAX_ACCURACY = 0.99
_DECIDED = (Outcome.A, Outcome.B)


@dataclass(frozen=True, slots=True)
class Consensus:
    """The consensus of the votes on a pair.

    `outcome`: the most frequent one, a tie where none is ahead. `agreement`: its share of the votes, or its
    probability, 0 to 1. `votes`: those that are no skips, by outcome.
    """

    outcome: Outcome
    agreement: float
    votes: Mapping[Outcome, int]

    @property
    def num_votes(self) -> int:
        return sum(self.votes.values())


def filter_preferences(votes: Iterable[ExportVote]) -> list[ExportVote]:
    """Filter the votes that count as preferences: no repeats, no votes on gold pairs and duels, no skips."""
    return [vote for vote in votes if vote.purpose is Purpose.VOTE and vote.outcome is not Outcome.SKIP]


def majority_consensus(votes: Sequence[ExportVote]) -> Consensus | None:
    """Consensus by majority. None without votes that count."""
    counts = Counter(vote.outcome for vote in filter_preferences(votes))
    if not counts:
        return None
    most = max(counts.values())
    first = [outcome for outcome in (*_DECIDED, Outcome.TIE, Outcome.BOTH_BAD) if counts[outcome] == most]
    outcome = first[0] if len(first) == 1 else Outcome.TIE
    return Consensus(outcome, most / counts.total(), counts)


def posterior_consensus(votes: Sequence[ExportVote], accuracy: Mapping[int, float]) -> Consensus | None:
    """Consensus by the posterior under the annotators' accuracies.

    As `majority_consensus`, but where votes for an image are no fewer than ties and than those for neither, with
    s = +1 for a and -1 for b, log odds that a is better = sum_j s_j logit(q_j). `accuracy`: q by annotator id, see
    `annotator_accuracies`.
    """
    consensus = majority_consensus(votes)
    if consensus is None:
        return None
    decided = [vote for vote in filter_preferences(votes) if vote.outcome in _DECIDED]
    if len(decided) < max(consensus.votes.get(Outcome.TIE, 0), consensus.votes.get(Outcome.BOTH_BAD, 0), 1):
        return consensus
    log_odds = sum(
        (1 if vote.outcome is Outcome.A else -1) * _logit(accuracy.get(vote.annotator_id, 0.5)) for vote in decided
    )
    if log_odds == 0:
        return Consensus(Outcome.TIE, 0.5, consensus.votes)
    return Consensus(Outcome.A if log_odds > 0 else Outcome.B, 1 / (1 + math.exp(-abs(log_odds))), consensus.votes)


def annotator_accuracies(pairs: Iterable[VotedPair], established: Collection[int] | None = None) -> dict[int, float]:
    """Each annotator's probability of naming the better image (Dawid and Skene), by id; 24 bytes a vote in memory.

    `established`: the ids of those whose votes are evidence of it, see `quality.standing`; None: everybody's are.
    """
    ids: list[int] = []
    pair_ids: list[int] = []
    chose_a: list[bool] = []
    for pair in pairs:
        for vote in filter_preferences(pair.votes):
            if vote.outcome in _DECIDED:
                ids.append(vote.annotator_id)
                pair_ids.append(pair.id)
                chose_a.append(vote.outcome is Outcome.A)
    people, annotator_N = number_ids(ids)
    _, pair_N = number_ids(pair_ids)
    votes_of_K = np.bincount(annotator_N, minlength=len(people)).astype(np.int64)
    is_established = VoteWeighing(established=established).is_established(people)
    decided = (annotator_N, pair_N, np.array(chose_a, np.bool_))
    reliability = dawid_skene(*decided, num_votes=votes_of_K, established=is_established)
    return dict(zip(people, (float(q) for q in reliability.accuracy), strict=True))


def _logit(accuracy: float) -> float:
    clipped = min(max(accuracy, 1 - _MAX_ACCURACY), _MAX_ACCURACY)
    return math.log(clipped / (1 - clipped))


ColumnType = Literal["string", "int64", "float64", "bool", "timestamp[ns]", "binary", "image"]
Row = Mapping[str, Any]
_LOCAL_SOURCES = frozenset((PairSource.STARTER.value, PairSource.POOL.value, PairSource.DUEL.value))
WINS_OF_A: Mapping[Outcome, float] = {Outcome.A: 1.0, Outcome.B: 0.0, Outcome.TIE: 0.5}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of an export. `image` is the `Image` feature of Hugging Face `datasets`: bytes and a name."""

    name: str
    kind: ColumnType
    meaning: str


@dataclass(frozen=True, slots=True)
class FormatContext:
    """The context in which a format makes its rows.

    annotator_name: the hashed name of an annotator by id. read_image: the PNG of that sha256. copy_image: puts it
    beside the rows and returns where; both raise DamagedFileError, both are None without images. rows: one for each
    vote or each pair. rows_per_prompt: how many rows the whole export has for a prompt.
    """

    base: BaseModelRef
    annotator_name: Callable[[int], str]
    read_image: Callable[[str], bytes] | None
    copy_image: Callable[[str], str] | None
    rows: RowKind
    comments: bool
    rows_per_prompt: Mapping[str, int]

    @property
    def with_images(self) -> bool:
        return self.read_image is not None

    def base_model(self, pair: VotedPair, image: ImageRef) -> str:
        """The base model that made an image; of an imported one, whatever model its source names."""
        if pair.source.value in _LOCAL_SOURCES:
            return model_name(self.base)
        origin = pair.origin_for(image)
        model = origin.get("model") or origin.get("base_model")
        return model if isinstance(model, str) else "unknown"

    def model_with_version(self, pair: VotedPair, image: ImageRef) -> str:
        """The model that made an image: the base model's name, and the version where there is one."""
        is_local = pair.source.value in _LOCAL_SOURCES
        version = image.provenance.adapter_version if is_local else pair.origin_for(image).get("adapter_version")
        name = self.base_model(pair, image)
        return f"{name}@dmpo-{version}" if isinstance(version, int) and version > 0 else name


class Format(Protocol):
    """An export format; stateless."""

    name: str
    description: str
    suffix: str
    """.parquet, .jsonl or .csv."""
    default_rows: RowKind
    """The kind of rows unless set otherwise. Formats of raw votes know no other."""
    is_raw: bool
    """True: rows are raw votes, those on gold pairs, repeats and duels too; prompts are not split."""
    default_images: bool
    holds_ties: bool
    counts_prompts: bool
    """True: rows hold the number of rows for their prompt, so the votes are iterated once more before."""

    def columns(self, context: FormatContext) -> Sequence[Column]: ...

    def row(self, pair: VotedPair, pair_votes: PairVotes, context: FormatContext) -> Row:
        """Make one row; raises DamagedFileError when an image is not in the store."""
        ...


@dataclass(frozen=True, slots=True)
class PairVotes:
    """The votes behind one row of an export: a single vote, or all `votes` on the pair with their consensus."""

    consensus: Consensus
    votes: Sequence[ExportVote]

    @property
    def outcome(self) -> Outcome:
        return self.consensus.outcome


def model_name(base: BaseModelRef) -> str:
    """The public name of the base model: its hub id, of a folder the name alone."""
    path = PurePath(base.source)
    is_folder = path.is_absolute() or base.source.startswith((".", "~")) or len(path.parts) > 2
    return path.name if is_folder else base.source


def split_into_rows(pair: VotedPair, consensus: Consensus, rows: RowKind) -> Iterator[PairVotes]:
    """Split the preferences on a pair into rows, one a vote or one a pair; votes for neither image are none."""
    if rows == "votes":
        for vote in filter_preferences(pair.votes):
            if vote.outcome in WINS_OF_A:
                yield PairVotes(Consensus(vote.outcome, 1.0, {vote.outcome: 1}), [vote])
    elif consensus.outcome in WINS_OF_A:
        yield PairVotes(consensus, filter_preferences(pair.votes))


PAGE_SIZE = 500


class SelectedPairs:
    """Iterate over the selected pairs with their selected votes, by id; re-iterable with the same result.

    Votes given after this was made do not take part. `left_out` counts, by reason, what the last iteration left out.
    """

    def __init__(
        self, store: Store, base: BaseModelRef, selection: Selection, annotator_name: Callable[[int], str]
    ) -> None:
        self._store = store
        self._base = base
        self._selection = selection
        self._annotator_name = annotator_name
        self._last_vote = store.voted_pairs.last_vote(base)
        self.left_out: Counter[str] = Counter()

    def __iter__(self) -> Iterator[VotedPair]:
        self.left_out = Counter()
        after = 0
        while True:
            page = self._store.voted_pairs.page(self._base, after=after, last_vote=self._last_vote, limit=PAGE_SIZE)
            yield from (kept for pair in page if (kept := self._filter_votes(pair)) is not None)
            if len(page) < PAGE_SIZE:
                return
            after = page[-1].id

    def _filter_votes(self, pair: VotedPair) -> VotedPair | None:
        selection = self._selection
        if selection.versions and pair.adapter_version not in selection.versions:
            return None
        votes = [vote for vote in pair.votes if self._is_selected(vote)]
        if not votes:
            return None
        if pair.retired and not selection.reported:
            self.left_out["votes on reported pairs"] += len(votes)
            return None
        return replace(pair, votes=votes)

    def _is_selected(self, vote: ExportVote) -> bool:
        selection = self._selection
        return (
            (selection.question is None or vote.question is selection.question)
            and (selection.since is None or vote.at >= selection.since)
            and (selection.until is None or vote.at < selection.until)
            and (not selection.annotators or self._annotator_name(vote.annotator_id) in selection.annotators)
        )


Aggregate = Callable[[list[ExportVote]], Consensus | None]


class ExportRows:
    """Iterate over the selected pairs with the votes that become rows; re-iterable, counts skipped votes.

    `left_out` counts the votes, by reason, that the last iteration made no rows of.
    """

    def __init__(
        self, form: Format, pairs: SelectedPairs, selection: Selection, rows: RowKind, decision: Aggregate
    ) -> None:
        self.form = form
        self.pairs = pairs
        self._selection = selection
        self._rows: RowKind = rows
        self._aggregate = decision
        self.left_out: Counter[str] = Counter()

    def __iter__(self) -> Iterator[tuple[VotedPair, list[PairVotes]]]:
        self.left_out = Counter()
        for pair in self.pairs:
            row_votes = self._votes_of_pair(pair)
            if row_votes:
                yield pair, row_votes
        self.left_out += self.pairs.left_out

    def rows_per_prompt(self) -> Counter[str]:
        """Count the rows for each prompt."""
        count: Counter[str] = Counter()
        for pair, row_votes in self:
            count[pair.prompt] += len(row_votes)
        return count

    def _votes_of_pair(self, pair: VotedPair) -> list[PairVotes]:
        if pair.gold is not None and not self.form.is_raw:
            self.left_out["votes on gold pairs"] += len(pair.votes)
            return []
        if pair.source is PairSource.DUEL and not self.form.is_raw:
            self.left_out["judgements of duels between versions"] += len(pair.votes)
            return []
        consensus = self._aggregate(list(pair.votes))
        selection = self._selection
        if not _meets_thresholds(consensus, selection):
            self.left_out["votes on pairs with too few of them or too little agreement"] += len(pair.votes)
            return []
        if self.form.is_raw:
            return [PairVotes(Consensus(vote.outcome, 1.0, {}), [vote]) for vote in pair.votes]
        rows = [] if consensus is None else list(split_into_rows(pair, consensus, self._rows))
        kept_rows = [one for one in rows if self.form.holds_ties or one.outcome is not Outcome.TIE]
        num_counted = sum(len(one.votes) for one in kept_rows)
        if num_counted < len(pair.votes):
            self.left_out["votes that are no preference here (ties, both bad, skips, repeats)"] += (
                len(pair.votes) - num_counted
            )
        return kept_rows


def _meets_thresholds(consensus: Consensus | None, selection: Selection) -> bool:
    if selection.min_votes <= 1 and selection.min_agreement <= 0:
        return True
    return (
        consensus is not None
        and consensus.num_votes >= selection.min_votes
        and consensus.agreement >= selection.min_agreement
    )
