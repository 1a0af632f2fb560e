"""Which votes leave, and in which shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from dmpo_app.domain.vote import Question

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
