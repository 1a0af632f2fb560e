"""What of an import is news: which pairs and which answers are there already. Writes nothing.

A pair is known by its content key: prompt and image files. An image that was made here is known by its stored file, so
that a home's own export, taken in again, is recognised.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import Connection, select, text
from sqlalchemy.orm import aliased

from dmpo_app.domain.data_import import ImportCounts, ImportedPair, ImportUse, pair_key
from dmpo_app.store.schema import IS_SEEN, AnnotatorRow, AssignmentRow, ImageRow, ImportedPairRow, PairRow, PromptRow

CHUNK = 500
"""Values in one IN (...): databases bound the number of parameters."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class KnownPair:
    """A stored pair. `sha256_a`: the file of its image a; `id` 0: it is of the same import and not stored yet."""

    id: int
    sha256_a: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one judgement adds. `swapped`: its images a and b are the other way round than those of the pair."""

    is_new_pair: bool
    is_new_vote: bool
    swapped: bool

    @property
    def adds_nothing(self) -> bool:
        return not (self.is_new_pair or self.is_new_vote)


@dataclass(slots=True)
class Ledger:
    """Known pairs by content key, and which answers they have: (content key, voter, question)."""

    pairs: dict[str, KnownPair] = field(default_factory=dict)
    votes: set[tuple[str, str, str]] = field(default_factory=set)

    def judge(self, pair: ImportedPair, use: ImportUse) -> Verdict:
        """What a pair adds; from now on it is known."""
        key = pair.key
        known = self.pairs.get(key)
        if known is None:
            self.pairs[key] = KnownPair(0, pair.image_a.sha256)
        swapped = known is not None and known.sha256_a != pair.image_a.sha256
        is_new_vote = False
        if pair.vote is not None and use.takes_votes:
            entry = (key, pair.vote.voter, pair.vote.question.value)
            is_new_vote = entry not in self.votes
            self.votes.add(entry)
        return Verdict(known is None, is_new_vote, swapped)

    def look_up(self, connection: Connection, base_id: int, pairs: Sequence[ImportedPair]) -> None:
        """Add what the store knows of these pairs and of the answers on them."""
        wanted = {pair.key: pair for pair in pairs}
        missing = {key: pair for key, pair in wanted.items() if key not in self.pairs}
        if missing:
            self.pairs |= known_pairs(connection, base_id, missing.values())
        stored = {key: self.pairs[key] for key in wanted if key in self.pairs and self.pairs[key].id}
        if stored:
            self._look_up_votes(connection, stored, pairs)

    def _look_up_votes(
        self, connection: Connection, found: dict[str, KnownPair], pairs: Sequence[ImportedPair]
    ) -> None:
        keys = {known.id: key for key, known in found.items()}
        voters = {pair.vote.voter for pair in pairs if pair.vote is not None}
        ids = {int(voter[1:]): voter for voter in voters if voter.startswith("#")}
        ids |= {annotator_id: identity for identity, annotator_id in annotator_ids(connection, voters).items()}
        for chunk in chunks(keys):
            query = select(AssignmentRow.pair_id, AssignmentRow.annotator_id, AssignmentRow.question).where(
                AssignmentRow.pair_id.in_(chunk), text(IS_SEEN)
            )
            for row in connection.execute(query):
                if row.annotator_id in ids:
                    self.votes.add((keys[row.pair_id], ids[row.annotator_id], row.question.value))


def count_of(pairs: Sequence[tuple[ImportedPair, Verdict]], use: ImportUse) -> ImportCounts:
    """What judgements come to, rows and those left out apart."""
    new_votes = [pair.vote for pair, verdict in pairs if verdict.is_new_vote and pair.vote is not None]
    return ImportCounts(
        pairs=sum(verdict.is_new_pair for _, verdict in pairs),
        votes=len(new_votes),
        ties=sum(vote.outcome.value == "tie" for vote in new_votes),
        unlabelled=sum(pair.vote is None for pair, _ in pairs) if use.takes_votes else 0,
        duplicates=sum(verdict.adds_nothing for _, verdict in pairs),
    )


def known_pairs(connection: Connection, base_id: int, pairs: Iterable[ImportedPair]) -> dict[str, KnownPair]:
    """Those of these pairs that are stored, by content key."""
    wanted = {pair.key: pair for pair in pairs}
    found: dict[str, KnownPair] = {}
    for chunk in chunks(wanted):
        query = select(ImportedPairRow.content_key, ImportedPairRow.pair_id, ImportedPairRow.sha256_a).where(
            ImportedPairRow.base_id == base_id, ImportedPairRow.content_key.in_(chunk)
        )
        found |= {row.content_key: KnownPair(row.pair_id, row.sha256_a) for row in connection.execute(query)}
    files = {image.sha256 for key, pair in wanted.items() if key not in found for image in (pair.image_a, pair.image_b)}
    return found | {key: known for key, known in _made_here(connection, base_id, files) if key in wanted}


def annotator_ids(connection: Connection, identities: Collection[str]) -> dict[str, int]:
    """The ids of the annotators that have one of these identities."""
    found: dict[str, int] = {}
    for chunk in chunks(identities):
        query = select(AnnotatorRow.identity, AnnotatorRow.id).where(AnnotatorRow.identity.in_(chunk))
        found |= {row.identity: row.id for row in connection.execute(query) if row.identity is not None}
    return found


def chunks(values: Iterable[T]) -> Iterator[list[T]]:
    """Lists of at most CHUNK values."""
    everything = list(values)
    for start in range(0, len(everything), CHUNK):
        yield everything[start : start + CHUNK]


def _made_here(connection: Connection, base_id: int, files: Collection[str]) -> Iterator[tuple[str, KnownPair]]:
    ids: list[int] = []
    for chunk in chunks(files):
        # By the hash alone: with the lineage as well, SQLite goes through all of the lineage's images. The pairs tell.
        ids += connection.execute(select(ImageRow.id).where(ImageRow.sha256.in_(chunk))).scalars()
    a, b = aliased(ImageRow), aliased(ImageRow)
    columns: tuple[Any, ...] = (PairRow.id, PromptRow.text, a.sha256, b.sha256)
    for chunk_of_ids in chunks(ids):
        pairs = (
            select(*columns)
            .join(PromptRow, PromptRow.id == PairRow.prompt_id)
            .join(a, a.id == PairRow.image_a_id)
            .join(b, b.id == PairRow.image_b_id)
            .where(PairRow.image_a_id.in_(chunk_of_ids), PairRow.base_id == base_id)
        )
        for pair_id, prompt, sha256_a, sha256_b in connection.execute(pairs):
            yield pair_key(prompt, sha256_a, sha256_b), KnownPair(pair_id, sha256_a)
