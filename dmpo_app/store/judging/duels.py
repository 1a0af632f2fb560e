"""Duels between versions: pairs of two versions' images of one prompt and seed, and people's judgements of them.

A duel is a pair with the source `duel`, assigned with the purpose `duel` and answered by votes like any other pair, so
that nobody can tell it from one. Nothing is trained on it.
"""

import builtins
from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, exists, func, insert, select, text

from dmpo_app.domain.judging import DUEL_SCORES, Comparison, Duel, Judgement, NewDuel
from dmpo_app.domain.lineage import BaseModelRef, ImageKind, PairSource
from dmpo_app.domain.vote import PREFERENCES, Purpose, Question
from dmpo_app.errors import BadInputError, ConflictError, NotFoundError
from dmpo_app.store import schema
from dmpo_app.store.db.database import Database
from dmpo_app.store.files import Files
from dmpo_app.store.judging.duel_offers import find_comparisons, find_needy_study, is_between, may_be_shown
from dmpo_app.store.pairs.images import find_images, insert_image, store_image_files
from dmpo_app.store.voting.vote_queries import is_not_struck


class Duels:
    def __init__(self, database: Database, files: Files, now: Callable[[], datetime]) -> None:
        self._database = database
        self._files = files
        self._now = now

    def add(self, base: BaseModelRef, duel: NewDuel) -> Duel:
        """Store a duel: its files first, then its rows. Prompts of either side are welcome, the held-out ones included.

        It belongs to the oldest open study of its versions that still lacks duels, if there is one.

        Raises BadInputError for images that are no duel, NotFoundError for a prompt that is not in the home,
        ConflictError for one that either version was trained on, StorageFullError.
        """
        _require_duel(duel)
        versions = [image.provenance.adapter_version for image in (duel.image_a, duel.image_b)]
        with self._database.reader() as connection:  # votes behind versions never change, so this holds on
            _require_untrained(connection, base.id, duel.prompt, *versions)
        for image in (duel.image_a, duel.image_b):
            store_image_files(self._files, image)
        return self._database.write(lambda connection: self._insert(connection, base, duel))

    def comparisons(self, base: BaseModelRef) -> builtins.list[Comparison]:
        """List the versions that are to be compared now, each in question with the one that it is held to.

        The newest version that is held back, if no verdict has been acted on yet, with the live one. Without such a
        version: the live one with the one that was live before it, and with the base model. Nothing while the base
        model is live.
        """
        with self._database.reader() as connection:
            return find_comparisons(connection, base.id)

    def count_ready(self, base: BaseModelRef, version_a: int, version_b: int) -> int:
        """Count the duels of two versions that nobody has judged or holds; those of studies are left out.

        Nor has anybody judged them and taken that back: they come back to nobody.
        """
        is_lapsed = and_(
            schema.AssignmentRow.state == schema.AssignmentState.OPEN, schema.AssignmentRow.expires_at <= self._now()
        )
        assigned = exists().where(
            schema.AssignmentRow.pair_id == schema.PairRow.id,
            schema.AssignmentRow.state != schema.AssignmentState.LAPSED,
            ~is_lapsed,
        )
        query = (
            select(func.count())
            .select_from(schema.DuelRow)
            .join(schema.PairRow, schema.PairRow.id == schema.DuelRow.pair_id)
            .where(
                schema.DuelRow.base_id == base.id,
                is_between(version_a, version_b),
                schema.DuelRow.study_id.is_(None),
                schema.PairRow.num_votes == 0,
                *may_be_shown(),
                ~assigned,
            )
        )
        with self._database.reader() as connection:
            return connection.execute(query).scalar_one()

    def prompts(self, base: BaseModelRef, version_a: int, version_b: int) -> dict[str, int]:
        """The prompts that a duel of two versions may have, with the number of their duels so far, by age.

        All held-out ones, and those of the set that neither version was trained on; no retired ones.
        """
        counts = (
            select(schema.PairRow.prompt_id, func.count().label("count"))
            .select_from(schema.DuelRow)
            .join(schema.PairRow, schema.PairRow.id == schema.DuelRow.pair_id)
            .where(schema.DuelRow.base_id == base.id, is_between(version_a, version_b))
            .group_by(schema.PairRow.prompt_id)
            .subquery()
        )
        query = (
            select(schema.PromptRow.text, func.coalesce(counts.c.count, 0))
            .outerjoin(counts, counts.c.prompt_id == schema.PromptRow.id)
            .where(
                schema.PromptRow.retired_at.is_(None),
                schema.PromptRow.folded.not_in(_trained_on(base.id, version_a, version_b)),
            )
            .order_by(schema.PromptRow.id)
        )
        with self._database.reader() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def judgements(
        self, base: BaseModelRef, version_a: int, version_b: int, *, question: Question = Question.OVERALL
    ) -> builtins.list[Judgement]:
        """List the judgements of two versions on a question, in the order they were given.

        All are about `version_a` against `version_b`, whichever way round a duel is stored. Skips and "both are bad"
        say nothing; judgements of struck annotators, and of duels that reports have retired, are left out.
        """
        rows = self._judgement_rows(base, question, is_between(version_a, version_b))
        return [judgement_from_row(row, is_turned=row.version_a != version_a) for row in rows]

    def all_judgements(self, base: BaseModelRef, *, question: Question = Question.OVERALL) -> builtins.list[Judgement]:
        """List the judgements of all versions on a question, in the order they were given, as `judgements` does.

        `version_a` of each is the higher of its two versions.
        """
        rows = self._judgement_rows(base, question)
        return [judgement_from_row(row, is_turned=row.version_a < row.version_b) for row in rows]

    def list(
        self,
        base: BaseModelRef,
        *,
        versions: tuple[int, int] | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> builtins.list[Duel]:
        """List duels with their images, the newest first: all, or those of two versions.

        `before`: only those with a smaller pair id.
        """
        query = _duels_query().where(schema.DuelRow.base_id == base.id)
        if versions is not None:
            query = query.where(is_between(*versions))
        if before is not None:
            query = query.where(schema.DuelRow.pair_id < before)
        with self._database.reader() as connection:
            rows = connection.execute(query.order_by(schema.DuelRow.pair_id.desc()).limit(limit)).all()
            images = find_images(connection, [image for row in rows for image in (row.image_a_id, row.image_b_id)])
        return [
            Duel(
                row.pair_id,
                row.text,
                row.version_a,
                row.version_b,
                images[row.image_a_id],
                images[row.image_b_id],
                row.num_votes,
                row.study_id,
            )
            for row in rows
        ]

    def _judgement_rows(
        self, base: BaseModelRef, question: Question, *conditions: ColumnElement[bool]
    ) -> builtins.list[Row[*tuple[Any, ...]]]:
        query = judgements_query(base.id, schema.VoteRow.question == question, *conditions)
        with self._database.reader() as connection:
            return builtins.list(connection.execute(query))

    def _insert(self, connection: Connection, base: BaseModelRef, duel: NewDuel) -> Duel:
        at = self._now()
        version_a, version_b = (image.provenance.adapter_version for image in (duel.image_a, duel.image_b))
        prompt_id = _require_prompt(connection, duel.prompt).id
        image_a = insert_image(connection, self._files, base, duel.image_a, ImageKind.PAIR, at=at)
        image_b = insert_image(connection, self._files, base, duel.image_b, ImageKind.PAIR, at=at)
        study_id = find_needy_study(connection, base.id, version_a, version_b)
        pair_id = connection.execute(
            insert(schema.PairRow)
            .values(
                base_id=base.id,
                prompt_id=prompt_id,
                image_a_id=image_a.id,
                image_b_id=image_b.id,
                source=PairSource.DUEL,
                adapter_version=max(version_a, version_b),
                created_at=at,
                is_offered=False,
                num_images=2,
            )
            .returning(schema.PairRow.id)
        ).scalar_one()
        connection.execute(
            insert(schema.DuelRow).values(
                pair_id=pair_id, base_id=base.id, version_a=version_a, version_b=version_b, study_id=study_id
            )
        )
        return Duel(pair_id, duel.prompt, version_a, version_b, image_a, image_b, 0, study_id)


def judgements_query(base_id: int, *conditions: ColumnElement[bool]) -> Select[*tuple[Any, ...]]:
    """Query of the votes on a lineage's duels that count, in the order they were given, with pair, prompt and versions.

    Skips and "both are bad" say nothing; those of struck annotators, and of duels that reports have retired, are left
    out.
    """
    return (
        select(
            schema.DuelRow.pair_id,
            schema.VoteRow.annotator_id,
            schema.PromptRow.text,
            schema.DuelRow.version_a,
            schema.DuelRow.version_b,
            schema.VoteRow.outcome,
            schema.VoteRow.question,
        )
        .select_from(schema.VoteRow)
        .join(schema.DuelRow, schema.DuelRow.pair_id == schema.VoteRow.pair_id)
        .join(schema.PairRow, schema.PairRow.id == schema.VoteRow.pair_id)
        .join(schema.PromptRow, schema.PromptRow.id == schema.PairRow.prompt_id)
        .where(
            schema.VoteRow.base_id == base_id,
            schema.VoteRow.purpose == Purpose.DUEL,
            schema.VoteRow.outcome.in_(PREFERENCES),
            text(schema.IS_LIVE),
            is_not_struck(),
            schema.PairRow.retired_at.is_(None),
            *conditions,
        )
        .order_by(schema.VoteRow.id)
    )


def judgement_from_row(row: Row[*tuple[Any, ...]], *, is_turned: bool = False) -> Judgement:
    """The judgement of a vote on a duel, with the two versions turned round or as they are stored."""
    score = DUEL_SCORES[row.outcome]
    versions = (row.version_b, row.version_a) if is_turned else (row.version_a, row.version_b)
    return Judgement(row.annotator_id, row.text, *versions, 1 - score if is_turned else score, row.question)


def _duels_query() -> Select[*tuple[Any, ...]]:
    return (
        select(
            schema.DuelRow.pair_id,
            schema.DuelRow.version_a,
            schema.DuelRow.version_b,
            schema.DuelRow.study_id,
            schema.PairRow.image_a_id,
            schema.PairRow.image_b_id,
            schema.PairRow.num_votes,
            schema.PromptRow.text,
        )
        .join(schema.PairRow, schema.PairRow.id == schema.DuelRow.pair_id)
        .join(schema.PromptRow, schema.PromptRow.id == schema.PairRow.prompt_id)
    )


def _trained_on(base_id: int, *versions: int) -> Select[*tuple[Any, ...]]:
    """Query of the folded prompts that any of these versions was trained on."""
    return (
        select(schema.PromptRow.folded)
        .select_from(schema.AdapterVoteRow)
        .join(schema.VoteRow, schema.VoteRow.id == schema.AdapterVoteRow.vote_id)
        .join(schema.PairRow, schema.PairRow.id == schema.VoteRow.pair_id)
        .join(schema.PromptRow, schema.PromptRow.id == schema.PairRow.prompt_id)
        .where(schema.AdapterVoteRow.base_id == base_id, schema.AdapterVoteRow.version.in_(versions))
    )


def _require_duel(duel: NewDuel) -> None:
    made_a, made_b = duel.image_a.provenance, duel.image_b.provenance
    if {made_a.prompt, made_b.prompt} != {duel.prompt}:
        raise BadInputError(f"the images of a duel of {duel.prompt!r} were made from other prompts")
    if made_a.seed != made_b.seed:
        raise BadInputError(f"the images of a duel were made with two seeds, {made_a.seed} and {made_b.seed}")
    if made_a.adapter_version == made_b.adapter_version:
        raise BadInputError(f"both images of a duel were made with version {made_a.adapter_version}")
    if (duel.image_a.width, duel.image_a.height) != (duel.image_b.width, duel.image_b.height):
        raise BadInputError("the images of a duel differ in size, which would tell them apart")


def _require_prompt(connection: Connection, prompt: str) -> Row[*tuple[Any, ...]]:
    """The row of a prompt of this home. Raises NotFoundError."""
    query = select(schema.PromptRow.id, schema.PromptRow.folded, schema.PromptRow.held_out)
    row = connection.execute(query.where(schema.PromptRow.text == prompt)).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no prompt {prompt!r} in this home, so there is no duel of it")
    return row


def _require_untrained(connection: Connection, base_id: int, prompt: str, *versions: int) -> None:
    """Raise NotFoundError, or ConflictError for a prompt that one of the versions was trained on."""
    row = _require_prompt(connection, prompt)
    # Held-out prompts have no pairs to be trained on. Of the others, the votes of both versions are gone through.
    trained = _trained_on(base_id, *versions).where(schema.PromptRow.folded == row.folded).limit(1)
    if not row.held_out and connection.execute(trained).first() is not None:
        raise ConflictError(f"a version was trained on the prompt {prompt!r}, so a duel of it would prove nothing")
