"""Sets of three or four images that are ranked: a pair with more images, an arrangement, an order.

Going down, what was said of a set stays as what it says of the set's first two images.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

_KEPT = (
    "id, assignment_id, base_id, annotator_id, pair_id, choice, outcome, elapsed_ms, created_at, question, strength, "
    "comment, purpose"
)
_NEWEST_FIRST = sa.text("adapter_version DESC")


def upgrade() -> None:
    op.add_column("pairs", sa.Column("num_images", sa.Integer(), server_default="2", nullable=False))
    op.add_column("assignments", sa.Column("arrangement", sa.String(length=4), nullable=True))
    op.add_column("votes", sa.Column("ranking", sa.String(length=4), nullable=True))
    _guard_votes(f"{_KEPT}, ranking")
    op.create_table(
        "set_images",
        sa.Column("pair_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name=op.f("fk_set_images_image_id")),
        sa.ForeignKeyConstraint(["pair_id"], ["pairs.id"], name=op.f("fk_set_images_pair_id")),
        sa.PrimaryKeyConstraint("pair_id", "position", name=op.f("pk_set_images")),
        sa.UniqueConstraint("image_id", name=op.f("uq_set_images_image_id")),
    )
    _index_pairs("base_id", "num_images")


def downgrade() -> None:
    op.drop_table("set_images")
    _guard_votes(_KEPT)
    _index_pairs("base_id")
    op.drop_column("votes", "ranking")
    op.drop_column("assignments", "arrangement")
    op.drop_column("pairs", "num_images")


def _index_pairs(*first: str) -> None:
    op.drop_index("ix_pairs_offer", "pairs")
    in_pool = sa.text("retired_at IS NULL AND is_offered")
    columns: list[str | sa.TextClause] = [*first, "num_taken", _NEWEST_FIRST, "id"]
    op.create_index("ix_pairs_offer", "pairs", columns, sqlite_where=in_pool, postgresql_where=in_pool)
    op.drop_index("ix_pairs_unjudged", "pairs")
    op.create_index("ix_pairs_unjudged", "pairs", [*first, "num_votes", "adapter_version", "retired_at"])


def _guard_votes(columns: str) -> None:
    name, event = "votes_are_never_changed", f"BEFORE UPDATE OF {columns} ON votes"
    message = name.replace("_", " ")
    if op.get_context().dialect.name == "sqlite":
        op.execute(f"DROP TRIGGER {name}")
        op.execute(f"CREATE TRIGGER {name} {event} BEGIN SELECT RAISE(ABORT, '{message}'); END")
    else:
        op.execute(f"DROP TRIGGER {name} ON votes")
        op.execute(f"CREATE TRIGGER {name} {event} FOR EACH ROW EXECUTE FUNCTION studio_refuses('{message}')")
