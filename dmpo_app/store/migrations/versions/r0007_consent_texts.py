"""The texts that people agreed to, word for word.

Going down loses them; that somebody agreed to a text with a hash stays.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0005"

_GUARDS = {
    "consent_texts_are_never_deleted": "DELETE",
    "consent_texts_are_never_changed": "UPDATE",
}


def upgrade() -> None:
    op.create_table(
        "consent_texts",
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("version", sa.String(length=32), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("sha256", "version", name=op.f("pk_consent_texts")),
    )
    for name, event in _GUARDS.items():
        _refuse(name, event)


def downgrade() -> None:
    op.drop_table("consent_texts")  # its triggers go with it


def _refuse(name: str, event: str) -> None:
    message = name.replace("_", " ")
    if op.get_context().dialect.name == "sqlite":
        op.execute(f"CREATE TRIGGER {name} BEFORE {event} ON consent_texts BEGIN SELECT RAISE(ABORT, '{message}'); END")
        return
    op.execute(
        f"CREATE TRIGGER {name} BEFORE {event} ON consent_texts FOR EACH ROW "
        f"EXECUTE FUNCTION studio_refuses('{message}')"
    )
