"""Tables of labeling: base models, images, pairs, annotators, assignments, votes."""

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, String, Text, true
from sqlalchemy.orm import Mapped, mapped_column

from dmpo_app.domain.lineage import ImageKind, PairSource
from dmpo_app.domain.vote import Choice, Outcome, Purpose, Question, Strength
from dmpo_app.store.schema import base


class BaseModelRow(base.Table):
    __tablename__ = "base_models"

    id: Mapped[int] = mapped_column(primary_key=True)
    source: Mapped[str] = mapped_column(Text)
    family: Mapped[str] = mapped_column(String(64))
    fingerprint: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime]


class PromptEmbedsRow(base.Table):
    """The file that holds a prompt's embeddings under one base model."""

    __tablename__ = "prompt_embeds"

    base_id: Mapped[int] = mapped_column(ForeignKey("base_models.id"), primary_key=True)
    prompt_id: Mapped[int] = mapped_column(ForeignKey("prompts.id"), primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64))


class ImageRow(base.Table):
    """An image with its provenance. Ids are never used twice, since renders are deleted in time.

    `damaged_at`: when its file was found to be missing or not to match its hash; None while it is whole.
    """

    __tablename__ = "images"
    __table_args__ = (
        ForeignKeyConstraint(["base_id", "adapter_version"], ["adapters.base_id", "adapters.version"]),
        Index("ix_images_base_id_kind_adapter_version", "base_id", "kind", "adapter_version"),
        Index("ix_images_sha256", "sha256"),
        Index("ix_images_latents_sha256", "latents_sha256"),
        Index("ix_images_damaged", "damaged_at", **base.only(base.IS_DAMAGED)),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    base_id: Mapped[int] = mapped_column(ForeignKey("base_models.id"))
    kind: Mapped[ImageKind]
    sha256: Mapped[str] = mapped_column(String(64))
    latents_sha256: Mapped[str | None] = mapped_column(String(64))
    width: Mapped[int]
    height: Mapped[int]
    prompt: Mapped[str] = mapped_column(Text)
    seed: Mapped[int] = mapped_column(BigInteger)
    sampler: Mapped[str] = mapped_column(String(32))
    num_steps: Mapped[int]
    guidance: Mapped[float]
    adapter_version: Mapped[int]
    strength: Mapped[float]
    batch_size: Mapped[int]
    num_threads: Mapped[int]
    device: Mapped[str] = mapped_column(String(64))
    dtype: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime]
    damaged_at: Mapped[datetime | None]


class ImageScoreRow(base.Table):
    """A score of an image under its own prompt. `scorer` names the automatic scorer and its weights."""

    __tablename__ = "image_scores"

    scorer: Mapped[str] = mapped_column(String(160), primary_key=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id", ondelete="CASCADE"), primary_key=True)
    score: Mapped[float]
    created_at: Mapped[datetime]

    __table_args__ = (Index("ix_image_scores_image", "image_id"),)


class PairRow(base.Table):
    """A pair: two images of one prompt, or a set of three or four of which these are the first two.

    `num_votes`: its live votes. `num_taken`: live votes and open assignments together, which is what orders the pairs
    that are offered; a vote moves a pair's claim from one kind to the other and leaves this number alone. Votes on
    every question count, also those on repeats. `retired_at`: by reports out of the pool since then, its votes count no
    more. `hidden_at`: by reports offered to nobody since then, while its votes go on counting. `damaged_at`: out of the
    pool since then, since one of its images is damaged; its votes go on counting.
    `gold`: the right outcome, where an administrator has set one; such a pair is mixed in, never offered by itself.
    `is_offered`: whether it is shown to people at all; one that was imported for its votes is not. `is_encoded`: if it
    has latents and embeddings; until then its votes are not trained on.
    """

    __tablename__ = "pairs"

    id: Mapped[int] = mapped_column(primary_key=True)
    base_id: Mapped[int] = mapped_column(ForeignKey("base_models.id"))
    prompt_id: Mapped[int] = mapped_column(ForeignKey("prompts.id"))
    image_a_id: Mapped[int] = mapped_column(ForeignKey("images.id"), unique=True)
    image_b_id: Mapped[int] = mapped_column(ForeignKey("images.id"), unique=True)
    source: Mapped[PairSource]
    adapter_version: Mapped[int] = mapped_column()
    num_votes: Mapped[int] = mapped_column(default=0)
    num_taken: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime]
    retired_at: Mapped[datetime | None] = mapped_column()
    hidden_at: Mapped[datetime | None] = mapped_column()
    gold: Mapped[Outcome | None] = mapped_column()
    is_offered: Mapped[bool] = mapped_column(default=True, server_default=true())
    is_encoded: Mapped[bool] = mapped_column(default=True, server_default=true())
    num_images: Mapped[int] = mapped_column(server_default="2")
    damaged_at: Mapped[datetime | None] = mapped_column()

    __table_args__ = (
        ForeignKeyConstraint(["base_id", "adapter_version"], ["adapters.base_id", "adapters.version"]),
        CheckConstraint("num_votes >= 0 AND num_taken >= num_votes", name="counts"),
        CheckConstraint("image_a_id <> image_b_id", name="two_images"),
        Index(
            "ix_pairs_offer", base_id, num_images, num_taken, adapter_version.desc(), id, **base.only(base.IS_IN_POOL)
        ),
        Index("ix_pairs_unjudged", base_id, num_images, num_votes, adapter_version, retired_at),
        Index("ix_pairs_retired", retired_at, **base.only(base.IS_RETIRED)),
        Index("ix_pairs_damaged", damaged_at, **base.only(base.IS_DAMAGED)),
        Index("ix_pairs_hidden", hidden_at, **base.only(base.IS_HIDDEN)),
        Index("ix_pairs_prompt", base_id, prompt_id),
        Index("ix_pairs_unencoded", base_id, id, **base.only(base.IS_UNENCODED)),
    )


