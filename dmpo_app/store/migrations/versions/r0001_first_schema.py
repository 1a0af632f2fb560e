"""The first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    _annotators()
    _base_models()
    _prompts()
    _adapters()
    _leases()
    _prompt_embeds()
    _images()
    _live_changes()
    _rounds()
    _pairs()
    _round_progress()
    _assignments()
    _votes()
    _adapter_votes()
    _round_votes()
    if op.get_bind().dialect.supports_alter:  # elsewhere it stands in the table: adapters and rounds name each other
        op.create_foreign_key("fk_adapters_round_id", "adapters", "rounds", ["round_id"], ["id"])
    if op.get_bind().dialect.name == "sqlite":
        _votes_are_append_only()


def downgrade() -> None:
    raise RuntimeError("there is nothing before the first schema; restore a backup instead")


def _annotators() -> None:
    op.create_table(
        "annotators",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("public_id", sa.String(length=32), nullable=False),
        sa.Column("handle", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_annotators")),
        sa.UniqueConstraint("public_id", name=op.f("uq_annotators_public_id")),
    )


def _base_models() -> None:
    op.create_table(
        "base_models",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("family", sa.String(length=64), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_base_models")),
        sa.UniqueConstraint("fingerprint", name=op.f("uq_base_models_fingerprint")),
    )


def _prompts() -> None:
    op.create_table(
        "prompts",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("held_out", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_prompts")),
        sa.UniqueConstraint("text", name=op.f("uq_prompts_text")),
    )


def _adapters() -> None:
    op.create_table(
        "adapters",
        sa.Column("base_id", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("parent", sa.Integer(), nullable=True),
        sa.Column("folder", sa.Text(), nullable=True),
        sa.Column("sha256", sa.String(length=64), nullable=True),
        sa.Column("round_id", sa.Integer(), nullable=True),
        sa.Column("num_votes", sa.Integer(), nullable=False),
        sa.Column("proven", sa.Boolean(), nullable=False),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "version = 0 OR "
            "(parent IS NOT NULL AND folder IS NOT NULL AND sha256 IS NOT NULL AND round_id IS NOT NULL)",
            name=op.f("ck_adapters_complete"),
        ),
        sa.ForeignKeyConstraint(
            ["base_id", "parent"], ["adapters.base_id", "adapters.version"], name=op.f("fk_adapters_base_id_parent")
        ),
        sa.ForeignKeyConstraint(["base_id"], ["base_models.id"], name=op.f("fk_adapters_base_id")),
        sa.ForeignKeyConstraint(["round_id"], ["rounds.id"], name=op.f("fk_adapters_round_id"), use_alter=True),
        sa.PrimaryKeyConstraint("base_id", "version", name=op.f("pk_adapters")),
        sa.UniqueConstraint("round_id", name=op.f("uq_adapters_round_id")),
    )


def _leases() -> None:
    op.create_table(
        "leases",
        sa.Column("base_id", sa.Integer(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("token", sa.Integer(), nullable=False),
        sa.Column("lease_seconds", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["base_id"], ["base_models.id"], name=op.f("fk_leases_base_id")),
        sa.PrimaryKeyConstraint("base_id", name=op.f("pk_leases")),
    )


def _prompt_embeds() -> None:
    op.create_table(
        "prompt_embeds",
        sa.Column("base_id", sa.Integer(), nullable=False),
        sa.Column("prompt_id", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["base_id"], ["base_models.id"], name=op.f("fk_prompt_embeds_base_id")),
        sa.ForeignKeyConstraint(["prompt_id"], ["prompts.id"], name=op.f("fk_prompt_embeds_prompt_id")),
        sa.PrimaryKeyConstraint("base_id", "prompt_id", name=op.f("pk_prompt_embeds")),
    )


def _images() -> None:
    op.create_table(
        "images",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("base_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("latents_sha256", sa.String(length=64), nullable=True),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("sampler", sa.String(length=32), nullable=False),
        sa.Column("num_steps", sa.Integer(), nullable=False),
        sa.Column("guidance", sa.Double(), nullable=False),
        sa.Column("adapter_version", sa.Integer(), nullable=False),
        sa.Column("strength", sa.Double(), nullable=False),
        sa.Column("batch_size", sa.Integer(), nullable=False),
        sa.Column("num_threads", sa.Integer(), nullable=False),
        sa.Column("device", sa.String(length=64), nullable=False),
        sa.Column("dtype", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["base_id", "adapter_version"],
            ["adapters.base_id", "adapters.version"],
            name=op.f("fk_images_base_id_adapter_version"),
        ),
        sa.ForeignKeyConstraint(["base_id"], ["base_models.id"], name=op.f("fk_images_base_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_images")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_images_base_id_kind_adapter_version", "images", ["base_id", "kind", "adapter_version"], unique=False
    )
    op.create_index("ix_images_latents_sha256", "images", ["latents_sha256"], unique=False)
    op.create_index("ix_images_sha256", "images", ["sha256"], unique=False)


def _live_changes() -> None:
    op.create_table(
        "live_changes",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("base_id", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["base_id", "version"],
            ["adapters.base_id", "adapters.version"],
            name=op.f("fk_live_changes_base_id_version"),
        ),
        sa.ForeignKeyConstraint(["base_id"], ["base_models.id"], name=op.f("fk_live_changes_base_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_live_changes")),
    )
    op.create_index("ix_live_changes_base", "live_changes", ["base_id", "id"], unique=False)


def _rounds() -> None:
    op.create_table(
        "rounds",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("base_id", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("trigger", sa.String(length=16), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("steps", sa.Integer(), nullable=False),
        sa.Column("loss", sa.Double(), nullable=True),
        sa.Column("margin", sa.Double(), nullable=True),
        sa.Column("accuracy", sa.Double(), nullable=True),
        sa.Column("eta_seconds", sa.Double(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("num_votes", sa.Integer(), nullable=False),
        sa.Column("last_vote_id", sa.Integer(), nullable=False),
        sa.Column("parent_version", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=True),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["base_id", "parent_version"],
            ["adapters.base_id", "adapters.version"],
            name=op.f("fk_rounds_base_id_parent_version"),
        ),
        sa.ForeignKeyConstraint(["base_id"], ["base_models.id"], name=op.f("fk_rounds_base_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rounds")),
    )
    op.create_index("ix_rounds_base", "rounds", ["base_id", "status", "id"], unique=False)
    op.create_index(
        "uq_rounds_one_at_a_time",
        "rounds",
        ["base_id"],
        unique=True,
        sqlite_where=sa.text("status IN ('queued', 'running')"),
        postgresql_where=sa.text("status IN ('queued', 'running')"),
    )


def _pairs() -> None:
    op.create_table(
        "pairs",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("base_id", sa.Integer(), nullable=False),
        sa.Column("prompt_id", sa.Integer(), nullable=False),
        sa.Column("image_a_id", sa.Integer(), nullable=False),
        sa.Column("image_b_id", sa.Integer(), nullable=False),
        sa.Column("source", sa.String(length=16), nullable=False),
        sa.Column("adapter_version", sa.Integer(), nullable=False),
        sa.Column("num_votes", sa.Integer(), nullable=False),
        sa.Column("num_taken", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("image_a_id <> image_b_id", name=op.f("ck_pairs_two_images")),
        sa.CheckConstraint("num_votes >= 0 AND num_taken >= num_votes", name=op.f("ck_pairs_counts")),
        sa.ForeignKeyConstraint(
            ["base_id", "adapter_version"],
            ["adapters.base_id", "adapters.version"],
            name=op.f("fk_pairs_base_id_adapter_version"),
        ),
        sa.ForeignKeyConstraint(["base_id"], ["base_models.id"], name=op.f("fk_pairs_base_id")),
        sa.ForeignKeyConstraint(["image_a_id"], ["images.id"], name=op.f("fk_pairs_image_a_id")),
        sa.ForeignKeyConstraint(["image_b_id"], ["images.id"], name=op.f("fk_pairs_image_b_id")),
        sa.ForeignKeyConstraint(["prompt_id"], ["prompts.id"], name=op.f("fk_pairs_prompt_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pairs")),
        sa.UniqueConstraint("image_a_id", name=op.f("uq_pairs_image_a_id")),
        sa.UniqueConstraint("image_b_id", name=op.f("uq_pairs_image_b_id")),
    )
    op.create_index(
        "ix_pairs_offer",
        "pairs",
        ["base_id", "num_taken", sa.literal_column("adapter_version DESC"), "id"],
        unique=False,
    )
    op.create_index("ix_pairs_prompt", "pairs", ["base_id", "prompt_id"], unique=False)
    op.create_index("ix_pairs_unjudged", "pairs", ["base_id", "num_votes", "adapter_version"], unique=False)


def _round_progress() -> None:
    op.create_table(
        "round_progress",
        sa.Column("round_id", sa.Integer(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("loss", sa.Double(), nullable=False),
        sa.Column("margin", sa.Double(), nullable=False),
        sa.Column("accuracy", sa.Double(), nullable=False),
        sa.Column("eta_seconds", sa.Double(), nullable=False),
        sa.Column("held_out_loss", sa.Double(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["round_id"], ["rounds.id"], name=op.f("fk_round_progress_round_id")),
        sa.PrimaryKeyConstraint("round_id", "step", name=op.f("pk_round_progress")),
    )


def _assignments() -> None:
    op.create_table(
        "assignments",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("public_id", sa.String(length=32), nullable=False),
        sa.Column("base_id", sa.Integer(), nullable=False),
        sa.Column("annotator_id", sa.Integer(), nullable=False),
        sa.Column("pair_id", sa.Integer(), nullable=False),
        sa.Column("question", sa.String(length=16), nullable=False),
        sa.Column("a_on_left", sa.Boolean(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("opened_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["annotator_id"], ["annotators.id"], name=op.f("fk_assignments_annotator_id")),
        sa.ForeignKeyConstraint(["base_id"], ["base_models.id"], name=op.f("fk_assignments_base_id")),
        sa.ForeignKeyConstraint(["pair_id"], ["pairs.id"], name=op.f("fk_assignments_pair_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_assignments")),
        sa.UniqueConstraint("public_id", name=op.f("uq_assignments_public_id")),
    )
    op.create_index(
        "ix_assignments_open",
        "assignments",
        ["expires_at", "pair_id"],
        unique=False,
        sqlite_where=sa.text("state IN ('open', 'reopened')"),
        postgresql_where=sa.text("state IN ('open', 'reopened')"),
    )
    op.create_index(
        "ix_assignments_open_of",
        "assignments",
        ["annotator_id", "base_id"],
        unique=False,
        sqlite_where=sa.text("state IN ('open', 'reopened')"),
        postgresql_where=sa.text("state IN ('open', 'reopened')"),
    )
    op.create_index("ix_assignments_pair", "assignments", ["pair_id"], unique=False)
    op.create_index(
        "uq_assignments_seen_once",
        "assignments",
        ["annotator_id", "pair_id"],
        unique=True,
        sqlite_where=sa.text("state <> 'lapsed'"),
        postgresql_where=sa.text("state <> 'lapsed'"),
    )


def _votes() -> None:
    op.create_table(
        "votes",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("assignment_id", sa.Integer(), nullable=False),
        sa.Column("base_id", sa.Integer(), nullable=False),
        sa.Column("annotator_id", sa.Integer(), nullable=False),
        sa.Column("pair_id", sa.Integer(), nullable=False),
        sa.Column("choice", sa.String(length=16), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("elapsed_ms", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("undone_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["annotator_id"], ["annotators.id"], name=op.f("fk_votes_annotator_id")),
        sa.ForeignKeyConstraint(["assignment_id"], ["assignments.id"], name=op.f("fk_votes_assignment_id")),
        sa.ForeignKeyConstraint(["base_id"], ["base_models.id"], name=op.f("fk_votes_base_id")),
        sa.ForeignKeyConstraint(["pair_id"], ["pairs.id"], name=op.f("fk_votes_pair_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_votes")),
    )
    op.create_index(
        "ix_votes_live",
        "votes",
        ["base_id", "outcome", "id"],
        unique=False,
        sqlite_where=sa.text("undone_at IS NULL"),
        postgresql_where=sa.text("undone_at IS NULL"),
    )
    op.create_index(
        "ix_votes_live_of",
        "votes",
        ["annotator_id", "id"],
        unique=False,
        sqlite_where=sa.text("undone_at IS NULL"),
        postgresql_where=sa.text("undone_at IS NULL"),
    )
    op.create_index(
        "uq_votes_one_live",
        "votes",
        ["assignment_id"],
        unique=True,
        sqlite_where=sa.text("undone_at IS NULL"),
        postgresql_where=sa.text("undone_at IS NULL"),
    )


def _adapter_votes() -> None:
    op.create_table(
        "adapter_votes",
        sa.Column("base_id", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("vote_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["base_id", "version"],
            ["adapters.base_id", "adapters.version"],
            name=op.f("fk_adapter_votes_base_id_version"),
        ),
        sa.ForeignKeyConstraint(["vote_id"], ["votes.id"], name=op.f("fk_adapter_votes_vote_id")),
        sa.PrimaryKeyConstraint("base_id", "version", "vote_id", name=op.f("pk_adapter_votes")),
    )


def _round_votes() -> None:
    op.create_table(
        "round_votes",
        sa.Column("round_id", sa.Integer(), nullable=False),
        sa.Column("vote_id", sa.Integer(), nullable=False),
        sa.Column("held_out", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["round_id"], ["rounds.id"], name=op.f("fk_round_votes_round_id")),
        sa.ForeignKeyConstraint(["vote_id"], ["votes.id"], name=op.f("fk_round_votes_vote_id")),
        sa.PrimaryKeyConstraint("round_id", "vote_id", name=op.f("pk_round_votes")),
    )


def _votes_are_append_only() -> None:
    for name, when in {
        "votes_are_never_deleted": "BEFORE DELETE ON votes",
        "votes_are_never_changed": "BEFORE UPDATE OF id, assignment_id, base_id, annotator_id, pair_id, choice,"
        " outcome, elapsed_ms, created_at ON votes",
        "votes_are_undone_once": "BEFORE UPDATE OF undone_at ON votes WHEN OLD.undone_at IS NOT NULL",
        "round_votes_are_never_deleted": "BEFORE DELETE ON round_votes",
        "round_votes_are_never_changed": "BEFORE UPDATE ON round_votes",
        "adapter_votes_are_never_deleted": "BEFORE DELETE ON adapter_votes",
        "adapter_votes_are_never_changed": "BEFORE UPDATE ON adapter_votes",
        "live_changes_are_never_deleted": "BEFORE DELETE ON live_changes",
        "live_changes_are_never_changed": "BEFORE UPDATE ON live_changes",
    }.items():
        op.execute(f"CREATE TRIGGER {name} {when} BEGIN SELECT RAISE(ABORT, '{name.replace('_', ' ')}'); END")
