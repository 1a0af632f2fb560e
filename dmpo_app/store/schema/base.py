"""Base of the tables: column types, names of constraints, and conditions on the states of rows."""

from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar

from sqlalchemy import JSON, MetaData, text
from sqlalchemy.orm import DeclarativeBase

from dmpo_app.domain.campaign import ReportReason
from dmpo_app.domain.data_import import ImportUse
from dmpo_app.domain.judging import Evidence, Verdict, VerdictAction
from dmpo_app.domain.lineage import ImageKind, PairSource, RoundStatus, Trigger
from dmpo_app.domain.prompt import PromptSource
from dmpo_app.domain.vote import Choice, Outcome, Purpose, Question, Strength
from dmpo_app.store.db.column_types import EnumText, UTCTime


class AssignmentState(StrEnum):
    """The state of an assignment.

    OPEN and REOPENED can be voted on; ANSWERED has a live vote; REOPENED had one that was undone. An OPEN one that
    expires is LAPSED, and its pair may be assigned to the same person again. A REOPENED one that expires is SPENT:
    they have voted on that pair, so it never comes back; the same goes for one whose vote was withdrawn.
    """

    OPEN = "open"
    ANSWERED = "answered"
    REOPENED = "reopened"
    LAPSED = "lapsed"
    SPENT = "spent"


CLOSED_AS = {AssignmentState.OPEN: AssignmentState.LAPSED, AssignmentState.REOPENED: AssignmentState.SPENT}
"""The state of an open assignment after it is closed."""


IS_OPEN = "state IN ('open', 'reopened')"
IS_SEEN = "state <> 'lapsed' AND purpose <> 'repeat'"
IS_REPEATED = "state <> 'lapsed' AND purpose = 'repeat'"
IS_LIVE = "undone_at IS NULL AND withdrawn_at IS NULL"
IS_TAKEN_BACK = "(undone_at > 0 OR withdrawn_at > 0)"
IS_IN_POOL = "retired_at IS NULL AND damaged_at IS NULL AND is_offered"
IS_RETIRED = "retired_at > 0"
IS_DAMAGED = "damaged_at > 0"
IS_HIDDEN = "hidden_at > 0"
IS_STRUCK = "struck_at > 0"
IS_UNENCODED = "NOT is_encoded"
IS_UNCLEARED = "cleared_at IS NULL"
IS_UNFINISHED = "status IN ('queued', 'running')"
"""Conditions of partial indexes. Queries spell them the same, without parameters, so that the index is used. Those that
compare with 0 do, since SQLite would walk through the whole index for IS NOT NULL."""


def only(condition: str) -> dict[str, Any]:
    """Options of a partial index over the rows that meet a condition; both databases spell it alike."""
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


class Table(DeclarativeBase):
    """The base class of tables. It names every constraint, so that a migration can name it too."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar = {
        datetime: UTCTime(),
        dict[str, Any]: JSON(),
        AssignmentState: EnumText(AssignmentState),
        Choice: EnumText(Choice),
        Evidence: EnumText(Evidence),
        ImageKind: EnumText(ImageKind),
        ImportUse: EnumText(ImportUse),
        Outcome: EnumText(Outcome),
        PairSource: EnumText(PairSource),
        PromptSource: EnumText(PromptSource),
        Purpose: EnumText(Purpose),
        Question: EnumText(Question),
        ReportReason: EnumText(ReportReason),
        RoundStatus: EnumText(RoundStatus),
        Strength: EnumText(Strength),
        Trigger: EnumText(Trigger),
        Verdict: EnumText(Verdict),
        VerdictAction: EnumText(VerdictAction),
    }
