"""Several questions a pair; strength, comment and withdrawal of votes; reports, consents, invitations, the audit log.

Going down keeps what the older schema can say: votes on further questions and withdrawn ones count as taken back.
Reports, and which pairs they took out of the pool, agreements, invitations and the audit log are lost.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_LIVE_BEFORE = "undone_at IS NULL"
_LIVE = "undone_at IS NULL AND withdrawn_at IS NULL"
_SEEN = "state <> 'lapsed'"

_VOTE_COLUMNS = "id, assignment_id, base_id, annotator_id, pair_id, choice, outcome, elapsed_ms, created_at"
_REPORT_COLUMNS = "id, base_id, pair_id, annotator_id, reason, text, created_at"

# name: (table, event, condition). Those of the first schema were made on SQLite only; see `_others_have_none_before`.
_BEFORE = {
    "votes_are_never_deleted": ("votes", "DELETE", None),
    "votes_are_never_changed": ("votes", f"UPDATE OF {_VOTE_COLUMNS}", None),
    "votes_are_undone_once": ("votes", "UPDATE OF undone_at", "OLD.undone_at IS NOT NULL"),
    "round_votes_are_never_deleted": ("round_votes", "DELETE", None),
    "round_votes_are_never_changed": ("round_votes", "UPDATE", None),
    "adapter_votes_are_never_deleted": ("adapter_votes", "DELETE", None),
    "adapter_votes_are_never_changed": ("adapter_votes", "UPDATE", None),
    "live_changes_are_never_deleted": ("live_changes", "DELETE", None),
    "live_changes_are_never_changed": ("live_changes", "UPDATE", None),
}
_ADDED = {
    "votes_are_never_changed": ("votes", f"UPDATE OF {_VOTE_COLUMNS}, question, strength, comment", None),
    "votes_are_withdrawn_once": ("votes", "UPDATE OF withdrawn_at", "OLD.withdrawn_at IS NOT NULL"),
    "reports_are_never_deleted": ("reports", "DELETE", None),
    "reports_are_never_changed": ("reports", f"UPDATE OF {_REPORT_COLUMNS}", None),
    "reports_are_cleared_once": ("reports", "UPDATE OF cleared_at, cleared_by", "OLD.cleared_at IS NOT NULL"),
    "consents_are_never_deleted": ("consents", "DELETE", None),
    "consents_are_never_changed": ("consents", "UPDATE", None),
    "audit_log_is_never_deleted": ("audit_log", "DELETE", None),
    "audit_log_is_never_changed": ("audit_log", "UPDATE", None),
}


def upgrade() -> None:
    _drop_trigger("votes_are_never_changed")
    _annotators_pairs_assignments()
    _votes()
    op.create_index("ix_adapter_votes_vote", "adapter_votes", ["vote_id"])
    _reports()
    _consents()
    _invites()
    _audit_log()
    if not _is_sqlite():
        _others_have_none_before()
    for name, what in _ADDED.items():
        _create_trigger(name, *what)


def downgrade() -> None:
    for name in _ADDED:
        _drop_trigger(name)
    _count_only_what_the_older_schema_knows()
    for table in ("audit_log", "invite_uses", "invites", "consents", "reports"):
        op.drop_table(table)
    op.drop_index("ix_adapter_votes_vote", "adapter_votes")
    _votes_as_before()
    _annotators_pairs_assignments_as_before()
    if _is_sqlite():
        _create_trigger("votes_are_never_changed", *_BEFORE["votes_are_never_changed"])
        return
    for name in _BEFORE:
        _drop_trigger(name)
    op.execute("DROP FUNCTION studio_refuses()")


def _annotators_pairs_assignments() -> None:
    op.add_column("annotators", sa.Column("identity", sa.String(length=64), nullable=True))
    op.create_index("uq_annotators_identity", "annotators", ["identity"], unique=True)
    op.add_column("pairs", sa.Column("retired_at", sa.BigInteger(), nullable=True))
    op.drop_index("ix_pairs_offer", "pairs")
    op.drop_index("ix_pairs_unjudged", "pairs")
    _index("ix_pairs_offer", "pairs", _OFFER, only="retired_at IS NULL")
    _index("ix_pairs_unjudged", "pairs", ["base_id", "num_votes", "adapter_version", "retired_at"])
    _index("ix_pairs_retired", "pairs", ["retired_at"], only="retired_at > 0")
    op.drop_index("uq_assignments_seen_once", "assignments")
    columns = ["annotator_id", "pair_id", "question"]
    _index("uq_assignments_seen_once", "assignments", columns, unique=True, only=_SEEN)


_OFFER = ["base_id", "num_taken", sa.literal_column("adapter_version DESC"), "id"]


def _annotators_pairs_assignments_as_before() -> None:
    op.drop_index("uq_assignments_seen_once", "assignments")
    _index("uq_assignments_seen_once", "assignments", ["annotator_id", "pair_id"], unique=True, only=_SEEN)
    for name in ("ix_pairs_offer", "ix_pairs_unjudged", "ix_pairs_retired"):
        op.drop_index(name, "pairs")
    op.drop_column("pairs", "retired_at")
    _index("ix_pairs_offer", "pairs", _OFFER)
    _index("ix_pairs_unjudged", "pairs", ["base_id", "num_votes", "adapter_version"])
    op.drop_index("uq_annotators_identity", "annotators")
    op.drop_column("annotators", "identity")


def _votes() -> None:
    op.add_column("votes", sa.Column("question", sa.String(length=16), server_default="overall", nullable=False))
    op.add_column("votes", sa.Column("strength", sa.String(length=16), nullable=True))
    op.add_column("votes", sa.Column("comment", sa.Text(), nullable=True))
    op.add_column("votes", sa.Column("withdrawn_at", sa.BigInteger(), nullable=True))
    for name in ("uq_votes_one_live", "ix_votes_live", "ix_votes_live_of"):
        op.drop_index(name, "votes")
    _index("uq_votes_one_live", "votes", ["assignment_id"], unique=True, only=_LIVE)
    _index("ix_votes_live", "votes", ["base_id", "question", "outcome", "id"], only=_LIVE)
    _index("ix_votes_of", "votes", ["annotator_id", "id"])


def _votes_as_before() -> None:
    for name in ("uq_votes_one_live", "ix_votes_live", "ix_votes_of"):
        op.drop_index(name, "votes")
    for column in ("withdrawn_at", "comment", "strength", "question"):
        op.drop_column("votes", column)
    _index("uq_votes_one_live", "votes", ["assignment_id"], unique=True, only=_LIVE_BEFORE)
    _index("ix_votes_live", "votes", ["base_id", "outcome", "id"], only=_LIVE_BEFORE)
    _index("ix_votes_live_of", "votes", ["annotator_id", "id"], only=_LIVE_BEFORE)


def _count_only_what_the_older_schema_knows() -> None:
    """Votes on further questions leave the counts; with withdrawn ones, which have left them, they are undone."""
    op.execute(
        "UPDATE pairs SET "
        "num_votes = num_votes - (SELECT count(*) FROM votes "
        f"WHERE votes.pair_id = pairs.id AND question <> 'overall' AND {_LIVE}), "
        "num_taken = num_taken - (SELECT count(*) FROM assignments "
        "WHERE assignments.pair_id = pairs.id AND question <> 'overall' AND state IN ('open', 'reopened', 'answered')) "
        "WHERE id IN (SELECT pair_id FROM assignments WHERE question <> 'overall')"
    )
    op.execute("UPDATE assignments SET state = 'lapsed' WHERE question <> 'overall'")
    op.execute(
        "UPDATE votes SET undone_at = COALESCE(withdrawn_at, created_at) "
        "WHERE undone_at IS NULL AND (withdrawn_at IS NOT NULL OR question <> 'overall')"
    )


def _reports() -> None:
    op.create_table(
        "reports",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("base_id", sa.Integer(), nullable=False),
        sa.Column("pair_id", sa.Integer(), nullable=False),
        sa.Column("annotator_id", sa.Integer(), nullable=False),
        sa.Column("reason", sa.String(length=16), nullable=False),
        sa.Column("text", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("cleared_at", sa.BigInteger(), nullable=True),
        sa.Column("cleared_by", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["annotator_id"], ["annotators.id"], name=op.f("fk_reports_annotator_id")),
        sa.ForeignKeyConstraint(["base_id"], ["base_models.id"], name=op.f("fk_reports_base_id")),
        sa.ForeignKeyConstraint(["pair_id"], ["pairs.id"], name=op.f("fk_reports_pair_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reports")),
    )
    _index("uq_reports_one_open", "reports", ["pair_id", "annotator_id"], unique=True, only="cleared_at IS NULL")
    _index("ix_reports_base", "reports", ["base_id", "id"])


def _consents() -> None:
    op.create_table(
        "consents",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("annotator_id", sa.Integer(), nullable=False),
        sa.Column("text_sha256", sa.String(length=64), nullable=False),
        sa.Column("version", sa.String(length=32), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["annotator_id"], ["annotators.id"], name=op.f("fk_consents_annotator_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_consents")),
        sa.UniqueConstraint(
            "annotator_id", "text_sha256", "version", name=op.f("uq_consents_annotator_id_text_sha256_version")
        ),
    )


def _invites() -> None:
    op.create_table(
        "invites",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("public_id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("max_uses", sa.Integer(), nullable=False),
        sa.Column("num_uses", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("num_uses >= 0 AND num_uses <= max_uses", name=op.f("ck_invites_uses")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_invites")),
        sa.UniqueConstraint("public_id", name=op.f("uq_invites_public_id")),
    )
    op.create_table(
        "invite_uses",
        sa.Column("annotator_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("invite_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["annotator_id"], ["annotators.id"], name=op.f("fk_invite_uses_annotator_id")),
        sa.ForeignKeyConstraint(["invite_id"], ["invites.id"], name=op.f("fk_invite_uses_invite_id")),
        sa.PrimaryKeyConstraint("annotator_id", name=op.f("pk_invite_uses")),
    )


def _audit_log() -> None:
    op.create_table(
        "audit_log",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("act", sa.String(length=32), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_log")),
    )


def _index(
    name: str,
    table: str,
    columns: Sequence[Any],
    *,
    unique: bool = False,
    only: str | None = None,
) -> None:
    where: dict[str, Any] = {}
    if only is not None:
        where = {"sqlite_where": sa.text(only), "postgresql_where": sa.text(only)}
    op.create_index(name, table, list(columns), unique=unique, **where)


def _is_sqlite() -> bool:
    return op.get_context().dialect.name == "sqlite"


def _others_have_none_before() -> None:
    """The first schema guards its append-only tables on SQLite only; elsewhere that begins here."""
    op.execute(
        "CREATE FUNCTION studio_refuses() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION USING MESSAGE = TG_ARGV[0], ERRCODE = 'integrity_constraint_violation'; END $$"
    )
    for name, what in _BEFORE.items():
        if name not in _ADDED:
            _create_trigger(name, *what)


def _create_trigger(name: str, table: str, event: str, condition: str | None) -> None:
    message, when = name.replace("_", " "), "" if condition is None else f"WHEN ({condition}) "
    if _is_sqlite():
        op.execute(f"CREATE TRIGGER {name} BEFORE {event} ON {table} {when}BEGIN SELECT RAISE(ABORT, '{message}'); END")
        return
    op.execute(
        f"CREATE TRIGGER {name} BEFORE {event} ON {table} FOR EACH ROW {when}"
        f"EXECUTE FUNCTION studio_refuses('{message}')"
    )


def _drop_trigger(name: str) -> None:
    if _is_sqlite():
        op.execute(f"DROP TRIGGER {name}")
    else:
        table = (_ADDED.get(name) or _BEFORE[name])[0]
        op.execute(f"DROP TRIGGER IF EXISTS {name} ON {table}")
