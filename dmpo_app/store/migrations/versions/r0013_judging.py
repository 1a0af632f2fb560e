"""Duels between versions, studies made of them, the verdicts about versions, and the effects measured on their images.

Votes that were taken back are found by an index of their own, since every version that learned from them is named.

A duel is a pair of two versions' images, which may be of a held-out prompt. Going down, duels stay as retired pairs,
and what was said of them as answers to gold pairs, which nothing is learnt from.
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"

_HELD_OUT_TWIN = (
    "EXISTS (SELECT 1 FROM prompts p JOIN prompts twin ON twin.folded = p.folded "
    "WHERE p.id = NEW.prompt_id AND twin.held_out)"
)
_TWIN_WITH_PAIRS = (
    "NEW.held_out AND EXISTS (SELECT 1 FROM prompts twin CROSS JOIN base_models b "
    "JOIN pairs ON pairs.base_id = b.id AND pairs.prompt_id = twin.id{but_duels} "
    "WHERE twin.folded = NEW.folded)"
)
_SPLIT_TRIGGERS = {
    "a_held_out_prompt_gets_no_pairs": ("INSERT ON pairs", "{unless_duel}" + _HELD_OUT_TWIN),
    "a_pair_is_not_moved_to_a_held_out_prompt": ("UPDATE OF prompt_id ON pairs", "{unless_duel}" + _HELD_OUT_TWIN),
    "a_new_held_out_prompt_has_no_twin_with_pairs": ("INSERT ON prompts", _TWIN_WITH_PAIRS),
    "a_prompt_with_pairs_is_not_held_out": ("UPDATE OF held_out ON prompts", _TWIN_WITH_PAIRS),
}
_GUARDED = ("duels", "verdicts")
_IS_TAKEN_BACK = sa.text("(undone_at > 0 OR withdrawn_at > 0)")


def upgrade() -> None:
    op.add_column("adapters", sa.Column("is_held", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.create_index(
        "ix_votes_taken_back",
        "votes",
        ["base_id", "id"],
        sqlite_where=_IS_TAKEN_BACK,
        postgresql_where=_IS_TAKEN_BACK,
    )
    _studies_and_duels()
    _verdicts_and_effects()
    _split_prompts(unless_duel="NEW.source <> 'duel' AND ", but_duels=" AND pairs.source <> 'duel'")
    for table in _GUARDED:
        for event, verb in (("DELETE", "deleted"), ("UPDATE", "changed")):
            _guard(f"{table}_are_never_{verb}", event, table)


def downgrade() -> None:
    op.drop_index("ix_votes_taken_back", table_name="votes")
    for table in ("version_effects", "verdicts", "duels", "studies"):
        op.drop_table(table)
    guard = "votes_are_never_changed"
    _drop_trigger(guard, "votes")
    for table in ("assignments", "votes"):
        op.execute(f"UPDATE {table} SET purpose = 'gold' WHERE purpose = 'duel'")
    _guard(
        guard,
        "UPDATE OF id, assignment_id, base_id, annotator_id, pair_id, choice, outcome, elapsed_ms, created_at, "
        "question, strength, comment, purpose, ranking",
        "votes",
    )
    op.execute("UPDATE pairs SET retired_at = created_at, source = 'pool' WHERE source = 'duel'")
    op.execute("UPDATE images SET kind = 'render' WHERE kind = 'judging'")
    op.execute("UPDATE rounds SET trigger = 'request' WHERE trigger = 'withdrawal'")
    _split_prompts(unless_duel="", but_duels="")
    op.drop_column("adapters", "is_held")


def _studies_and_duels() -> None:
    op.create_table(
        "studies",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("base_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=80), nullable=False),
        sa.Column("version_a", sa.Integer(), nullable=False),
        sa.Column("version_b", sa.Integer(), nullable=False),
        sa.Column("questions", sa.JSON(), nullable=False),
        sa.Column("num_raters", sa.Integer(), nullable=False),
        sa.Column("num_pairs", sa.Integer(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("closed_at", sa.BigInteger(), nullable=True),
        *_versions("studies", "version_a", "version_b"),
        sa.ForeignKeyConstraint(["base_id"], ["base_models.id"], name=op.f("fk_studies_base_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_studies")),
        sa.UniqueConstraint("base_id", "name", name=op.f("uq_studies_base_id_name")),
    )
    op.create_table(
        "duels",
        sa.Column("pair_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("base_id", sa.Integer(), nullable=False),
        sa.Column("version_a", sa.Integer(), nullable=False),
        sa.Column("version_b", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=True),
        *_versions("duels", "version_a", "version_b"),
        sa.ForeignKeyConstraint(["pair_id"], ["pairs.id"], name=op.f("fk_duels_pair_id")),
        sa.ForeignKeyConstraint(["base_id"], ["base_models.id"], name=op.f("fk_duels_base_id")),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name=op.f("fk_duels_study_id")),
        sa.PrimaryKeyConstraint("pair_id", name=op.f("pk_duels")),
    )
    op.create_index("ix_duels_versions", "duels", ["base_id", "version_a", "version_b", "pair_id"])
    op.create_index("ix_duels_study", "duels", ["study_id", "pair_id"])


def _verdicts_and_effects() -> None:
    op.create_table(
        "verdicts",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("base_id", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("other_version", sa.Integer(), nullable=False),
        sa.Column("verdict", sa.String(length=16), nullable=False),
        sa.Column("evidence", sa.String(length=16), nullable=False),
        sa.Column("action", sa.String(length=16), nullable=False),
        sa.Column("numbers", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        *_versions("verdicts", "version", "other_version"),
        sa.ForeignKeyConstraint(["base_id"], ["base_models.id"], name=op.f("fk_verdicts_base_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_verdicts")),
    )
    op.create_index("ix_verdicts_version", "verdicts", ["base_id", "version", "id"])
    op.create_table(
        "version_effects",
        sa.Column("base_id", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("other_version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("effects", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        *_versions("version_effects", "version", "other_version"),
        sa.ForeignKeyConstraint(["base_id"], ["base_models.id"], name=op.f("fk_version_effects_base_id")),
        sa.PrimaryKeyConstraint("base_id", "version", "other_version", name=op.f("pk_version_effects")),
    )


def _versions(table: str, *columns: str) -> list[sa.ForeignKeyConstraint]:
    return [
        sa.ForeignKeyConstraint(
            ["base_id", column], ["adapters.base_id", "adapters.version"], name=op.f(f"fk_{table}_base_id_{column}")
        )
        for column in columns
    ]


def _split_prompts(*, unless_duel: str, but_duels: str) -> None:
    """Keep the two sides of the prompts apart, as before, with or without duels as the exception."""
    on_postgresql = op.get_context().dialect.name == "postgresql"
    for name, (event, template) in _SPLIT_TRIGGERS.items():
        condition, message = template.format(unless_duel=unless_duel, but_duels=but_duels), name.replace("_", " ")
        if not on_postgresql:
            op.execute(f"DROP TRIGGER {name}")
            op.execute(
                f"CREATE TRIGGER {name} BEFORE {event} WHEN {condition} BEGIN SELECT RAISE(ABORT, '{message}'); END"
            )
            continue
        folded = "folded) FROM prompts WHERE id = NEW.prompt_id" if event.endswith("pairs") else "NEW.folded)"
        lock = f"PERFORM pg_advisory_xact_lock(hashtext({folded.replace(')', '))', 1)}; "
        op.execute(
            f"CREATE OR REPLACE FUNCTION {name}_check() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {lock}"
            f"IF {condition} THEN "
            f"RAISE EXCEPTION '{message}' USING ERRCODE = 'integrity_constraint_violation'; END IF; RETURN NEW; END $$"
        )


def _guard(name: str, event: str, table: str) -> None:
    head, message = f"CREATE TRIGGER {name} BEFORE {event} ON {table}", name.replace("_", " ")
    if op.get_context().dialect.name == "sqlite":
        op.execute(f"{head} BEGIN SELECT RAISE(ABORT, '{message}'); END")
    else:
        op.execute(f"{head} FOR EACH ROW EXECUTE FUNCTION studio_refuses('{message}')")


def _drop_trigger(name: str, table: str) -> None:
    on_sqlite = op.get_context().dialect.name == "sqlite"
    op.execute(f"DROP TRIGGER {name}" if on_sqlite else f"DROP TRIGGER {name} ON {table}")
