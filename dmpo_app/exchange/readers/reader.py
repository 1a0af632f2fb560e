"""The protocol of a format's reader, and the checks of its pairs, which are the same for all formats."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from dmpo_app.exchange.readers.pair import (
    ImageFolder,
    LeftOutPair,
    LeftOutReason,
    PreferencePair,
    UnusableImageError,
    decode_image,
)

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RowMetadata:
    """Metadata of a row's vote and images; unchecked cells, None for what the row does not say.

    `annotator`: who voted, by whatever name. `outcome`: of the vote, where `wins_a` cannot hold it. `a_on_left`: the
    sides of the images. `given_at`: when. `provenance_a`, `provenance_b`: how the images were made.
    """

    annotator: object = None
    question: object = None
    outcome: object = None
    strength: object = None
    comment: object = None
    elapsed_ms: object = None
    a_on_left: object = None
    given_at: object = None
    provenance_a: Mapping[str, object] = field(default_factory=dict)
    provenance_b: Mapping[str, object] = field(default_factory=dict)


NO_METADATA = RowMetadata()


@dataclass(frozen=True, slots=True)
class RowPair:
    """A pair as a row has it, unchecked: cells of prompt and images, and the wins of a or why they are not known."""

    prompt: object
    image_a: object
    image_b: object
    wins_a: float | LeftOutReason
    num_votes: int = 1
    metadata: RowMetadata = NO_METADATA


class PreferenceReader(Protocol):
    """The reader of one format; stateless."""

    @property
    def name(self) -> str:
        """The name on the command line."""
        ...

    @property
    def description(self) -> str: ...

    @property
    def columns(self) -> Sequence[frozenset[str]]:
        """The columns that this format must have, in each of its variants."""
        ...

    def detect(self, columns: Collection[str]) -> bool:
        """True for the columns of this format."""
        ...

    def read_pairs(self, row: Row) -> Iterable[RowPair]:
        """Read the pairs of a row, most formats have one; the same ones in the same order every time.

        May raise KeyError, TypeError, ValueError or AttributeError for a row of another shape.
        """
        ...


def has_columns(reader: PreferenceReader, columns: Collection[str]) -> bool:
    """True where the columns of a variant of the reader's format are all there."""
    return any(variant <= set(columns) for variant in reader.columns)


def read_row(
    reader: PreferenceReader, row: Row, source_id: str, folder: ImageFolder
) -> list[PreferencePair | LeftOutPair]:
    """Read and check the pairs of a row. Never raises for what is in the row."""
    try:
        row_pairs = list(reader.read_pairs(row))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        return [LeftOutPair(LeftOutReason.BROKEN_ROW, source_id)]
    names = [source_id] if len(row_pairs) == 1 else [f"{source_id}/{index}" for index in range(len(row_pairs))]
    return [_check_pair(found, name, folder) for found, name in zip(row_pairs, names, strict=True)]


def wins_from_scores(score_a: object, score_b: object) -> float | LeftOutReason:
    """Wins of a from a label each: 1 and 0, 0 and 1, or 0.5 twice for a tie. Anything else is not guessed at."""
    if _is_absent(score_a) or _is_absent(score_b):
        return LeftOutReason.MISSING_LABEL
    try:
        scores = float(score_a), float(score_b)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return LeftOutReason.UNCLEAR_LABEL
    wins_by_scores = {(1.0, 0.0): 1.0, (0.0, 1.0): 0.0, (0.5, 0.5): 0.5}
    return wins_by_scores.get(scores, LeftOutReason.UNCLEAR_LABEL)


def _is_absent(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _check_pair(row_pair: RowPair, source_id: str, folder: ImageFolder) -> PreferencePair | LeftOutPair:
    if not isinstance(row_pair.prompt, str) or not row_pair.prompt.strip():
        return LeftOutPair(LeftOutReason.EMPTY_PROMPT, source_id)
    if isinstance(row_pair.wins_a, LeftOutReason):
        return LeftOutPair(row_pair.wins_a, source_id)
    try:
        image_a, image_b = folder.content(row_pair.image_a), folder.content(row_pair.image_b)
        if image_a == image_b:
            return LeftOutPair(LeftOutReason.IDENTICAL_IMAGES, source_id)
        decode_image(image_a)
        decode_image(image_b)
    except UnusableImageError as problem:
        return LeftOutPair(problem.reason, source_id)
    return PreferencePair(row_pair.prompt.strip(), image_a, image_b, row_pair.wins_a, row_pair.num_votes, source_id)
