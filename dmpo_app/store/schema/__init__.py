"""The tables of the database.

    base_models ─┬─ adapters ─ adapter_votes        annotators ─┐
                 ├─ rounds ─ round_votes, round_progress        │
                 ├─ images ─┤ image_scores                      │
                 ├─ studies, verdicts, version_effects          │
    prompts ─────┴──────────┴─ pairs ─┬ assignments ─ votes ────┤
                                      ├ pair_margins            │
                                      ├ set_images ─ images     │
                                      ├ duels ─ studies         │
                                      └ reports ────────────────┤
    audit_log, consent_texts            consents, invite_uses ──┘ invites
    imports ─ imported_pairs, imported_votes, import_left_out          home

A base model owns a lineage: nothing of one refers to anything of another. Version 0 of every lineage is the base model
itself; it has a row, so that whatever names a version can be held to it by a foreign key. Prompts, with their tags and
proposals, are shared by all lineages, and triggers keep those held out of training from ever having pairs other than
duels, which nothing is trained on. Votes, round_votes, adapter_votes, live_changes, reports, consents, consent_texts,
audit_log, imported_pairs, imported_votes, duels and verdicts are append-only; what is taken back is stamped.
"""

from dmpo_app.store.schema.base import (
    CLOSED_AS,
    IS_DAMAGED,
    IS_HIDDEN,
    IS_IN_POOL,
    IS_LIVE,
    IS_OPEN,
    IS_REPEATED,
    IS_RETIRED,
    IS_SEEN,
    IS_STRUCK,
    IS_TAKEN_BACK,
    IS_UNCLEARED,
    IS_UNENCODED,
    IS_UNFINISHED,
    AssignmentState,
    Table,
)
from dmpo_app.store.schema.campaign_tables import (
    AuditRow,
    ConsentRow,
    ConsentTextRow,
    HomeRow,
    ImportedPairRow,
    ImportedVoteRow,
    ImportLeftOutRow,
    ImportRow,
    InviteRow,
    InviteUseRow,
    PromptProposalRow,
    PromptRow,
    PromptTagRow,
    ReportRow,
)
from dmpo_app.store.schema.judging_tables import DuelRow, StudyRow, VerdictRow, VersionEffectsRow
from dmpo_app.store.schema.labeling_tables import (
    AnnotatorRow,
    AssignmentRow,
    BaseModelRow,
    ImageRow,
    ImageScoreRow,
    PairMarginRow,
    PairRow,
    PromptEmbedsRow,
    SetImageRow,
    VoteRow,
)
from dmpo_app.store.schema.training_tables import (
    AdapterRow,
    AdapterVoteRow,
    LeaseRow,
    LiveChangeRow,
    RoundProgressRow,
    RoundRow,
    RoundVoteRow,
)

__all__ = [
    "CLOSED_AS",
    "IS_DAMAGED",
    "IS_HIDDEN",
    "IS_IN_POOL",
    "IS_LIVE",
    "IS_OPEN",
    "IS_REPEATED",
    "IS_RETIRED",
    "IS_SEEN",
    "IS_STRUCK",
    "IS_TAKEN_BACK",
    "IS_UNCLEARED",
    "IS_UNENCODED",
    "IS_UNFINISHED",
    "AdapterRow",
    "AdapterVoteRow",
    "AnnotatorRow",
    "AssignmentRow",
    "AssignmentState",
    "AuditRow",
    "BaseModelRow",
    "ConsentRow",
    "ConsentTextRow",
    "DuelRow",
    "HomeRow",
    "ImageRow",
    "ImageScoreRow",
    "ImportLeftOutRow",
    "ImportRow",
    "ImportedPairRow",
    "ImportedVoteRow",
    "InviteRow",
    "InviteUseRow",
    "LeaseRow",
    "LiveChangeRow",
    "PairMarginRow",
    "PairRow",
    "PromptEmbedsRow",
    "PromptProposalRow",
    "PromptRow",
    "PromptTagRow",
    "ReportRow",
    "RoundProgressRow",
    "RoundRow",
    "RoundVoteRow",
    "SetImageRow",
    "StudyRow",
    "Table",
    "VerdictRow",
    "VersionEffectsRow",
    "VoteRow",
]
