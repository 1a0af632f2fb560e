"""Pairs of images of one prompt, with votes or without, and what is kept for them: scores, margins, gold answers."""

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, bindparam, delete, func, insert, select, text, update
from sqlalchemy.orm import aliased

from dmpo_app.domain.lineage import BaseModelRef, ImageKind, NewPair, Pair, PairSource, TrainingPair
from dmpo_app.domain.vote import MAX_SET, PAIR_SIZE, PREFERENCES, Outcome
from dmpo_app.errors import BadInputError, NotFoundError
from dmpo_app.store import schema
from dmpo_app.store.audit import record_act
from dmpo_app.store.db.database import Database
from dmpo_app.store.files import Files
from dmpo_app.store.pairs.images import find_images, insert_image
from dmpo_app.store.prompts import ensure_prompts

_TRAINING_BATCH = 500
"""Pairs in one statement, since databases bound the number of parameters."""
_SCORE_BATCH = 500
"""Images in one statement, since databases bound the number of parameters."""


@cache
def _unjudged_query(of_one_version: bool) -> Select[*tuple[Any, ...]]:
    """Query of the number of pairs without votes and open assignments.

    Takes `base_id`, `num_images`, `now` and `adapter_version`.
    """
    # Unvoted pairs less those out for a vote: both sides are small index ranges however many pairs there are.
    condition = [
        schema.PairRow.base_id == bindparam("base_id"),
        schema.PairRow.num_images == bindparam("num_images"),
        schema.PairRow.num_votes == 0,
        schema.PairRow.retired_at.is_(None),
        schema.PairRow.damaged_at.is_(None),
        schema.PairRow.hidden_at.is_(None),
        schema.PairRow.gold.is_(None),
        schema.PairRow.is_offered,
    ]
    if of_one_version:
        condition.append(schema.PairRow.adapter_version == bindparam("adapter_version"))
    unvoted = select(func.count()).select_from(schema.PairRow).where(*condition).scalar_subquery()
    assigned = (
        select(func.count(schema.AssignmentRow.pair_id.distinct()))
        .join(schema.PairRow, schema.PairRow.id == schema.AssignmentRow.pair_id)
        .where(text(schema.IS_OPEN), schema.AssignmentRow.expires_at > bindparam("now"), *condition)
        .scalar_subquery()
    )
    return select(unvoted - assigned)


