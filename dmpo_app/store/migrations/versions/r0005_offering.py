"""Gold pairs and repeats, told apart by the purpose of a showing; the policy's margins on pairs.

Going down, votes on repeats count as taken back, and gold pairs are pairs like any other.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_SEEN = "state <> 'lapsed'"
_LIVE = "undone_at IS NULL AND withdrawn_at IS NULL"
_KEPT = (
    "id, assignment_id, base_id, annotator_id, pair_id, choice, outcome, elapsed_ms, created_at, question, strength, "
    "comment"
)


def upgrade() -> None:
    op.add_column("assignments", _purpose())
    op.add_column("votes", _purpose())
    op.add_column("pairs", sa.Column("gold", sa.String(length=16), nullable=True))
    _seen_once(f"{_SEEN} AND purpose <> 'repeat'")
    _unique_showing("uq_assignments_repeated_once", f"{_SEEN} AND purpose = 'repeat'")
    _live_votes("base_id", "question", "purpose", "outcome", "id")
    _guard_votes(f"{_KEPT}, purpose")
    op.create_table(
        "pair_margins",
        sa.Column("pair_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("adapter_version", sa.Integer(), nullable=False),
        sa.Column("margin", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["pair_id"], ["pairs.id"], name=op.f("fk_pair_margins_pair_id")),
        sa.PrimaryKeyConstraint("pair_id", name=op.f("pk_pair_margins")),
    )


def downgrade() -> None:
    op.drop_table("pair_margins")
    _take_repeats_back()
    _live_votes("base_id", "question", "outcome", "id")
    _guard_votes(_KEPT)
    op.drop_index("uq_assignments_repeated_once", "assignments")
    _seen_once(_SEEN)
    op.drop_column("pairs", "gold")
    op.drop_column("votes", "purpose")
    op.drop_column("assignments", "purpose")


def _take_repeats_back() -> None:
    op.execute(
        "UPDATE pairs SET "
        "num_votes = num_votes - (SELECT count(*) FROM votes "
        f"WHERE votes.pair_id = pairs.id AND purpose = 'repeat' AND {_LIVE}), "
        "num_taken = num_taken - (SELECT count(*) FROM assignments "
        "WHERE assignments.pair_id = pairs.id AND purpose = 'repeat' AND state IN ('open', 'reopened', 'answered')) "
        "WHERE id IN (SELECT pair_id FROM assignments WHERE purpose = 'repeat')"
    )
    op.execute("UPDATE assignments SET state = 'lapsed' WHERE purpose = 'repeat'")
    op.execute(f"UPDATE votes SET undone_at = created_at WHERE purpose = 'repeat' AND {_LIVE}")


def _purpose() -> sa.Column[str]:
    return sa.Column("purpose", sa.String(length=16), server_default="vote", nullable=False)


def _seen_once(condition: str) -> None:
    op.drop_index("uq_assignments_seen_once", "assignments")
    _unique_showing("uq_assignments_seen_once", condition)


def _unique_showing(name: str, condition: str) -> None:
    columns, where = ["annotator_id", "pair_id", "question"], sa.text(condition)
    op.create_index(name, "assignments", columns, unique=True, sqlite_where=where, postgresql_where=where)


def _live_votes(*columns: str) -> None:
    op.drop_index("ix_votes_live", "votes")
    where = sa.text(_LIVE)
    op.create_index("ix_votes_live", "votes", list(columns), sqlite_where=where, postgresql_where=where)


def _guard_votes(columns: str) -> None:
    name, event = "votes_are_never_changed", f"BEFORE UPDATE OF {columns} ON votes"
    message = name.replace("_", " ")
    if op.get_context().dialect.name == "sqlite":
        op.execute(f"DROP TRIGGER {name}")
        op.execute(f"CREATE TRIGGER {name} {event} BEGIN SELECT RAISE(ABORT, '{message}'); END")
    else:
        op.execute(f"DROP TRIGGER {name} ON votes")
        op.execute(f"CREATE TRIGGER {name} {event} FOR EACH ROW EXECUTE FUNCTION studio_refuses('{message}')")
