"""From a row of any format to pairs: each format says where things are, the checks are the same for all."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from dmpo_app.exchange.readers.pair import ImageFolder, LeftOut, PreferencePair, Reason, UnusableImage, picture_of

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Facts:
    """What a row says beyond who won; cells as it has them, nothing checked, None for what it does not say.

    `annotator`: who answered, by whatever name. `outcome`: the answer where `wins_a` cannot hold it. `a_on_left`: how
    the images were shown. `given_at`: when. `made_a`, `made_b`: how the images were made.
    """

    annotator: object = None
    question: object = None
    outcome: object = None
    strength: object = None
    comment: object = None
    elapsed_ms: object = None
    a_on_left: object = None
    given_at: object = None
    made_a: Mapping[str, object] = field(default_factory=dict)
    made_b: Mapping[str, object] = field(default_factory=dict)


NO_FACTS = Facts()


@dataclass(frozen=True, slots=True)
class Judgement:
    """A pair as a row has it, nothing checked: cells of prompt and images, and who won or why that is not known."""

    prompt: object
    image_a: object
    image_b: object
    wins_a: float | Reason
    num_votes: int = 1
    facts: Facts = NO_FACTS


class PreferenceReader(Protocol):
    """One format; stateless."""

    @property
    def name(self) -> str:
        """How it is called on the command line."""
        ...

    @property
    def description(self) -> str: ...

    def detect(self, columns: Collection[str]) -> bool:
        """Whether rows with these columns are of this format."""
        ...

    def judgements(self, row: Row) -> Iterable[Judgement]:
        """The pairs of a row, most formats have one; the same ones in the same order every time.

        May raise KeyError, TypeError, ValueError or AttributeError for a row of another shape.
        """
        ...


def read_row(reader: PreferenceReader, row: Row, source_id: str, folder: ImageFolder) -> list[PreferencePair | LeftOut]:
    """What a row comes to. Never raises for what is in the row."""
    try:
        judgements = list(reader.judgements(row))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        return [LeftOut(Reason.BROKEN_ROW, source_id)]
    names = [source_id] if len(judgements) == 1 else [f"{source_id}/{index}" for index in range(len(judgements))]
    return [_checked(found, name, folder) for found, name in zip(judgements, names, strict=True)]


def wins_from_scores(score_a: object, score_b: object) -> float | Reason:
    """Who won by a label each: 1 and 0, 0 and 1, or 0.5 twice for a tie. Anything else is not guessed at."""
    if _is_absent(score_a) or _is_absent(score_b):
        return Reason.MISSING_LABEL
    try:
        scores = float(score_a), float(score_b)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return Reason.UNCLEAR_LABEL
    known = {(1.0, 0.0): 1.0, (0.0, 1.0): 0.0, (0.5, 0.5): 0.5}
    return known.get(scores, Reason.UNCLEAR_LABEL)


def _is_absent(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _checked(found: Judgement, source_id: str, folder: ImageFolder) -> PreferencePair | LeftOut:
    if not isinstance(found.prompt, str) or not found.prompt.strip():
        return LeftOut(Reason.EMPTY_PROMPT, source_id)
    if isinstance(found.wins_a, Reason):
        return LeftOut(found.wins_a, source_id)
    try:
        image_a, image_b = folder.content(found.image_a), folder.content(found.image_b)
        if image_a == image_b:
            return LeftOut(Reason.IDENTICAL_IMAGES, source_id)
        picture_of(image_a)
        picture_of(image_b)
    except UnusableImage as problem:
        return LeftOut(problem.reason, source_id)
    return PreferencePair(found.prompt.strip(), image_a, image_b, found.wins_a, found.num_votes, source_id)
