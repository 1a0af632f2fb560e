"""Rows of an export: the selected pairs page by page, the verdict of their votes, and the interface of the formats.

Shapes:  N votes;  K annotators.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import PurePath
from typing import Any, Literal, Protocol

import numpy as np

from dmpo_app.domain.image import ImageRef, PairSource
from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.domain.pair_choice import Purpose
from dmpo_app.domain.vote import Outcome, Question
from dmpo_app.labeling.quality.quality_votes import numbered
from dmpo_app.labeling.quality.reliability import dawid_skene
from dmpo_app.store import Store
from dmpo_app.store.voting.judgements import GivenVote, JudgedPair

Rows = Literal["votes", "pairs"]
Decide = Literal["majority", "posterior"]


@dataclass(frozen=True, slots=True)
class Selection:
    """Filters; what is left at its default filters nothing, except that reported pairs stay here.

    since, until: votes given from the one on and before the other, aware of their time zone. annotators: by hashed
    name. versions: pairs made by these adapter versions. question: None is every question. min_votes, min_agreement:
    pairs with so many votes that say something, of which such a share (0 to 1) said the same. reported: with pairs
    that were reported and not cleared.
    """

    since: datetime | None = None
    until: datetime | None = None
    annotators: frozenset[str] = frozenset()
    versions: frozenset[int] = frozenset()
    question: Question | None = None
    min_votes: int = 1
    min_agreement: float = 0.0
    reported: bool = False

    def described(self) -> dict[str, Any]:
        """The filters that are set, as JSON values in an order that is always the same."""
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
    """The shape of an export.

    rows: one for each vote, or one for each pair; None: as the format is used. decide: what a pair's votes come to,
    by majority or by the posterior under the annotators' reliability. with_images: None as the format is used.
    comments: with what people wrote, which may tell who they are. held_out_share: of the prompts, 0 to 0.5, for the
    split `test`. licence: as the hub names it.
    """

    rows: Rows | None = None
    decide: Decide = "majority"
    with_images: bool | None = None
    comments: bool = False
    held_out_share: float = 0.1
    licence: str | None = None

    def described(self) -> Mapping[str, Any]:
        """As JSON values."""
        return asdict(self)


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


Kind = Literal["string", "int64", "float64", "bool", "timestamp[ns]", "binary", "image"]
Row = Mapping[str, Any]
_MADE_HERE = frozenset((PairSource.STARTER.value, PairSource.POOL.value))
WINS: Mapping[Outcome, float] = {Outcome.A: 1.0, Outcome.B: 0.0, Outcome.TIE: 0.5}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table. `image` is what Hugging Face `datasets` shows as a picture: bytes and a name."""

    name: str
    kind: Kind
    meaning: str


@dataclass(frozen=True, slots=True)
class Context:
    """What formats are told beside the pair.

    name_of: the hashed name of an annotator by id. image: the PNG of that sha256. image_file: puts it beside the rows
    and says where; both raise NotFound, both are None without images. rows: one for each vote or each pair.
    rows_of_prompt: how many rows the whole export has for a prompt.
    """

    base: BaseModelRef
    name_of: Callable[[int], str]
    image: Callable[[str], bytes] | None
    image_file: Callable[[str], str] | None
    rows: Rows
    comments: bool
    rows_of_prompt: Mapping[str, int]

    @property
    def with_images(self) -> bool:
        return self.image is not None

    def base_model(self, pair: JudgedPair, image: ImageRef) -> str:
        """The base model that made an image; of an imported one, whatever model its source names."""
        if pair.source.value in _MADE_HERE:
            return model_name(self.base)
        origin = pair.origin_of(image)
        named = origin.get("model") or origin.get("base_model")
        return named if isinstance(named, str) else "unknown"

    def model(self, pair: JudgedPair, image: ImageRef) -> str:
        """The model that made an image: the base model's name, and the version where there is one."""
        made_here = pair.source.value in _MADE_HERE
        version = image.provenance.adapter_version if made_here else pair.origin_of(image).get("adapter_version")
        name = self.base_model(pair, image)
        return f"{name}@dmpo-{version}" if isinstance(version, int) and version > 0 else name


