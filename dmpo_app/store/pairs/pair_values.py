"""Values kept for pairs: scores of automatic scorers, margins of versions, gold answers."""

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from sqlalchemy import Connection, delete, insert, select, text, update

from dmpo_app.domain.image import BaseModelRef
from dmpo_app.domain.vote import PREFERENCES, Outcome
from dmpo_app.errors import BadInputError, NotFoundError
from dmpo_app.store.audit import record_act
from dmpo_app.store.db.database import Database
from dmpo_app.store.schema import IS_IN_POOL, ImageScoreRow, PairMarginRow, PairRow

_BATCH = 500
"""Images in one statement, since databases bound the number of parameters."""


class Scores:
    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    def get(self, scorer: str, image_ids: Sequence[int]) -> dict[int, float]:
        """Get the stored scores of these images, by image id. `scorer` is a scorer's identity."""
        with self._database.reader() as connection:
            return _find(connection, scorer, image_ids)

    def put(self, scorer: str, scores: Mapping[int, float]) -> None:
        """Record scores by image id; those recorded already stay. Raises BadInputError for one that is not finite."""
        if non_finite_ids := [image_id for image_id, score in scores.items() if not math.isfinite(score)]:
            raise BadInputError(f"the scorer {scorer} gave image {non_finite_ids[0]} a score that is not finite")

        def work(connection: Connection) -> None:
            stored_scores, now = _find(connection, scorer, list(scores)), self._now()
            rows = [
                {"scorer": scorer, "image_id": image_id, "score": score, "created_at": now}
                for image_id, score in scores.items()
                if image_id not in stored_scores
            ]
            if rows:
                connection.execute(insert(ImageScoreRow), rows)

        self._database.write(work)


def _find(connection: Connection, scorer: str, image_ids: Sequence[int]) -> dict[int, float]:
    scores: dict[int, float] = {}
    for start in range(0, len(image_ids), _BATCH):
        query = select(ImageScoreRow.image_id, ImageScoreRow.score).where(
            ImageScoreRow.scorer == scorer, ImageScoreRow.image_id.in_(image_ids[start : start + _BATCH])
        )
        scores.update({row.image_id: row.score for row in connection.execute(query)})
    return scores


class PairMargins:
    def __init__(self, database: Database) -> None:
        self._database = database

    def list_missing(self, base: BaseModelRef, version: int, *, limit: int) -> list[int]:
        """List pairs of the pool without a live vote and without a margin under a version, newest first."""
        query = (
            select(PairRow.id)
            .outerjoin(PairMarginRow, PairMarginRow.pair_id == PairRow.id)
            .where(
                PairRow.base_id == base.id,
                PairRow.num_votes == 0,
                PairRow.gold.is_(None),
                text(IS_IN_POOL),
                PairRow.is_encoded,
                PairMarginRow.adapter_version.is_distinct_from(version),
            )
            .order_by(PairRow.id.desc())
            .limit(limit)
        )
        with self._database.reader() as connection:
            return list(connection.execute(query).scalars())

    def put(self, version: int, margins: Mapping[int, float]) -> None:
        """Record margins by pair id, in place of those of another version. Raises BadInputError for one not finite."""
        if non_finite_ids := [pair_id for pair_id, margin in margins.items() if not math.isfinite(margin)]:
            raise BadInputError(f"the margin of pair {non_finite_ids[0]} under version {version} is not finite")
        rows = [
            {"pair_id": pair_id, "adapter_version": version, "margin": margin} for pair_id, margin in margins.items()
        ]

        def work(connection: Connection) -> None:
            connection.execute(delete(PairMarginRow).where(PairMarginRow.pair_id.in_(margins)))
            connection.execute(insert(PairMarginRow), rows)

        if rows:
            self._database.write(work)


class GoldPairs:
    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    def right_outcomes(self, base: BaseModelRef) -> dict[int, Outcome]:
        """The right outcome of each gold pair, by pair id."""
        query = select(PairRow.id, PairRow.gold).where(PairRow.base_id == base.id, PairRow.gold.is_not(None))
        with self._database.reader() as connection:
            return {row.id: row.gold for row in connection.execute(query.order_by(PairRow.id))}

    def set(self, base: BaseModelRef, pair_id: int, outcome: Outcome | None, *, by: str) -> None:
        """Make a pair a gold pair with this right outcome, or a pair like any other with None; an act of `by`.

        Earlier votes on it stay what they were. Raises NotFoundError, and BadInputError for an outcome that is no
        preference.
        """
        if outcome is not None and outcome not in PREFERENCES:
            raise BadInputError(f"the right answer of a gold pair is a, b or tie, not {outcome.value}")

        def work(connection: Connection) -> None:
            conditions = (PairRow.id == pair_id, PairRow.base_id == base.id)
            if connection.execute(update(PairRow).where(*conditions).values(gold=outcome)).rowcount == 0:
                raise NotFoundError(f"there is no pair {pair_id}")
            act = "gold_removed" if outcome is None else "gold_set"
            subject = f"pair {pair_id}" if outcome is None else f"pair {pair_id}: {outcome.value}"
            record_act(connection, by, act, subject, at=self._now())

        self._database.write(work)
