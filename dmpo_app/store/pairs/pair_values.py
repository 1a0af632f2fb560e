"""What automatic scorers say of images. A score of one scorer for one image never changes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from sqlalchemy import Connection, insert, select

from dmpo_app.errors import BadInput
from dmpo_app.store.db.database import Database
from dmpo_app.store.schema import ImageScoreRow

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
