from typing import Any

import pytest
from sqlalchemy import Connection, event

from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.domain.vote import Question
from dmpo_app.store import Store
from dmpo_app.store.voting import assignments, offers, taken_back, vote_queries
from dmpo_app.store.voting import vote_queries as vote_statements
from tests.store.store_data import Clock, new_pair
from tests.store.store_fixtures import sqlite_only

pytestmark = sqlite_only

OVERALL, EVERY = (Question.OVERALL,), tuple(Question)
HOT: dict[str, tuple[Any, list[str]]] = {
    "what an annotator has open": (assignments.open_assignments_query(OVERALL), ["ix_assignments_open_of"]),
    "what to offer next": (
        offers.candidates_query(OVERALL),
        ["ix_pairs_offer", "uq_assignments_seen_once", "ix_reports_of"],
    ),
    "what has expired": (next(iter(assignments._LAPSE.values())), ["ix_assignments_open"]),
    "the answer that stands": (vote_statements.LIVE_VOTE, ["uq_votes_one_live"]),
    "how many votes are new": (
        vote_statements.COUNT_NEW,
        ["ix_votes_live", "ix_pairs_retired", "ix_annotators_struck"],
    ),
    "what an annotator has open of three questions": (
        assignments.open_assignments_query(EVERY),
        ["ix_assignments_open_of"],
    ),
    "what to offer next of three questions": (
        offers.candidates_query(EVERY),
        ["ix_pairs_offer", "uq_assignments_seen_once"],
    ),
    "what others have begun": (
        offers.candidates_query(OVERALL, begun=True),
        ["ix_pairs_offer", "uq_assignments_seen_once"],
    ),
    "what can be repeated": (offers._REPEATABLE, ["ix_votes_of"]),
    "the next page of an export": (
        vote_queries._pairs(BaseModelRef(1, "", "", ""), 20, 500),
        ["SEARCH pairs USING INTEGER PRIMARY KEY", "uq_reports_one_open"],
    ),
    "the vote that can be taken back": (vote_statements.LATEST_LIVE, ["ix_votes_of"]),
}


@pytest.mark.parametrize("name", HOT)
def test_what_runs_for_every_vote_is_looked_up_in_an_index(
    store: Store, base: BaseModelRef, clock: Clock, name: str
) -> None:
    store.pairs.add(base, new_pair())
    statement, indexes = HOT[name]
    plan = plan_of(store, statement, clock)
    assert [index for index in indexes if index not in plan] == []
    assert "TEMP B-TREE" not in plan, "nothing is sorted"
    for line in plan.splitlines():
        assert not line.startswith("SCAN") or "SCAN anon" in line, line


def test_votes_that_are_gone_are_not_looked_for_among_all_votes(store: Store, base: BaseModelRef, clock: Clock) -> None:
    indexes = ["ix_votes_taken_back", "ix_annotators_struck", "ix_votes_of", "ix_pairs_retired", "uq_votes_one_live"]
    for query in (taken_back.count_query(base.id, [1]), taken_back.counts_query(base.id)):
        plan = plan_of(store, query, clock)
        assert "vote_id=?" in plan
        assert [index for index in indexes if index not in plan] == [], plan
        assert [line for line in plan.splitlines() if line.startswith(("SCAN votes", "SCAN adapter_votes"))] == []


def plan_of(store: Store, statement: Any, clock: Clock) -> str:
    values = {
        "base_id": 1,
        "annotator_id": 1,
        "num_images": 2,
        "assignment": 1,
        "count": 3,
        "most": 100,
        "every": 5,
        "after": 20,
        "at_most": 32,
        "question": Question.OVERALL,
        "now": clock(),
    }
    run: list[tuple[str, Any]] = []

    def note(
        _connection: Connection, _cursor: Any, sql: str, parameters: Any, _context: Any, _executemany: bool
    ) -> None:
        run.append((sql, parameters))

    def work(connection: Connection) -> list[Any]:
        wanted = {key: value for key, value in values.items() if key in statement.compile(connection).params}
        event.listen(connection, "before_cursor_execute", note)
        connection.execute(statement, wanted)
        event.remove(connection, "before_cursor_execute", note)
        return list(connection.exec_driver_sql("EXPLAIN QUERY PLAN " + run[0][0], run[0][1]))

    return "\n".join(row[3] for row in store.database.write(work))
