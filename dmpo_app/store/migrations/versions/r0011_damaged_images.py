"""Images that are missing or do not match their hash are remembered, and their pairs are out of the pool."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0009"

_NEWEST_FIRST = sa.text("adapter_version DESC")
_IS_DAMAGED = sa.text("damaged_at > 0")


def upgrade() -> None:
    for table in ("images", "pairs"):
        op.add_column(table, sa.Column("damaged_at", sa.BigInteger(), nullable=True))
        op.create_index(
            f"ix_{table}_damaged", table, ["damaged_at"], sqlite_where=_IS_DAMAGED, postgresql_where=_IS_DAMAGED
        )
    _index_offers("retired_at IS NULL AND damaged_at IS NULL AND is_offered")


def downgrade() -> None:
    _index_offers("retired_at IS NULL AND is_offered")
    for table in ("images", "pairs"):
        op.drop_index(f"ix_{table}_damaged", table)
        op.drop_column(table, "damaged_at")


def _index_offers(condition: str) -> None:
    op.drop_index("ix_pairs_offer", "pairs")
    in_pool = sa.text(condition)
    columns: list[str | sa.TextClause] = ["base_id", "num_images", "num_taken", _NEWEST_FIRST, "id"]
    op.create_index("ix_pairs_offer", "pairs", columns, sqlite_where=in_pool, postgresql_where=in_pool)
