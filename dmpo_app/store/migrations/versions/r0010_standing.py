"""Reports that hide a pair or are confirmed, and annotators who are struck.

Going down, confirmed reports stay as reports, hidden pairs are offered again and struck annotators count again.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

_REPORT_COLUMNS = "id, base_id, pair_id, annotator_id, reason, text, created_at"
_CONFIRMED_ONCE = "reports_are_confirmed_once"


def upgrade() -> None:
    op.add_column("annotators", sa.Column("struck_at", sa.BigInteger(), nullable=True))
    op.add_column("pairs", sa.Column("hidden_at", sa.BigInteger(), nullable=True))
    op.add_column("reports", sa.Column("network", sa.String(length=16), nullable=True))
    op.add_column("reports", sa.Column("confirmed_at", sa.BigInteger(), nullable=True))
    op.add_column("reports", sa.Column("confirmed_by", sa.Text(), nullable=True))
    op.create_index("ix_reports_of", "reports", ["annotator_id", "pair_id"])
    for name, table, column in (
        ("ix_annotators_struck", "annotators", "struck_at"),
        ("ix_pairs_hidden", "pairs", "hidden_at"),
    ):
        condition = sa.text(f"{column} > 0")
        op.create_index(name, table, [column], sqlite_where=condition, postgresql_where=condition)
    _guard_reports(f"{_REPORT_COLUMNS}, network")
    _create_trigger(_CONFIRMED_ONCE, "confirmed_at, confirmed_by", "WHEN (OLD.confirmed_at IS NOT NULL) ")


def downgrade() -> None:
    _drop_trigger(_CONFIRMED_ONCE)
    _guard_reports(_REPORT_COLUMNS)
    for name, table in (
        ("ix_reports_of", "reports"),
        ("ix_annotators_struck", "annotators"),
        ("ix_pairs_hidden", "pairs"),
    ):
        op.drop_index(name, table)
    for column in ("confirmed_by", "confirmed_at", "network"):
        op.drop_column("reports", column)
    op.drop_column("pairs", "hidden_at")
    op.drop_column("annotators", "struck_at")


def _guard_reports(columns: str) -> None:
    _drop_trigger("reports_are_never_changed")
    _create_trigger("reports_are_never_changed", columns)


def _create_trigger(name: str, columns: str, when: str = "") -> None:
    head, message = f"CREATE TRIGGER {name} BEFORE UPDATE OF {columns} ON reports", name.replace("_", " ")
    if op.get_context().dialect.name == "sqlite":
        op.execute(f"{head} {when}BEGIN SELECT RAISE(ABORT, '{message}'); END")
    else:
        op.execute(f"{head} FOR EACH ROW {when}EXECUTE FUNCTION studio_refuses('{message}')")


def _drop_trigger(name: str) -> None:
    sqlite = op.get_context().dialect.name == "sqlite"
    op.execute(f"DROP TRIGGER {name}" if sqlite else f"DROP TRIGGER {name} ON reports")
