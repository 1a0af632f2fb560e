"""Scores of images by automatic scorers; what is watched while a round trains."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "image_scores",
        sa.Column("scorer", sa.String(length=160), nullable=False),
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("score", sa.Double(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name=op.f("fk_image_scores_image_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("scorer", "image_id", name=op.f("pk_image_scores")),
    )
    op.create_index("ix_image_scores_image", "image_scores", ["image_id"])
    op.add_column("round_progress", sa.Column("health", sa.JSON(), server_default="{}", nullable=False))


def downgrade() -> None:
    op.drop_column("round_progress", "health")
    op.drop_table("image_scores")
