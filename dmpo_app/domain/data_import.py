"""Pairs and votes that come from elsewhere: what is taken in of them, and how far that is."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from dmpo_app.domain.vote import Outcome, Question, Strength


class ImportUse(StrEnum):
    """What is taken of a data set. VOTES: its answers are trained on, its pairs are not shown to people. PAIRS: its
    pairs are shown, its answers are left out. BOTH: answers and pairs."""

    VOTES = "votes"
    PAIRS = "pairs"
    BOTH = "both"

    @property
    def takes_votes(self) -> bool:
        return self is not ImportUse.PAIRS

    @property
    def offers_pairs(self) -> bool:
        return self is not ImportUse.VOTES


@dataclass(frozen=True, slots=True)
class ImportSpec:
    """What makes an import the same one when it is started again. `fingerprint`: a sha256 (hex) of the data set."""

    fingerprint: str
    format: str
    use: ImportUse
    source: str


@dataclass(frozen=True, slots=True)
class ImportedImage:
    """An image from elsewhere. `sha256`: of the file as it came; `origin`: what its source says of how it was made.

    `png`: it again, without metadata; None for an image of a pair that is known already.
    """

    sha256: str
    png: bytes | None
    width: int
    height: int
    origin: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ImportedVote:
    """An answer from elsewhere. Its annotator is the one of this home with `annotator_id`, or the one with `identity`,
    a keyed hash, who is called `handle`."""

    annotator_id: int | None
    identity: str
    handle: str
    outcome: Outcome
    question: Question = Question.OVERALL
    strength: Strength | None = None
    comment: str | None = None
    elapsed_ms: int = 0
    a_on_left: bool = True
    given_at: datetime | None = None

    @property
    def voter(self) -> str:
        """Stands for the annotator: equal for the same one."""
        return self.identity if self.annotator_id is None else f"#{self.annotator_id}"

    def seen_from(self, *, swapped: bool) -> ImportedVote:
        """The same answer where images a and b have changed places."""
        if not swapped:
            return self
        other = {Outcome.A: Outcome.B, Outcome.B: Outcome.A}
        return ImportedVote(
            self.annotator_id,
            self.identity,
            self.handle,
            other.get(self.outcome, self.outcome),
            self.question,
            self.strength,
            self.comment,
            self.elapsed_ms,
            not self.a_on_left,
            self.given_at,
        )


@dataclass(frozen=True, slots=True)
class ImportedPair:
    """Two images of one prompt and at most one answer. `row` names where it stands in its data set."""

    row: str
    prompt: str
    image_a: ImportedImage
    image_b: ImportedImage
    vote: ImportedVote | None
    key: str
    """Of `pair_key`."""


def pair_key(prompt: str, sha256_a: str, sha256_b: str) -> str:
    """A sha256 (hex) of prompt and image files, whichever is a: the same pair in any data set."""
    parts = (*sorted((sha256_a, sha256_b)), prompt)
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class ImportCounts:
    """What rows came to. `pairs` and `votes` are new ones, `ties` among the votes; `unlabelled` are pairs without an
    answer; `duplicates` added nothing; `left_out` by reason."""

    rows: int = 0
    pairs: int = 0
    votes: int = 0
    ties: int = 0
    unlabelled: int = 0
    duplicates: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: ImportCounts) -> ImportCounts:
        reasons = dict.fromkeys((*self.left_out, *other.left_out))
        return ImportCounts(
            self.rows + other.rows,
            self.pairs + other.pairs,
            self.votes + other.votes,
            self.ties + other.ties,
            self.unlabelled + other.unlabelled,
            self.duplicates + other.duplicates,
            {reason: self.left_out.get(reason, 0) + other.left_out.get(reason, 0) for reason in reasons},
        )


@dataclass(frozen=True, slots=True)
class ImportBatch:
    """Rows in a row. `left_out`: (row, reason). `bookmark`: where the row after them is. `is_last`: there is none."""

    num_rows: int
    pairs: Sequence[ImportedPair]
    left_out: Sequence[tuple[str, str]]
    bookmark: Mapping[str, Any]
    is_last: bool


@dataclass(frozen=True, slots=True)
class ImportState:
    """An import as last recorded. `bookmark` None: at the beginning."""

    id: int
    spec: ImportSpec
    bookmark: Mapping[str, Any] | None
    counts: ImportCounts
    is_complete: bool


@dataclass(frozen=True, slots=True)
class UnencodedPair:
    """A pair without latents; the hashes name its stored images. `has_embeds`: its prompt has been encoded."""

    id: int
    prompt: str
    png_a: str
    png_b: str
    has_embeds: bool


@dataclass(frozen=True, slots=True)
class EncodingProgress:
    """How many of the imported pairs have latents."""

    done: int
    total: int