class Format(Protocol):
    """One format; stateless."""

    name: str
    description: str
    suffix: str
    """.parquet, .jsonl or .csv."""
    default_rows: Rows
    """What a row is unless told otherwise. Formats of raw votes know no other."""
    is_raw: bool
    """Rows are votes as they were given, those on gold pairs and repeats too; prompts are not split."""
    default_images: bool
    holds_ties: bool
    counts_prompts: bool
    """Rows say how many rows there are for their prompt, so the votes are gone through once more before."""

    def columns(self, context: Context) -> Sequence[Column]: ...

    def row(self, pair: JudgedPair, judgement: Judgement, context: Context) -> Row:
        """One row; raises NotFound when an image is not in the store."""
        ...


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a row is about: one vote, or the verdict of all `votes` on the pair."""

    verdict: Verdict
    votes: Sequence[GivenVote]

    @property
    def outcome(self) -> Outcome:
        return self.verdict.outcome


def model_name(base: BaseModelRef) -> str:
    """The base model as it is called elsewhere: its hub id, of a folder the name alone."""
    path = PurePath(base.source)
    is_folder = path.is_absolute() or base.source.startswith((".", "~")) or len(path.parts) > 2
    return path.name if is_folder else base.source


def judgements_of(pair: JudgedPair, verdict: Verdict, rows: Rows) -> Iterator[Judgement]:
    """The preferences on a pair, a vote or a pair each; those for neither image are none."""
    if rows == "votes":
        for vote in counted(pair.votes):
            if vote.outcome in WINS:
                yield Judgement(Verdict(vote.outcome, 1.0, {vote.outcome: 1}), [vote])
    elif verdict.outcome in WINS:
        yield Judgement(verdict, counted(pair.votes))


PAGE = 500


class JudgedPairs:
    """The pairs of a selection with the votes of it, by id, the same ones each time they are gone through.

    Votes given after this was made do not take part. `left_out` counts, by reason, what the last pass left out.
    """

    def __init__(self, store: Store, base: BaseModelRef, selection: Selection, name_of: Callable[[int], str]) -> None:
        self._store = store
        self._base = base
        self._selection = selection
        self._name_of = name_of
        self._last_vote = store.judgements.last_vote(base)
        self.left_out: Counter[str] = Counter()

    def __iter__(self) -> Iterator[JudgedPair]:
        self.left_out = Counter()
        after = 0
        while True:
            page = self._store.judgements.page(self._base, after=after, last_vote=self._last_vote, limit=PAGE)
            yield from (kept for pair in page if (kept := self._kept(pair)) is not None)
            if len(page) < PAGE:
                return
            after = page[-1].id

    def _kept(self, pair: JudgedPair) -> JudgedPair | None:
        selection = self._selection
        if selection.versions and pair.adapter_version not in selection.versions:
            return None
        votes = [vote for vote in pair.votes if self._is_wanted(vote)]
        if not votes:
            return None
        if pair.reported and not selection.reported:
            self.left_out["votes on reported pairs"] += len(votes)
            return None
        return replace(pair, votes=votes)

    def _is_wanted(self, vote: GivenVote) -> bool:
        wanted = self._selection
        return (
            (wanted.question is None or vote.question is wanted.question)
            and (wanted.since is None or vote.at >= wanted.since)
            and (wanted.until is None or vote.at < wanted.until)
            and (not wanted.annotators or self._name_of(vote.annotator_id) in wanted.annotators)
        )


Decision = Callable[[list[GivenVote]], Verdict | None]


class Judged:
    """The pairs of an export with the judgements that become rows, the same ones each time they are gone through.

    `left_out` counts the votes, by reason, that the last pass made no rows of.
    """

    def __init__(self, form: Format, pairs: JudgedPairs, selection: Selection, rows: Rows, decision: Decision) -> None:
        self.form = form
        self.pairs = pairs
        self._selection = selection
        self._rows: Rows = rows
        self._decision = decision
        self.left_out: Counter[str] = Counter()

    def __iter__(self) -> Iterator[tuple[JudgedPair, list[Judgement]]]:
        self.left_out = Counter()
        for pair in self.pairs:
            judgements = self._of(pair)
            if judgements:
                yield pair, judgements
        self.left_out += self.pairs.left_out

    def rows_of_prompt(self) -> Counter[str]:
        """How many rows there will be for each prompt."""
        count: Counter[str] = Counter()
        for pair, judgements in self:
            count[pair.prompt] += len(judgements)
        return count

    def _of(self, pair: JudgedPair) -> list[Judgement]:
        if pair.gold is not None and not self.form.is_raw:
            self.left_out["votes on gold pairs"] += len(pair.votes)
            return []
        verdict = self._decision(list(pair.votes))
        wanted = self._selection
        if not _is_enough(verdict, wanted):
            self.left_out["votes on pairs with too few of them or too little agreement"] += len(pair.votes)
            return []
        if self.form.is_raw:
            return [Judgement(Verdict(vote.outcome, 1.0, {}), [vote]) for vote in pair.votes]
        found = [] if verdict is None else list(judgements_of(pair, verdict, self._rows))
        held = [one for one in found if self.form.holds_ties or one.outcome is not Outcome.TIE]
        behind = sum(len(one.votes) for one in held)
        if behind < len(pair.votes):
            self.left_out["votes that are no preference here (ties, both bad, skips, repeats)"] += (
                len(pair.votes) - behind
            )
        return held


def _is_enough(verdict: Verdict | None, wanted: Selection) -> bool:
    if wanted.min_votes <= 1 and wanted.min_agreement <= 0:
        return True
    return verdict is not None and verdict.num_votes >= wanted.min_votes and verdict.agreement >= wanted.min_agreement
