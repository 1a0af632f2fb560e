"""Values of an import: pairs and votes of other data sets, their counts and their progress."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from dmpo_app.domain.vote import Outcome, Question, Strength
from dmpo_app.io.files import sha256_hex


class ImportUse(StrEnum):
    """The use of an imported data set: its votes, its pairs or both.

    VOTES: its votes are trained on, its pairs are not shown to people. PAIRS: its pairs are shown, its votes are left
    out. BOTH: votes and pairs.
    """

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
    """The identity of an import, by which it is resumed. `fingerprint`: a sha256 (hex) of the data set."""

    fingerprint: str
    format: str
    use: ImportUse
    source: str


@dataclass(frozen=True, slots=True)
class ImportedImage:
    """An imported image. `sha256`: of the original file; `origin`: what its source says of how it was made.

    `png`: the image without metadata; None for an image of a pair that is stored already.
    """

    sha256: str
    png: bytes | None
    width: int
    height: int
    origin: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ImportedVote:
    """An imported vote.

    Its annotator is the one of this home with `annotator_id`, or the one with `identity`, a keyed hash, who is called
    `handle`.
    """

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
    def voter_key(self) -> str:
        """A key of the annotator: equal for the same one."""
        return self.identity if self.annotator_id is None else f"#{self.annotator_id}"

    def with_image_order(self, *, swapped: bool) -> ImportedVote:
        """The same vote where images a and b have changed places."""
        if not swapped:
            return self
        mirrored_outcomes = {Outcome.A: Outcome.B, Outcome.B: Outcome.A}
        return ImportedVote(
            self.annotator_id,
            self.identity,
            self.handle,
            mirrored_outcomes.get(self.outcome, self.outcome),
            self.question,
            self.strength,
            self.comment,
            self.elapsed_ms,
            not self.a_on_left,
            self.given_at,
        )


@dataclass(frozen=True, slots=True)
class ImportedPair:
    """An imported pair: two images of one prompt and at most one vote. `row`: its place in its data set."""

    row: str
    prompt: str
    image_a: ImportedImage
    image_b: ImportedImage
    vote: ImportedVote | None
    key: str
    """The content key, see `pair_key`."""


def pair_key(prompt: str, sha256_a: str, sha256_b: str) -> str:
    """The content key of a pair, in any data set: a sha256 (hex) of prompt and image files, whichever is a."""
    parts = (*sorted((sha256_a, sha256_b)), prompt)
    return sha256_hex("\0".join(parts).encode("utf-8", "surrogatepass"))


@dataclass(frozen=True, slots=True)
class ImportCounts:
    """The counts of an import.

    `pairs` and `votes` are new ones, `ties` among the votes; `unlabelled` are pairs without a vote; `duplicates` added
    nothing; `left_out` by reason.
    """

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
    """Consecutive rows of an import. `left_out`: (row, reason). `bookmark`: the place of the next row, if any."""

    num_rows: int
    pairs: Sequence[ImportedPair]
    left_out: Sequence[tuple[str, str]]
    bookmark: Mapping[str, Any]
    is_last: bool


@dataclass(frozen=True, slots=True)
class ImportRecord:
    """The stored state of an import. `bookmark` None: at the beginning."""

    id: int
    spec: ImportSpec
    bookmark: Mapping[str, Any] | None
    counts: ImportCounts
    is_complete: bool


@dataclass(frozen=True, slots=True)
class UnencodedPair:
    """A pair to be encoded; the hashes name its stored images. `embeds`: of its encoded prompt; None without.

    `latents`: the hashes of latents that it had, in the order of its images; None where it had none. `more_pngs`:
    images c and d of a set. Tensors that it had may be damaged, and be the reason why it is to be encoded.
    """

    id: int
    prompt: str
    png_a: str
    png_b: str
    embeds: str | None
    latents: tuple[str | None, ...] = (None, None)
    more_pngs: tuple[str, ...] = ()

    @property
    def pngs(self) -> tuple[str, ...]:
        return (self.png_a, self.png_b, *self.more_pngs)


@dataclass(frozen=True, slots=True)
class EncodingProgress:
    """The progress of encoding imported pairs: `done` of `total` have latents."""

    done: int
    total: int