class Pairs:
    def __init__(self, database: Database, files: Files, now: Callable[[], datetime]) -> None:
        self._database = database
        self._files = files
        self._now = now

    def add(self, base: BaseModelRef, pair: NewPair) -> Pair:
        """Store one pair, as `add_many` does."""
        return self.add_many(base, [pair])[0]

    def add_many(self, base: BaseModelRef, pairs: Sequence[NewPair]) -> list[Pair]:
        """Store pairs: their files first, then all of them in one transaction.

        Raises ConflictError for a held-out prompt, StorageFullError, and BadInputError for a pair that cannot be
        trained on: without latents, or with images of two prompts or versions.
        """
        for pair in pairs:
            _require_trainable(pair)
        images = [image for pair in pairs for image in pair.images]
        with self._database.reader() as connection:
            prompts_with_embeds = _prompts_with_embeds(connection, base)
        self._files.put_all(
            images=[image.png for image in images],
            latents=[image.latents for image in images if image.latents is not None],
            embeds=list(
                {pair.prompt: pair.prompt_embeds for pair in pairs if pair.prompt not in prompts_with_embeds}.values()
            ),
        )
        return self._database.write(lambda connection: self._insert(connection, base, pairs))

    def get(self, pair_id: int) -> Pair:
        """Get a pair by id. Raises NotFoundError."""
        query = (
            select(
                schema.PairRow.image_a_id,
                schema.PairRow.image_b_id,
                schema.PairRow.source,
                schema.PairRow.adapter_version,
                schema.PromptRow.text,
            )
            .join(schema.PromptRow, schema.PromptRow.id == schema.PairRow.prompt_id)
            .where(schema.PairRow.id == pair_id)
        )
        with self._database.reader() as connection:
            row = connection.execute(query).one_or_none()
            if row is None:
                raise NotFoundError(f"there is no pair {pair_id}")
            more_ids = find_set_images(connection, [pair_id]).get(pair_id, ())
            images = find_images(connection, (row.image_a_id, row.image_b_id, *more_ids))
        a, b, *more = (images[image_id] for image_id in (row.image_a_id, row.image_b_id, *more_ids))
        return Pair(pair_id, row.text, a, b, row.source, row.adapter_version, tuple(more))

    def count(self, base: BaseModelRef) -> int:
        """Count all pairs of a lineage."""
        with self._database.reader() as connection:
            return connection.execute(
                select(func.count()).select_from(schema.PairRow).where(schema.PairRow.base_id == base.id)
            ).scalar_one()

    def count_unjudged(
        self, base: BaseModelRef, *, adapter_version: int | None = None, num_images: int = PAIR_SIZE
    ) -> int:
        """Count the pairs, or sets of `num_images`, in the pool without a live vote or open assignment.

        All, or of one version. Gold pairs are not among them.
        """
        parameters = {
            "base_id": base.id,
            "num_images": num_images,
            "adapter_version": adapter_version,
            "now": self._now(),
        }
        with self._database.reader() as connection:
            return int(connection.execute(_unjudged_query(adapter_version is not None), parameters).scalar_one())

    def for_training(
        self, base: BaseModelRef, *, ids: Sequence[int] | None = None, unjudged: int = 0
    ) -> list[TrainingPair]:
        """List pairs with the files that training needs, by id.

        Those of `ids`, or the newest `unjudged` of the pool without a live vote. Pairs whose images or prompt have no
        tensors stored are left out.
        """
        if ids is None:
            conditions = (
                schema.PairRow.base_id == base.id,
                schema.PairRow.num_votes == 0,
                schema.PairRow.gold.is_(None),
            )
            newest = select(schema.PairRow.id).where(*conditions, schema.PairRow.is_encoded, text(schema.IS_IN_POOL))
            with self._database.reader() as connection:
                query = newest.order_by(schema.PairRow.id.desc()).limit(unjudged)
                ids = sorted(connection.execute(query).scalars())
        with self._database.reader() as connection:
            return [
                TrainingPair(*row)
                for start in range(0, len(ids), _TRAINING_BATCH)
                for row in connection.execute(_training_pairs(base, ids[start : start + _TRAINING_BATCH]))
            ]

    def prompt_counts(self, base: BaseModelRef) -> dict[str, int]:
        """Count the pairs of each prompt that has any, without duels."""
        query = (
            select(schema.PromptRow.text, func.count())
            .join(schema.PairRow, schema.PairRow.prompt_id == schema.PromptRow.id)
            .where(schema.PairRow.base_id == base.id, schema.PairRow.source != PairSource.DUEL)
            .group_by(schema.PromptRow.id, schema.PromptRow.text)
        )
        with self._database.reader() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def _insert(self, connection: Connection, base: BaseModelRef, pairs: Sequence[NewPair]) -> list[Pair]:
        at = self._now()
        prompts = ensure_prompts(connection, [pair.prompt for pair in pairs], held_out=False, at=at)
        prompts_with_embeds = _prompts_with_embeds(connection, base)
        stored_pairs = []
        for pair, prompt in zip(pairs, prompts, strict=True):
            if prompt.text not in prompts_with_embeds:
                sha256 = self._files.put_embeds(pair.prompt_embeds)
                connection.execute(
                    insert(schema.PromptEmbedsRow).values(base_id=base.id, prompt_id=prompt.id, sha256=sha256)
                )
                prompts_with_embeds.add(prompt.text)
            image_a = insert_image(connection, self._files, base, pair.image_a, ImageKind.PAIR, at=at)
            image_b = insert_image(connection, self._files, base, pair.image_b, ImageKind.PAIR, at=at)
            version = pair.image_a.provenance.adapter_version
            pair_id = connection.execute(
                insert(schema.PairRow)
                .values(
                    base_id=base.id,
                    prompt_id=prompt.id,
                    image_a_id=image_a.id,
                    image_b_id=image_b.id,
                    source=pair.source,
                    adapter_version=version,
                    created_at=at,
                    num_images=len(pair.images),
                )
                .returning(schema.PairRow.id)
            ).scalar_one()
            more = tuple(
                insert_image(connection, self._files, base, image, ImageKind.PAIR, at=at) for image in pair.more
            )
            for position, image in enumerate(more, PAIR_SIZE):
                connection.execute(
                    insert(schema.SetImageRow).values(pair_id=pair_id, position=position, image_id=image.id)
                )
            stored_pairs.append(Pair(pair_id, pair.prompt, image_a, image_b, pair.source, version, more))
        return stored_pairs


