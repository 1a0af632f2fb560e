"""Pairs and votes from elsewhere: where they come from, whether pairs are shown to people, whether they are encoded.

Going down, imported pairs and votes stay as pairs and votes like any other, except that those which are not encoded or
not shown are taken out of the pool: the older schema would train on what has no latents.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

_OFFER = ["base_id", "num_taken", sa.literal_column("adapter_version DESC"), "id"]
_APPEND_ONLY = ("imported_pairs", "imported_votes")


def upgrade() -> None:
    for name in ("is_offered", "is_encoded"):
        op.add_column("pairs", sa.Column(name, sa.Boolean(), server_default=sa.true(), nullable=False))
    op.drop_index("ix_pairs_offer", "pairs")
    _index("ix_pairs_offer", _OFFER, "retired_at IS NULL AND is_offered")
    _index("ix_pairs_unencoded", ["base_id", "id"], "NOT is_encoded")
    _imports()
    _imported_pairs()
    _imported_votes()
    op.create_table(
        "import_left_out",
        sa.Column("import_id", sa.Integer(), nullable=False),
        sa.Column("source_row", sa.String(length=80), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["import_id"], ["imports.id"], name=op.f("fk_import_left_out_import_id")),
        sa.PrimaryKeyConstraint("import_id", "source_row", name=op.f("pk_import_left_out")),
    )
    for table in _APPEND_ONLY:
        for event in ("DELETE", "UPDATE"):
            _guard(table, event)


def downgrade() -> None:
    on_sqlite = op.get_context().dialect.name == "sqlite"
    for table in _APPEND_ONLY:
        for event in ("DELETE", "UPDATE"):
            name = _guard_name(table, event)
            op.execute(f"DROP TRIGGER {name}" if on_sqlite else f"DROP TRIGGER {name} ON {table}")
    op.execute(
        "UPDATE pairs SET retired_at = created_at WHERE retired_at IS NULL AND (NOT is_offered OR NOT is_encoded)"
    )
    for table in ("import_left_out", "imported_votes", "imported_pairs", "imports"):
        op.drop_table(table)
    op.drop_index("ix_pairs_unencoded", "pairs")
    op.drop_index("ix_pairs_offer", "pairs")
    op.drop_column("pairs", "is_encoded")
    op.drop_column("pairs", "is_offered")
    _index("ix_pairs_offer", _OFFER, "retired_at IS NULL")


def _imports() -> None:
    op.create_table(
        "imports",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("base_id", sa.Integer(), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("format", sa.String(length=32), nullable=False),
        sa.Column("use", sa.String(length=16), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("bookmark", sa.JSON(), nullable=True),
        sa.Column("counts", sa.JSON(), nullable=False),
        sa.Column("is_complete", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["base_id"], ["base_models.id"], name=op.f("fk_imports_base_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_imports")),
        sa.UniqueConstraint(
            "base_id",
            "fingerprint",
            "format",
            "use",
            "source",
            name=op.f("uq_imports_base_id_fingerprint_format_use_source"),
        ),
    )


def _imported_pairs() -> None:
    op.create_table(
        "imported_pairs",
        sa.Column("pair_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("base_id", sa.Integer(), nullable=False),
        sa.Column("import_id", sa.Integer(), nullable=False),
        sa.Column("source_row", sa.Text(), nullable=False),
        sa.Column("content_key", sa.String(length=64), nullable=False),
        sa.Column("sha256_a", sa.String(length=64), nullable=False),
        sa.Column("origin", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["base_id"], ["base_models.id"], name=op.f("fk_imported_pairs_base_id")),
        sa.ForeignKeyConstraint(["import_id"], ["imports.id"], name=op.f("fk_imported_pairs_import_id")),
        sa.ForeignKeyConstraint(["pair_id"], ["pairs.id"], name=op.f("fk_imported_pairs_pair_id")),
        sa.PrimaryKeyConstraint("pair_id", name=op.f("pk_imported_pairs")),
        sa.UniqueConstraint("base_id", "content_key", name=op.f("uq_imported_pairs_base_id_content_key")),
    )
    op.create_index("ix_imported_pairs_import", "imported_pairs", ["import_id"])


def _imported_votes() -> None:
    op.create_table(
        "imported_votes",
        sa.Column("vote_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("import_id", sa.Integer(), nullable=False),
        sa.Column("source_row", sa.Text(), nullable=False),
        sa.Column("given_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["import_id"], ["imports.id"], name=op.f("fk_imported_votes_import_id")),
        sa.ForeignKeyConstraint(["vote_id"], ["votes.id"], name=op.f("fk_imported_votes_vote_id")),
        sa.PrimaryKeyConstraint("vote_id", name=op.f("pk_imported_votes")),
    )
    op.create_index("ix_imported_votes_import", "imported_votes", ["import_id"])


def _index(name: str, columns: Sequence[Any], only: str) -> None:
    where: dict[str, Any] = {"sqlite_where": sa.text(only), "postgresql_where": sa.text(only)}
    op.create_index(name, "pairs", list(columns), **where)


def _guard_name(table: str, event: str) -> str:
    return f"{table}_are_never_{'deleted' if event == 'DELETE' else 'changed'}"


def _guard(table: str, event: str) -> None:
    name = _guard_name(table, event)
    message = name.replace("_", " ")
    if op.get_context().dialect.name == "sqlite":
        op.execute(f"CREATE TRIGGER {name} BEFORE {event} ON {table} BEGIN SELECT RAISE(ABORT, '{message}'); END")
    else:
        op.execute(
            f"CREATE TRIGGER {name} BEFORE {event} ON {table} FOR EACH ROW EXECUTE FUNCTION studio_refuses('{message}')"
        )
