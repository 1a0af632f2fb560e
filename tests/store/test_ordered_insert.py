"""Many rows at once: each id belongs to its row, whatever database it is."""

from sqlalchemy import select

from dmpo_app.store import Store
from dmpo_app.store.db.column_types import insert_in_order
from dmpo_app.store.schema import AnnotatorRow
from tests.store.store_data import Clock


def test_ids_come_in_the_order_of_the_rows(store: Store, clock: Clock) -> None:
    def rows(numbers: range) -> list[dict[str, object]]:
        return [{"public_id": f"{n:05d}", "handle": str(-n), "created_at": clock()} for n in numbers]

    numbers = range(3000, 0, -1)
    ids = store.database.write(lambda connection: insert_in_order(connection, AnnotatorRow.id, rows(numbers)))
    more = store.database.write(
        lambda connection: insert_in_order(connection, AnnotatorRow.id, rows(range(3001, 3003)))
    )
    with store.database.reader() as connection:
        rows_found = connection.execute(select(AnnotatorRow.id, AnnotatorRow.public_id))
        found = {row.id: row.public_id for row in rows_found}
    assert [found[one] for one in ids] == [f"{n:05d}" for n in numbers]
    assert [found[one] for one in more] == ["03001", "03002"]
