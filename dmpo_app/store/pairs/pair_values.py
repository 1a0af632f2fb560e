"""Values kept for pairs: scores of automatic scorers, margins of versions, gold answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from sqlalchemy import Connection, delete, insert, select, text, update

from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.domain.vote import PREFERENCES, Outcome
from dmpo_app.errors import BadInput, NotFound
from dmpo_app.store.audit import record_act
from dmpo_app.store.db.database import Database
from dmpo_app.store.schema import IS_IN_POOL, ImageScoreRow, PairMarginRow, PairRow

_BATCH = 500
"""Images in one statement: databases bound the number of parameters."""


class Scores:
    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    def of_images(self, scorer: str, image_ids: Sequence[int]) -> dict[int, float]:
        """The scores there are of these images, by image id. `scorer` is a scorer's identity."""
        with self._database.reader() as connection:
            return _find(connection, scorer, image_ids)

    def put(self, scorer: str, scores: Mapping[int, float]) -> None:
        """Record scores by image id; those recorded already stay as they are. Raises BadInput for one not finite."""
        if wrong := [image_id for image_id, score in scores.items() if not math.isfinite(score)]:
            raise BadInput(f"the scorer {scorer} gave image {wrong[0]} a score that is not finite")

        def work(connection: Connection) -> None:
            known, now = _find(connection, scorer, list(scores)), self._now()
            rows = [
                {"scorer": scorer, "image_id": image_id, "score": score, "created_at": now}
                for image_id, score in scores.items()
                if image_id not in known
            ]
            if rows:
                connection.execute(insert(ImageScoreRow), rows)

        self._database.write(work)


def _find(connection: Connection, scorer: str, image_ids: Sequence[int]) -> dict[int, float]:
    found: dict[int, float] = {}
    for start in range(0, len(image_ids), _BATCH):
        query = select(ImageScoreRow.image_id, ImageScoreRow.score).where(
            ImageScoreRow.scorer == scorer, ImageScoreRow.image_id.in_(image_ids[start : start + _BATCH])
        )
        found.update({row.image_id: row.score for row in connection.execute(query)})
    return found


class PairMargins:
    def __init__(self, database: Database) -> None:
        self._database = database

    def missing(self, base: BaseModelRef, version: int, *, limit: int) -> list[int]:
        """Pairs of the pool without a live vote whose margin under a version is not known, newest first."""
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
        """Record margins by pair id, in place of those of another version. Raises BadInput for one not finite."""
        if wrong := [pair_id for pair_id, margin in margins.items() if not math.isfinite(margin)]:
            raise BadInput(f"the margin of pair {wrong[0]} under version {version} is not finite")
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

    def answers(self, base: BaseModelRef) -> dict[int, Outcome]:
        """The right answer of each gold pair, by pair id."""
        query = select(PairRow.id, PairRow.gold).where(PairRow.base_id == base.id, PairRow.gold.is_not(None))
        with self._database.reader() as connection:
            return {row.id: row.gold for row in connection.execute(query.order_by(PairRow.id))}

    def set(self, base: BaseModelRef, pair_id: int, answer: Outcome | None, *, by: str) -> None:
        """Make a pair a gold pair with this answer, or a pair like any other with None; an act of `by`.

        Votes that were given on it before stay what they were. Raises NotFound, and BadInput for an answer that is no
        preference.
        """
        if answer is not None and answer not in PREFERENCES:
            raise BadInput(f"the right answer of a gold pair is a, b or tie, not {answer.value}")

        def work(connection: Connection) -> None:
            ours = (PairRow.id == pair_id, PairRow.base_id == base.id)
            if connection.execute(update(PairRow).where(*ours).values(gold=answer)).rowcount == 0:
                raise NotFound(f"there is no pair {pair_id}")
            act = "gold_removed" if answer is None else "gold_set"
            subject = f"pair {pair_id}" if answer is None else f"pair {pair_id}: {answer.value}"
            record_act(connection, by, act, subject, at=self._now())

        self._database.write(work)
