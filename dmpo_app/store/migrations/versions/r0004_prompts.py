"""Prompts are managed: tags, retirement, proposals, and a split into training and held-out that the database keeps."""

import sqlalchemy as sa
from alembic import op

from dmpo_app.domain.prompt import fold

revision = "0004"
down_revision = "0003"

_CHUNK = 1000

# A prompt's twins are those with the same folded text, itself among them. Looking pairs up by lineage uses their index.
_HELD_OUT_TWIN = (
    "EXISTS (SELECT 1 FROM prompts p JOIN prompts twin ON twin.folded = p.folded "
    "WHERE p.id = NEW.prompt_id AND twin.held_out)"
)
_TWIN_WITH_PAIRS = (
    "NEW.held_out AND EXISTS (SELECT 1 FROM prompts twin CROSS JOIN base_models b "
    "JOIN pairs ON pairs.base_id = b.id AND pairs.prompt_id = twin.id "
    "WHERE twin.folded = NEW.folded)"
)
TRIGGERS = {
    "a_held_out_prompt_gets_no_pairs": ("INSERT ON pairs", _HELD_OUT_TWIN),
    "a_pair_is_not_moved_to_a_held_out_prompt": ("UPDATE OF prompt_id ON pairs", _HELD_OUT_TWIN),
    "a_new_held_out_prompt_has_no_twin_with_pairs": ("INSERT ON prompts", _TWIN_WITH_PAIRS),
    "a_prompt_with_pairs_is_not_held_out": ("UPDATE OF held_out ON prompts", _TWIN_WITH_PAIRS),
    "the_text_of_a_prompt_is_never_changed": ("UPDATE OF text, folded ON prompts", None),
}


def upgrade() -> None:
    op.add_column("prompts", sa.Column("folded", sa.Text(), server_default="", nullable=False))
    op.add_column("prompts", sa.Column("source", sa.String(length=16), server_default="list", nullable=False))
    op.add_column("prompts", sa.Column("retired_at", sa.BigInteger(), nullable=True))
    op.add_column("prompts", sa.Column("placed_at", sa.BigInteger(), nullable=True))
    _tables()
    _fold_what_is_there()
    op.create_index("ix_prompts_folded", "prompts", ["folded"])
    if op.get_bind().dialect.name == "postgresql":
        _triggers_of_postgresql()
    else:
        for name, (event, condition) in TRIGGERS.items():
            when = f"WHEN {condition} " if condition else ""
            op.execute(f"CREATE TRIGGER {name} BEFORE {event} {when}BEGIN SELECT RAISE(ABORT, '{_said(name)}'); END")


def downgrade() -> None:
    on_postgresql = op.get_bind().dialect.name == "postgresql"
    for name, (event, _) in TRIGGERS.items():
        op.execute(f"DROP TRIGGER {name} ON {event.split()[-1]}" if on_postgresql else f"DROP TRIGGER {name}")
        if on_postgresql:
            op.execute(f"DROP FUNCTION {name}_check()")
    op.drop_index("ix_prompts_folded", "prompts")
    op.drop_table("prompt_proposals")
    op.drop_table("prompt_tags")
    for column in ("placed_at", "retired_at", "source", "folded"):
        op.drop_column("prompts", column)


def _tables() -> None:
    op.create_table(
        "prompt_tags",
        sa.Column("prompt_id", sa.Integer(), nullable=False),
        sa.Column("tag", sa.String(length=40), nullable=False),
        sa.ForeignKeyConstraint(["prompt_id"], ["prompts.id"], name=op.f("fk_prompt_tags_prompt_id")),
        sa.PrimaryKeyConstraint("prompt_id", "tag", name=op.f("pk_prompt_tags")),
    )
    op.create_index("ix_prompt_tags_tag", "prompt_tags", ["tag"])
    op.create_table(
        "prompt_proposals",
        sa.Column("prompt_id", sa.Integer(), nullable=False),
        sa.Column("annotator_id", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["annotator_id"], ["annotators.id"], name=op.f("fk_prompt_proposals_annotator_id")),
        sa.ForeignKeyConstraint(["prompt_id"], ["prompts.id"], name=op.f("fk_prompt_proposals_prompt_id")),
        sa.PrimaryKeyConstraint("prompt_id", name=op.f("pk_prompt_proposals")),
    )
    op.create_index("ix_prompt_proposals_annotator", "prompt_proposals", ["annotator_id", "created_at"])


def _fold_what_is_there() -> None:
    """Homes of before may hold twins on both sides. They stay; from now on the training one gets no new pairs."""
    connection = op.get_bind()
    prompts = sa.table("prompts", sa.column("id", sa.Integer()), sa.column("text", sa.Text()))
    rows = connection.execute(sa.select(prompts.c.id, prompts.c.text)).all()
    update = sa.text("UPDATE prompts SET folded = :folded WHERE id = :id")
    for start in range(0, len(rows), _CHUNK):
        chunk = rows[start : start + _CHUNK]
        connection.execute(update, [{"id": row.id, "folded": fold(row.text)} for row in chunk])


def _triggers_of_postgresql() -> None:
    """The same rules, with a lock on the folded text.

    It makes them hold when a pair is stored while its prompt is held out by another transaction: whoever comes second
    waits, and then sees what the first one did.
    """
    for name, (event, condition) in TRIGGERS.items():
        if condition is None:
            lock = ""
        elif event.endswith("pairs"):
            lock = "PERFORM pg_advisory_xact_lock(hashtext(folded)) FROM prompts WHERE id = NEW.prompt_id; "
        else:
            lock = "PERFORM pg_advisory_xact_lock(hashtext(NEW.folded)); "
        op.execute(
            f"CREATE FUNCTION {name}_check() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {lock}"
            f"IF {condition or 'true'} THEN "
            f"RAISE EXCEPTION '{_said(name)}' USING ERRCODE = 'integrity_constraint_violation'; END IF; "
            "RETURN NEW; END $$"
        )
        op.execute(f"CREATE TRIGGER {name} BEFORE {event} FOR EACH ROW EXECUTE FUNCTION {name}_check()")


def _said(name: str) -> str:
    return name.replace("_", " ")
