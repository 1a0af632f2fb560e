"""Imports: data sets of other people's pairs and votes, stored batch by batch."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, bindparam, func, insert, select, text, update
from sqlalchemy.orm import aliased

from dmpo_app.domain import data_import
from dmpo_app.domain.lineage import BaseModelRef, ImageRef
from dmpo_app.domain.vote import PAIR_SIZE
from dmpo_app.store import schema
from dmpo_app.store.db.database import Database
from dmpo_app.store.files import Files
from dmpo_app.store.imports.import_ledger import DuplicateIndex
from dmpo_app.store.imports.import_rows import ImportContext, insert_batch
from dmpo_app.store.pairs.images import find_images
from dmpo_app.store.pairs.pairs import find_set_images


def _unencoded() -> Select[*tuple[Any, ...]]:
    a, b = aliased(schema.ImageRow), aliased(schema.ImageRow)
    columns: tuple[Any, ...] = (
        schema.PairRow.id,
        schema.PromptRow.text,
        a.sha256,
        b.sha256,
        schema.PromptEmbedsRow.sha256,
        a.latents_sha256,
        b.latents_sha256,
        schema.PairRow.num_images,
    )
    return (
        select(*columns)
        .join(schema.PromptRow, schema.PromptRow.id == schema.PairRow.prompt_id)
        .join(a, a.id == schema.PairRow.image_a_id)
        .join(b, b.id == schema.PairRow.image_b_id)
        .outerjoin(
            schema.PromptEmbedsRow,
            (schema.PromptEmbedsRow.prompt_id == schema.PairRow.prompt_id)
            & (schema.PromptEmbedsRow.base_id == schema.PairRow.base_id),
        )
        .where(
            schema.PairRow.base_id == bindparam("base_id"),
            schema.PairRow.id > bindparam("after"),
            text(schema.IS_UNENCODED),
        )
        .order_by(schema.PairRow.id)
        .limit(bindparam("limit"))
    )


# Built once, since they are run several times a second.
_UNENCODED = _unencoded()
_NUM_UNENCODED = (
    select(func.count())
    .select_from(schema.PairRow)
    .where(schema.PairRow.base_id == bindparam("base_id"), text(schema.IS_UNENCODED))
)
_NUM_IMPORTED = (
    select(func.count())
    .select_from(schema.ImportedPairRow)
    .where(schema.ImportedPairRow.base_id == bindparam("base_id"))
)


class Imports:
    def __init__(self, database: Database, files: Files, now: Callable[[], datetime]) -> None:
        self._database = database
        self._files = files
        self._now = now

    def begin(self, base: BaseModelRef, spec: data_import.ImportSpec) -> data_import.ImportRecord:
        """Begin an import, or get the one that was begun before."""

        def work(connection: Connection) -> data_import.ImportRecord:
            query = select(schema.ImportRow).where(schema.ImportRow.base_id == base.id, *_matches(spec))
            row = connection.execute(query).one_or_none()
            if row is None:
                now = self._now()
                values = {"base_id": base.id, "created_at": now, "changed_at": now, **asdict(spec)}
                connection.execute(insert(schema.ImportRow).values(counts={}, **values))
                row = connection.execute(query).one()
            return _record_from_row(row)

        return self._database.write(work)

    def find(self, base: BaseModelRef, spec: data_import.ImportSpec) -> data_import.ImportRecord | None:
        """Find an import that was begun, else None."""
        with self._database.reader() as connection:
            row = connection.execute(
                select(schema.ImportRow).where(schema.ImportRow.base_id == base.id, *_matches(spec))
            ).one_or_none()
        return None if row is None else _record_from_row(row)

    def all(self, base: BaseModelRef) -> list[data_import.ImportRecord]:
        """List the imports of a lineage in the order they were begun."""
        with self._database.reader() as connection:
            rows = connection.execute(
                select(schema.ImportRow).where(schema.ImportRow.base_id == base.id).order_by(schema.ImportRow.id)
            )
            return [_record_from_row(row) for row in rows]

    def load_duplicates(
        self, base: BaseModelRef, index: DuplicateIndex, pairs: Sequence[data_import.ImportedPair]
    ) -> None:
        """Load the stored pairs and votes among these into an index of duplicates."""
        with self._database.reader() as connection:
            index.load(connection, base.id, pairs)

    def store_images(self, batch: data_import.ImportBatch) -> dict[str, str]:
        """Store the images of a batch; returns their names by the original files' hash. Raises StorageFullError."""
        images = [image for pair in batch.pairs for image in (pair.image_a, pair.image_b)]
        pngs = {image.sha256: image.png for image in images if image.png is not None}
        return dict(zip(pngs, self._files.put_images(list(pngs.values())), strict=True))

    def insert_batch(
        self,
        base: BaseModelRef,
        state: data_import.ImportRecord,
        batch: data_import.ImportBatch,
        stored_names: Mapping[str, str],
    ) -> Future[data_import.ImportRecord]:
        """Insert a batch and its bookmark in one transaction. `stored_names`: the result of `store_images`.

        Duplicates are not stored again. Pairs of prompts that are held out, or have a twin that is, are left out with
        that as the reason. The future raises StorageFullError; ConflictError when another process inserted this batch.
        """
        context = ImportContext(self._files, base, state, stored_names, self._now())

        def work(connection: Connection) -> data_import.ImportRecord:
            counts = insert_batch(connection, context=context, batch=batch)
            return data_import.ImportRecord(state.id, state.spec, batch.bookmark, counts, batch.is_last)

        return self._database.submit(work)

    def left_out(self, import_id: int) -> Iterator[tuple[str, str]]:
        """Iterate over (row, reason) of everything an import left out, in no particular order."""
        query = select(schema.ImportLeftOutRow.source_row, schema.ImportLeftOutRow.reason).where(
            schema.ImportLeftOutRow.import_id == import_id
        )
        with self._database.reader() as connection:
            rows = connection.execute(query).all()
        return ((row.source_row, row.reason) for row in rows)

    def encoding_progress(self, base: BaseModelRef) -> data_import.EncodingProgress | None:
        """The progress of encoding imported pairs; None when all have latents, which is cheap to see."""
        parameters = {"base_id": base.id}
        with self._database.reader() as connection:
            missing = connection.execute(_NUM_UNENCODED, parameters).scalar_one()
            if missing == 0:
                return None
            count = connection.execute(_NUM_IMPORTED, parameters).scalar_one()
            # More are missing than were imported where pairs made here lost their latents.
            return data_import.EncodingProgress(max(0, count - missing), max(count, missing))

    def list_unencoded(self, base: BaseModelRef, *, after: int, limit: int) -> list[data_import.UnencodedPair]:
        """List pairs without latents by id, those with an id above `after`."""
        parameters = {"base_id": base.id, "after": after, "limit": limit}
        with self._database.reader() as connection:
            rows = connection.execute(_UNENCODED, parameters).all()
            sets = find_set_images(connection, [row.id for row in rows if row.num_images > PAIR_SIZE])
            images = find_images(connection, [image_id for ids in sets.values() for image_id in ids])
        return [_unencoded_pair(row, [images[image_id] for image_id in sets.get(row.id, ())]) for row in rows]

    def record_encoding(
        self, base: BaseModelRef, latents: Mapping[int, tuple[bytes, ...]], embeds: Mapping[str, bytes]
    ) -> None:
        """Store the latents of pairs by id, a and b and those of a set, and the embeddings of prompts.

        From now on the votes on these pairs are trained on. Raises StorageFullError.
        """
        contents = [content for of_pair in latents.values() for content in of_pair]
        self._files.put_all(images=(), latents=contents, embeds=list(embeds.values()))

        def work(connection: Connection) -> None:
            for prompt, content in embeds.items():
                self._record_embeds(connection, base, prompt, self._files.put_embeds(content))
            sets = find_set_images(connection, [pair_id for pair_id, of_pair in latents.items() if len(of_pair) > 2])
            for pair_id, of_pair in latents.items():
                pair = connection.execute(
                    select(schema.PairRow.image_a_id, schema.PairRow.image_b_id).where(schema.PairRow.id == pair_id)
                ).one()
                for image_id, content in zip((*pair, *sets.get(pair_id, ())), of_pair, strict=True):
                    # Put once more, as `insert_image` does: a purge may have deleted a file shared with a render.
                    sha256 = self._files.put_latents(content)
                    connection.execute(
                        update(schema.ImageRow).where(schema.ImageRow.id == image_id).values(latents_sha256=sha256)
                    )
                connection.execute(update(schema.PairRow).where(schema.PairRow.id == pair_id).values(is_encoded=True))

        self._database.write(work)

    def _record_embeds(self, connection: Connection, base: BaseModelRef, prompt: str, sha256: str) -> None:
        prompt_id = connection.execute(select(schema.PromptRow.id).where(schema.PromptRow.text == prompt)).scalar_one()
        of_prompt = (schema.PromptEmbedsRow.base_id == base.id, schema.PromptEmbedsRow.prompt_id == prompt_id)
        # There is a row where the embeddings were damaged.
        if connection.execute(update(schema.PromptEmbedsRow).where(*of_prompt).values(sha256=sha256)).rowcount == 0:
            values = {"base_id": base.id, "prompt_id": prompt_id, "sha256": sha256}
            connection.execute(insert(schema.PromptEmbedsRow).values(**values))


def _unencoded_pair(row: Row[*tuple[Any, ...]], more: Sequence[ImageRef]) -> data_import.UnencodedPair:
    pair_id, prompt, png_a, png_b, embeds, latents_a, latents_b, _ = row
    latents = (latents_a, latents_b, *(image.latents_sha256 for image in more))
    return data_import.UnencodedPair(
        pair_id, prompt, png_a, png_b, embeds, latents, tuple(image.sha256 for image in more)
    )


def _matches(spec: data_import.ImportSpec) -> tuple[Any, ...]:
    return (
        schema.ImportRow.fingerprint == spec.fingerprint,
        schema.ImportRow.format == spec.format,
        schema.ImportRow.use == spec.use,
        schema.ImportRow.source == spec.source,
    )


def _record_from_row(row: Row[*tuple[Any, ...]]) -> data_import.ImportRecord:
    spec = data_import.ImportSpec(row.fingerprint, row.format, row.use, row.source)
    return data_import.ImportRecord(row.id, spec, row.bookmark, data_import.ImportCounts(**row.counts), row.is_complete)
