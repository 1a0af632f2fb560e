"""Gold pairs: those whose right answer an administrator has given."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from sqlalchemy import Connection, select, update

from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.domain.vote import PREFERENCES, Outcome
from dmpo_app.errors import BadInput, NotFound
from dmpo_app.store.audit import record_act
from dmpo_app.store.db.database import Database
from dmpo_app.store.schema import PairRow


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
