"""Damage to the files of a home, remembered: pairs out of the pool whose images are damaged, latents to be made anew.

An image is what people judge: while one of a pair is missing or does not match its hash, nobody is assigned the pair;
votes given before count as before. Latents and embeddings are what rounds train on: pairs that lost some count as not
encoded, so rounds leave their votes out until the renderer has encoded them again. Both end by themselves once the
files are whole.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import PurePosixPath
from typing import Literal

from sqlalchemy import ColumnElement, Connection, Select, TextClause, exists, func, or_, select, text, update
from sqlalchemy.orm import aliased

from dmpo_app.domain.lineage import BaseModelRef, PairSource
from dmpo_app.errors import DamagedFileError
from dmpo_app.store import schema
from dmpo_app.store.db.database import Database
from dmpo_app.store.files import Files
from dmpo_app.store.pairs.images import find_images
from dmpo_app.store.pairs.pairs import find_set_images, join_training_files
from dmpo_app.store.voting.assignments import close_open_assignments

_BATCH = 500
"""Rows in one statement, since databases bound the number of parameters."""


@dataclass(frozen=True, slots=True)
class DamagedPair:
    """A pair with damaged files. `lost` "images": it is out of the pool; "tensors": it is to be encoded again."""

    pair_id: int
    prompt: str
    lost: Literal["images", "tensors"]
    since: datetime | None


_A, _B = aliased(schema.ImageRow), aliased(schema.ImageRow)
_HAD_TENSORS = join_training_files(
    select(
        schema.PairRow.id,
        _A.latents_sha256.label("latents_a"),
        _B.latents_sha256.label("latents_b"),
        schema.PromptEmbedsRow.sha256.label("embeds"),
    ).select_from(schema.PairRow),
    _A,
    _B,
).where(text(schema.IS_UNENCODED), _A.latents_sha256.is_not(None))


class Damage:
    def __init__(self, database: Database, files: Files, now: Callable[[], datetime]) -> None:
        self._database = database
        self._files = files
        self._now = now

    def record(self, error: DamagedFileError) -> None:
        """Record a file that was found damaged when it was read. What names no file of a home changes nothing."""
        self.record_paths([error.path])

    def record_paths(self, paths: Iterable[str]) -> None:
        """Record damaged files by their paths below the home; doing so twice changes nothing."""
        by_folder: dict[str, list[str]] = {"images": [], "latents": [], "embeds": []}
        for path in map(PurePosixPath, paths):
            if path.parts and path.parts[0] in by_folder:
                by_folder[path.parts[0]].append(path.stem)
        work = {"images": self._lose_images, "latents": self._lose_latents, "embeds": self._lose_embeds}
        for folder, names in by_folder.items():
            for start in range(0, len(names), _BATCH):
                self._database.write(partial(work[folder], names[start : start + _BATCH]))

    def recheck(self, *, limit: int, after: int = 0) -> int:
        """Check images again that were found damaged, `limit` from the id above `after` on; clear those that are whole.

        Returns the last id that was checked, 0 when there are no more.
        """
        query = select(schema.ImageRow.id, schema.ImageRow.sha256).where(text(schema.IS_DAMAGED))
        with self._database.reader() as connection:
            page = query.where(schema.ImageRow.id > after).order_by(schema.ImageRow.id).limit(limit)
            rows = connection.execute(page).all()
        self.clear({row.sha256 for row in rows if self._files.is_image_whole(row.sha256)})
        return rows[-1].id if len(rows) == limit else 0

    def clear(self, sha256s: Collection[str]) -> None:
        """Clear the marks of images that are whole again; pairs with no other damaged image rejoin the pool."""
        names = list(sha256s)
        for start in range(0, len(names), _BATCH):
            self._database.write(partial(_clear, names[start : start + _BATCH]))

    def recheck_tensors(self) -> None:
        """Check the tensors of all pairs that are to be encoded again; those that are whole need not be."""
        with self._database.reader() as connection:
            rows = connection.execute(_HAD_TENSORS).all()
            more = find_set_images(connection, [row.id for row in rows])
            images = find_images(connection, [image_id for ids in more.values() for image_id in ids])
        whole = [
            row.id
            for row in rows
            if _all_whole(
                self._files.is_latents_whole,
                [row.latents_a, row.latents_b, *(images[one].latents_sha256 for one in more.get(row.id, ()))],
            )
            and _all_whole(self._files.is_embeds_whole, [row.embeds])
        ]
        for start in range(0, len(whole), _BATCH):
            self._database.write(partial(_mark_encoded, whole[start : start + _BATCH]))

    def marked_images(self) -> set[str]:
        """The hashes of images that are marked as damaged."""
        query = select(schema.ImageRow.sha256).where(text(schema.IS_DAMAGED))
        with self._database.reader() as connection:
            return set(connection.execute(query).scalars())

    def count(self, base: BaseModelRef) -> int:
        """Count the pairs out of the pool since an image of theirs is damaged."""
        query = select(func.count()).select_from(schema.PairRow).where(text(schema.IS_DAMAGED))
        with self._database.reader() as connection:
            return connection.execute(query.where(schema.PairRow.base_id == base.id)).scalar_one()

    def list(self, base: BaseModelRef | None = None, *, limit: int = 100) -> "list[DamagedPair]":
        """List pairs with damaged images, longest known first, then those to be encoded again; at most `limit` of each.

        Of one lineage or of all.
        """
        columns = (schema.PairRow.id, schema.PromptRow.text, schema.PairRow.damaged_at)
        query = select(*columns).join(schema.PromptRow, schema.PromptRow.id == schema.PairRow.prompt_id)
        if base is not None:
            query = query.where(schema.PairRow.base_id == base.id)
        without_images = query.where(text(schema.IS_DAMAGED)).order_by(schema.PairRow.damaged_at, schema.PairRow.id)
        a = schema.ImageRow
        had_latents = exists().where(a.id == schema.PairRow.image_a_id, a.latents_sha256.is_not(None))
        without_tensors = query.where(text(schema.IS_UNENCODED), had_latents).order_by(schema.PairRow.id)
        with self._database.reader() as connection:
            images = [
                DamagedPair(row.id, row.text, "images", row.damaged_at)
                for row in connection.execute(without_images.limit(limit))
            ]
            tensors = [
                DamagedPair(row.id, row.text, "tensors", None)
                for row in connection.execute(without_tensors.limit(limit))
            ]
        return images + tensors

    def _lose_images(self, names: Collection[str], connection: Connection) -> None:
        now = self._now()
        lost = (schema.ImageRow.sha256.in_(names), schema.ImageRow.damaged_at.is_(None))
        connection.execute(update(schema.ImageRow).where(*lost).values(damaged_at=now))
        with_lost = _pairs_with(schema.ImageRow.sha256.in_(names))
        of_lost = (schema.PairRow.id.in_(with_lost), schema.PairRow.damaged_at.is_(None))
        pair_ids = list(connection.execute(select(schema.PairRow.id).where(*of_lost)).scalars())
        connection.execute(update(schema.PairRow).where(schema.PairRow.id.in_(pair_ids)).values(damaged_at=now))
        close_open_assignments(connection, pair_ids)

    def _lose_latents(self, names: Collection[str], connection: Connection) -> None:
        of_lost = schema.PairRow.id.in_(_pairs_with(schema.ImageRow.latents_sha256.in_(names)))
        connection.execute(update(schema.PairRow).where(of_lost).values(is_encoded=False))

    def _lose_embeds(self, names: Collection[str], connection: Connection) -> None:
        of_lost = exists().where(
            schema.PromptEmbedsRow.base_id == schema.PairRow.base_id,
            schema.PromptEmbedsRow.prompt_id == schema.PairRow.prompt_id,
            schema.PromptEmbedsRow.sha256.in_(names),
        )
        not_a_duel = schema.PairRow.source != PairSource.DUEL  # nothing is trained on those
        connection.execute(update(schema.PairRow).where(of_lost, not_a_duel).values(is_encoded=False))


def _all_whole(is_whole: Callable[[str], bool], names: Iterable[str | None]) -> bool:
    """True when all of these files are there and match their hashes."""
    return all(name is not None and is_whole(name) for name in names)


def _pairs_with(condition: ColumnElement[bool] | TextClause) -> Select[int]:
    """Query of the pairs and sets that have an image of which the condition holds."""
    image_ids = select(schema.ImageRow.id).where(condition)
    sets = select(schema.SetImageRow.pair_id).where(schema.SetImageRow.image_id.in_(image_ids))
    return select(schema.PairRow.id).where(
        or_(
            schema.PairRow.image_a_id.in_(image_ids),
            schema.PairRow.image_b_id.in_(image_ids),
            schema.PairRow.id.in_(sets),
        )
    )


def _mark_encoded(pair_ids: Collection[int], connection: Connection) -> None:
    connection.execute(update(schema.PairRow).where(schema.PairRow.id.in_(pair_ids)).values(is_encoded=True))


def _clear(names: Collection[str], connection: Connection) -> None:
    connection.execute(update(schema.ImageRow).where(schema.ImageRow.sha256.in_(names)).values(damaged_at=None))
    still_damaged = _pairs_with(text(schema.IS_DAMAGED))
    whole = (text(schema.IS_DAMAGED), schema.PairRow.id.not_in(still_damaged))
    connection.execute(update(schema.PairRow).where(*whole).values(damaged_at=None))