def join_training_files(
    query: Select[*tuple[Any, ...]], a: type[schema.ImageRow], b: type[schema.ImageRow]
) -> Select[*tuple[Any, ...]]:
    """Join a query over pairs with prompts, images and embeddings, as training needs them.

    The two images are the aliases `a` and `b`; the embeddings are those of the pair's base model. Pairs without
    embeddings fall out.
    """
    return (
        query.join(schema.PromptRow, schema.PromptRow.id == schema.PairRow.prompt_id)
        .join(a, a.id == schema.PairRow.image_a_id)
        .join(b, b.id == schema.PairRow.image_b_id)
        .join(
            schema.PromptEmbedsRow,
            (schema.PromptEmbedsRow.prompt_id == schema.PairRow.prompt_id)
            & (schema.PromptEmbedsRow.base_id == schema.PairRow.base_id),
        )
    )


def find_set_images(connection: Connection, pair_ids: Sequence[int]) -> dict[int, tuple[int, ...]]:
    """Find the ids of images c and d of sets, by pair id."""
    query = select(schema.SetImageRow.pair_id, schema.SetImageRow.image_id).where(
        schema.SetImageRow.pair_id.in_(pair_ids)
    )
    images_by_pair: dict[int, tuple[int, ...]] = {}
    for pair_id, image_id in connection.execute(
        query.order_by(schema.SetImageRow.pair_id, schema.SetImageRow.position)
    ):
        images_by_pair[pair_id] = (*images_by_pair.get(pair_id, ()), image_id)
    return images_by_pair


def _training_pairs(base: BaseModelRef, ids: Sequence[int]) -> Select[*tuple[Any, ...]]:
    a, b = aliased(schema.ImageRow), aliased(schema.ImageRow)
    columns = (
        schema.PairRow.id,
        schema.PromptRow.text,
        a.id,
        b.id,
        a.sha256,
        b.sha256,
        a.latents_sha256,
        b.latents_sha256,
        schema.PromptEmbedsRow.sha256,
    )
    return (
        join_training_files(select(*columns).select_from(schema.PairRow), a, b)
        .where(schema.PairRow.base_id == base.id, schema.PairRow.id.in_(ids))
        .where(a.latents_sha256.is_not(None), b.latents_sha256.is_not(None))
        .order_by(schema.PairRow.id)
    )


def _require_trainable(pair: NewPair) -> None:
    if len(pair.images) > MAX_SET:
        raise BadInputError(f"a set of {pair.prompt!r} has {len(pair.images)} images; at most {MAX_SET} can be ranked")
    if any(image.latents is None for image in pair.images):
        raise BadInputError(f"a pair of {pair.prompt!r} came without latents; a round is trained on them")
    if {image.provenance.prompt for image in pair.images} != {pair.prompt}:
        raise BadInputError(f"the images of a pair of {pair.prompt!r} were made from other prompts")
    if len({image.provenance.adapter_version for image in pair.images}) > 1:
        raise BadInputError(f"the images of a pair of {pair.prompt!r} were made with two versions")


def _prompts_with_embeds(connection: Connection, base: BaseModelRef) -> set[str]:
    query = (
        select(schema.PromptRow.text)
        .join(schema.PromptEmbedsRow, schema.PromptEmbedsRow.prompt_id == schema.PromptRow.id)
        .where(schema.PromptEmbedsRow.base_id == base.id)
    )
    return set(connection.execute(query).scalars())


class Scores:
    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    def get(self, scorer: str, image_ids: Sequence[int]) -> dict[int, float]:
        """Get the stored scores of these images, by image id. `scorer` is a scorer's identity."""
        with self._database.reader() as connection:
            return _find_scores(connection, scorer, image_ids)

    def put(self, scorer: str, scores: Mapping[int, float]) -> None:
        """Record scores by image id; those recorded already stay. Raises BadInputError for one that is not finite."""
        self.put_all({scorer: scores})

    def put_all(self, scores_by_scorer: Mapping[str, Mapping[int, float]]) -> None:
        """Record the scores of several scorers in one transaction; see `put`."""
        for scorer, scores in scores_by_scorer.items():
            if non_finite_ids := [image_id for image_id, score in scores.items() if not math.isfinite(score)]:
                raise BadInputError(f"the scorer {scorer} gave image {non_finite_ids[0]} a score that is not finite")

        def work(connection: Connection) -> None:
            for scorer, scores in scores_by_scorer.items():
                _insert_missing_scores(connection, scorer, scores, at=self._now())

        self._database.write(work)


