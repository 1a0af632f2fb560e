"""Deduplication of import rows against stored pairs and votes. Writes nothing.

A pair is recognised by its content key: prompt and image files. An image that was made here is recognised by its stored
file, so that a home's own export, imported again, adds nothing.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import Connection, select, text
from sqlalchemy.orm import aliased

from dmpo_app.domain.data_import import ImportCounts, ImportedPair, ImportUse, pair_key
from dmpo_app.domain.lineage import PairSource
from dmpo_app.store import schema

CHUNK = 500
"""Values in one IN (...), since databases bound the number of parameters."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StoredPair:
    """A pair that is not new. `sha256_a`: the file of its image a; `id` 0: of the same import, not stored yet."""

    id: int
    sha256_a: str


@dataclass(frozen=True, slots=True)
class DuplicateCheck:
    """The result of deduplicating one pair. `swapped`: images a and b are the other way round than stored."""

    is_new_pair: bool
    is_new_vote: bool
    swapped: bool

    @property
    def is_duplicate(self) -> bool:
        return not (self.is_new_pair or self.is_new_vote)


@dataclass(slots=True)
class DuplicateIndex:
    """An index of stored pairs by content key, and of their votes: (content key, voter key, question)."""

    pairs: dict[str, StoredPair] = field(default_factory=dict)
    votes: set[tuple[str, str, str]] = field(default_factory=set)

    def check(self, pair: ImportedPair, use: ImportUse) -> DuplicateCheck:
        """Check a pair for duplicates, and add it to the index."""
        key = pair.key
        stored_pair = self.pairs.get(key)
        if stored_pair is None:
            self.pairs[key] = StoredPair(0, pair.image_a.sha256)
        swapped = stored_pair is not None and stored_pair.sha256_a != pair.image_a.sha256
        is_new_vote = False
        if pair.vote is not None and use.takes_votes:
            entry = (key, pair.vote.voter_key, pair.vote.question.value)
            is_new_vote = entry not in self.votes
            self.votes.add(entry)
        return DuplicateCheck(stored_pair is None, is_new_vote, swapped)

    def load(self, connection: Connection, base_id: int, pairs: Sequence[ImportedPair]) -> None:
        """Load the stored pairs and votes among these into the index."""
        pairs_by_key = {pair.key: pair for pair in pairs}
        missing_pairs = {key: pair for key, pair in pairs_by_key.items() if key not in self.pairs}
        if missing_pairs:
            self.pairs |= find_stored_pairs(connection, base_id, missing_pairs.values())
        stored_pairs = {key: self.pairs[key] for key in pairs_by_key if key in self.pairs and self.pairs[key].id}
        if stored_pairs:
            self._load_votes(connection, stored_pairs, pairs)

    def _load_votes(
        self, connection: Connection, stored_pairs: dict[str, StoredPair], pairs: Sequence[ImportedPair]
    ) -> None:
        keys = {known.id: key for key, known in stored_pairs.items()}
        voters = {pair.vote.voter_key for pair in pairs if pair.vote is not None}
        ids = {int(voter[1:]): voter for voter in voters if voter.startswith("#")}
        ids |= {annotator_id: identity for identity, annotator_id in find_annotator_ids(connection, voters).items()}
        for chunk in split_chunks(keys):
            query = select(
                schema.AssignmentRow.pair_id, schema.AssignmentRow.annotator_id, schema.AssignmentRow.question
            ).where(schema.AssignmentRow.pair_id.in_(chunk), text(schema.IS_SEEN))
            for row in connection.execute(query):
                if row.annotator_id in ids:
                    self.votes.add((keys[row.pair_id], ids[row.annotator_id], row.question.value))


def count_checked(pairs: Sequence[tuple[ImportedPair, DuplicateCheck]], use: ImportUse) -> ImportCounts:
    """Count the checked pairs and votes of an import, but for rows and those left out."""
    new_votes = [pair.vote for pair, verdict in pairs if verdict.is_new_vote and pair.vote is not None]
    return ImportCounts(
        pairs=sum(verdict.is_new_pair for _, verdict in pairs),
        votes=len(new_votes),
        ties=sum(vote.outcome.value == "tie" for vote in new_votes),
        unlabelled=sum(pair.vote is None for pair, _ in pairs) if use.takes_votes else 0,
        duplicates=sum(verdict.is_duplicate for _, verdict in pairs),
    )


def find_stored_pairs(connection: Connection, base_id: int, pairs: Iterable[ImportedPair]) -> dict[str, StoredPair]:
    """Find those of these pairs that are stored, by content key."""
    pairs_by_key = {pair.key: pair for pair in pairs}
    stored_pairs: dict[str, StoredPair] = {}
    for chunk in split_chunks(pairs_by_key):
        query = select(
            schema.ImportedPairRow.content_key, schema.ImportedPairRow.pair_id, schema.ImportedPairRow.sha256_a
        ).where(schema.ImportedPairRow.base_id == base_id, schema.ImportedPairRow.content_key.in_(chunk))
        stored_pairs |= {row.content_key: StoredPair(row.pair_id, row.sha256_a) for row in connection.execute(query)}
    files = {
        image.sha256
        for key, pair in pairs_by_key.items()
        if key not in stored_pairs
        for image in (pair.image_a, pair.image_b)
    }
    return stored_pairs | {
        key: known for key, known in _find_local_pairs(connection, base_id, files) if key in pairs_by_key
    }


def find_annotator_ids(connection: Connection, identities: Collection[str]) -> dict[str, int]:
    """Find the ids of annotators by identity."""
    ids_by_identity: dict[str, int] = {}
    for chunk in split_chunks(identities):
        query = select(schema.AnnotatorRow.identity, schema.AnnotatorRow.id).where(
            schema.AnnotatorRow.identity.in_(chunk)
        )
        ids_by_identity |= {row.identity: row.id for row in connection.execute(query) if row.identity is not None}
    return ids_by_identity


def split_chunks(values: Iterable[T]) -> Iterator[list[T]]:
    """Split values into lists of at most CHUNK."""
    items = list(values)
    for start in range(0, len(items), CHUNK):
        yield items[start : start + CHUNK]


def _find_local_pairs(connection: Connection, base_id: int, files: Collection[str]) -> Iterator[tuple[str, StoredPair]]:
    ids: list[int] = []
    for chunk in split_chunks(files):
        # By the hash alone: with the lineage as well, SQLite goes through all of the lineage's images. The pairs tell.
        ids += connection.execute(select(schema.ImageRow.id).where(schema.ImageRow.sha256.in_(chunk))).scalars()
    a, b = aliased(schema.ImageRow), aliased(schema.ImageRow)
    columns: tuple[Any, ...] = (schema.PairRow.id, schema.PromptRow.text, a.sha256, b.sha256)
    for chunk_of_ids in split_chunks(ids):
        pairs = (
            select(*columns)
            .join(schema.PromptRow, schema.PromptRow.id == schema.PairRow.prompt_id)
            .join(a, a.id == schema.PairRow.image_a_id)
            .join(b, b.id == schema.PairRow.image_b_id)
            .where(schema.PairRow.image_a_id.in_(chunk_of_ids), schema.PairRow.base_id == base_id)
            .where(schema.PairRow.source != PairSource.DUEL)
        )
        for pair_id, prompt, sha256_a, sha256_b in connection.execute(pairs):
            yield pair_key(prompt, sha256_a, sha256_b), StoredPair(pair_id, sha256_a)