class SetImageRow(base.Table):
    """The third and fourth image of a set that is ranked; a set is a pair with more images. `position`: 2 or 3."""

    __tablename__ = "set_images"

    pair_id: Mapped[int] = mapped_column(ForeignKey("pairs.id"), primary_key=True, autoincrement=False)
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), unique=True)


class PairMarginRow(base.Table):
    """The policy's implicit margin on a pair, u at beta = 1, under the newest version it was computed for."""

    __tablename__ = "pair_margins"

    pair_id: Mapped[int] = mapped_column(ForeignKey("pairs.id"), primary_key=True, autoincrement=False)
    adapter_version: Mapped[int]
    margin: Mapped[float]


class AnnotatorRow(base.Table):
    """An annotator: a session of a person. The handle is a name they chose, not a credential: several may share one.

    `identity` is a keyed hash of who they are at a provider, for those who signed in: theirs is one annotator.
    `struck_at`: since when an administrator lets nothing of theirs count.
    """

    __tablename__ = "annotators"

    id: Mapped[int] = mapped_column(primary_key=True)
    public_id: Mapped[str] = mapped_column(String(32), unique=True)
    handle: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime]
    identity: Mapped[str | None] = mapped_column(String(64))
    struck_at: Mapped[datetime | None]

    __table_args__ = (
        Index("uq_annotators_identity", "identity", unique=True),
        Index("ix_annotators_struck", "struck_at", **base.only(base.IS_STRUCK)),
    )


class AssignmentRow(base.Table):
    """An assignment of a pair to one annotator, with one question.

    `opened_at`: when it was issued, or reopened by undoing a vote. `arrangement`: the images of a set as they were
    shown, by letter, "cab"; None for a pair.
    """

    __tablename__ = "assignments"

    id: Mapped[int] = mapped_column(primary_key=True)
    public_id: Mapped[str] = mapped_column(String(32), unique=True)
    base_id: Mapped[int] = mapped_column(ForeignKey("base_models.id"))
    annotator_id: Mapped[int] = mapped_column(ForeignKey("annotators.id"))
    pair_id: Mapped[int] = mapped_column(ForeignKey("pairs.id"))
    question: Mapped[Question]
    a_on_left: Mapped[bool]
    state: Mapped[base.AssignmentState]
    created_at: Mapped[datetime]
    opened_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    purpose: Mapped[Purpose] = mapped_column(server_default="vote")
    arrangement: Mapped[str | None] = mapped_column(String(4))

    __table_args__ = (
        Index(
            "uq_assignments_seen_once",
            "annotator_id",
            "pair_id",
            "question",
            unique=True,
            **base.only(base.IS_SEEN),
        ),
        Index(
            "uq_assignments_repeated_once",
            "annotator_id",
            "pair_id",
            "question",
            unique=True,
            **base.only(base.IS_REPEATED),
        ),
        Index(
            "ix_assignments_open",
            "expires_at",
            "pair_id",
            **base.only(base.IS_OPEN),
        ),
        Index(
            "ix_assignments_open_of",
            "annotator_id",
            "base_id",
            **base.only(base.IS_OPEN),
        ),
        Index("ix_assignments_pair", "pair_id"),
    )


class VoteRow(base.Table):
    """A vote. Append-only: undoing it stamps `undone_at`, withdrawing it `withdrawn_at`, each once.

    A trigger refuses anything else. `ranking`: the images of a set by letter, best first; `choice` and `outcome` then
    say which of a and b is better.
    """

    __tablename__ = "votes"

    id: Mapped[int] = mapped_column(primary_key=True)
    assignment_id: Mapped[int] = mapped_column(ForeignKey("assignments.id"))
    base_id: Mapped[int] = mapped_column(ForeignKey("base_models.id"))
    annotator_id: Mapped[int] = mapped_column(ForeignKey("annotators.id"))
    pair_id: Mapped[int] = mapped_column(ForeignKey("pairs.id"))
    choice: Mapped[Choice]
    outcome: Mapped[Outcome]
    elapsed_ms: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime]
    undone_at: Mapped[datetime | None]
    question: Mapped[Question] = mapped_column(server_default="overall")
    strength: Mapped[Strength | None]
    comment: Mapped[str | None] = mapped_column(Text)
    withdrawn_at: Mapped[datetime | None]
    purpose: Mapped[Purpose] = mapped_column(server_default="vote")
    ranking: Mapped[str | None] = mapped_column(String(4))

    __table_args__ = (
        Index(
            "uq_votes_one_live",
            "assignment_id",
            unique=True,
            **base.only(base.IS_LIVE),
        ),
        Index(
            "ix_votes_live",
            "base_id",
            "question",
            "purpose",
            "outcome",
            "id",
            **base.only(base.IS_LIVE),
        ),
        Index("ix_votes_of", "annotator_id", "id"),
        Index("ix_votes_taken_back", "base_id", "id", **base.only(base.IS_TAKEN_BACK)),
    )