def _insert_missing_scores(connection: Connection, scorer: str, scores: Mapping[int, float], *, at: datetime) -> None:
    stored_scores = _find_scores(connection, scorer, list(scores))
    rows = [
        {"scorer": scorer, "image_id": image_id, "score": score, "created_at": at}
        for image_id, score in scores.items()
        if image_id not in stored_scores
    ]
    if rows:
        connection.execute(insert(schema.ImageScoreRow), rows)


def _find_scores(connection: Connection, scorer: str, image_ids: Sequence[int]) -> dict[int, float]:
    scores: dict[int, float] = {}
    for start in range(0, len(image_ids), _SCORE_BATCH):
        query = select(schema.ImageScoreRow.image_id, schema.ImageScoreRow.score).where(
            schema.ImageScoreRow.scorer == scorer,
            schema.ImageScoreRow.image_id.in_(image_ids[start : start + _SCORE_BATCH]),
        )
        scores.update({row.image_id: row.score for row in connection.execute(query)})
    return scores


class PairMargins:
    def __init__(self, database: Database) -> None:
        self._database = database

    def list_missing(self, base: BaseModelRef, version: int, *, limit: int) -> list[int]:
        """List pairs of the pool without a live vote and without a margin under a version, newest first."""
        query = (
            select(schema.PairRow.id)
            .outerjoin(schema.PairMarginRow, schema.PairMarginRow.pair_id == schema.PairRow.id)
            .where(
                schema.PairRow.base_id == base.id,
                schema.PairRow.num_votes == 0,
                schema.PairRow.gold.is_(None),
                text(schema.IS_IN_POOL),
                schema.PairRow.is_encoded,
                schema.PairMarginRow.adapter_version.is_distinct_from(version),
            )
            .order_by(schema.PairRow.id.desc())
            .limit(limit)
        )
        with self._database.reader() as connection:
            return list(connection.execute(query).scalars())

    def put(self, version: int, margins: Mapping[int, float]) -> None:
        """Record margins by pair id, in place of those of another version. Raises BadInputError for one not finite."""
        if non_finite_ids := [pair_id for pair_id, margin in margins.items() if not math.isfinite(margin)]:
            raise BadInputError(f"the margin of pair {non_finite_ids[0]} under version {version} is not finite")
        rows = [
            {"pair_id": pair_id, "adapter_version": version, "margin": margin} for pair_id, margin in margins.items()
        ]

        def work(connection: Connection) -> None:
            connection.execute(delete(schema.PairMarginRow).where(schema.PairMarginRow.pair_id.in_(margins)))
            connection.execute(insert(schema.PairMarginRow), rows)

        if rows:
            self._database.write(work)


class GoldPairs:
    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    def right_outcomes(self, base: BaseModelRef) -> dict[int, Outcome]:
        """The right outcome of each gold pair, by pair id."""
        query = select(schema.PairRow.id, schema.PairRow.gold).where(
            schema.PairRow.base_id == base.id, schema.PairRow.gold.is_not(None)
        )
        with self._database.reader() as connection:
            return {row.id: row.gold for row in connection.execute(query.order_by(schema.PairRow.id))}

    def set(self, base: BaseModelRef, pair_id: int, outcome: Outcome | None, *, by: str) -> None:
        """Make a pair a gold pair with this right outcome, or a pair like any other with None; an act of `by`.

        Earlier votes on it stay what they were. Raises NotFoundError, and BadInputError for an outcome that is no
        preference and for a duel.
        """
        if outcome is not None and outcome not in PREFERENCES:
            raise BadInputError(f"the right answer of a gold pair is a, b or tie, not {outcome.value}")

        def work(connection: Connection) -> None:
            conditions = (schema.PairRow.id == pair_id, schema.PairRow.base_id == base.id)
            source = connection.execute(select(schema.PairRow.source).where(*conditions)).scalar_one_or_none()
            if source is PairSource.DUEL:
                raise BadInputError(f"pair {pair_id} is a duel between two versions, which has no right answer")
            if connection.execute(update(schema.PairRow).where(*conditions).values(gold=outcome)).rowcount == 0:
                raise NotFoundError(f"there is no pair {pair_id}")
            act = "gold_removed" if outcome is None else "gold_set"
            subject = f"pair {pair_id}" if outcome is None else f"pair {pair_id}: {outcome.value}"
            record_act(connection, by, act, subject, at=self._now())

        self._database.write(work)
