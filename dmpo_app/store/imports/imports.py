"""Imports: data sets of other people's pairs and votes, taken in batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, bindparam, func, insert, select, text, update
from sqlalchemy.orm import aliased

from dmpo_app.domain.data_import import (
    EncodingProgress,
    ImportBatch,
    ImportCounts,
    ImportedPair,
    ImportSpec,
    ImportState,
    UnencodedPair,
)
from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.store.db.database import Database
from dmpo_app.store.files import Files
from dmpo_app.store.imports.import_ledger import Ledger
from dmpo_app.store.imports.import_rows import TakingIn, take_in
from dmpo_app.store.schema import (
    IS_UNENCODED,
    ImageRow,
    ImportedPairRow,
    ImportLeftOutRow,
    ImportRow,
    PairRow,
    PromptEmbedsRow,
    PromptRow,
)


def _unencoded() -> Select[*tuple[Any, ...]]:
    a, b = aliased(ImageRow), aliased(ImageRow)
    columns: tuple[Any, ...] = (PairRow.id, PromptRow.text, a.sha256, b.sha256, PromptEmbedsRow.sha256.is_not(None))
    return (
        select(*columns)
        .join(PromptRow, PromptRow.id == PairRow.prompt_id)
        .join(a, a.id == PairRow.image_a_id)
        .join(b, b.id == PairRow.image_b_id)
        .outerjoin(
            PromptEmbedsRow,
            (PromptEmbedsRow.prompt_id == PairRow.prompt_id) & (PromptEmbedsRow.base_id == PairRow.base_id),
        )
        .where(PairRow.base_id == bindparam("base_id"), PairRow.id > bindparam("after"), text(IS_UNENCODED))
        .order_by(PairRow.id)
        .limit(bindparam("limit"))
    )


# Built once, since they are run several times a second.
_UNENCODED = _unencoded()
_NUM_UNENCODED = (
    select(func.count()).select_from(PairRow).where(PairRow.base_id == bindparam("base_id"), text(IS_UNENCODED))
)
_NUM_IMPORTED = select(func.count()).select_from(ImportedPairRow).where(ImportedPairRow.base_id == bindparam("base_id"))


class Imports:
    def __init__(self, database: Database, files: Files, now: Callable[[], datetime]) -> None:
        self._database = database
        self._files = files
        self._now = now

    def begin(self, base: BaseModelRef, spec: ImportSpec) -> ImportState:
        """The import of a data set, new unless it was begun before."""

        def work(connection: Connection) -> ImportState:
            query = select(ImportRow).where(ImportRow.base_id == base.id, *_is(spec))
            row = connection.execute(query).one_or_none()
            if row is None:
                now = self._now()
                values = {"base_id": base.id, "created_at": now, "changed_at": now, **asdict(spec)}
                connection.execute(insert(ImportRow).values(counts={}, **values))
                row = connection.execute(query).one()
            return _state_of(row)

        return self._database.write(work)

    def find(self, base: BaseModelRef, spec: ImportSpec) -> ImportState | None:
        """An import that was begun, else None."""
        with self._database.reader() as connection:
            row = connection.execute(select(ImportRow).where(ImportRow.base_id == base.id, *_is(spec))).one_or_none()
        return None if row is None else _state_of(row)

    def all(self, base: BaseModelRef) -> list[ImportState]:
        """The imports of a lineage in the order they were begun."""
        with self._database.reader() as connection:
            rows = connection.execute(select(ImportRow).where(ImportRow.base_id == base.id).order_by(ImportRow.id))
            return [_state_of(row) for row in rows]

    def look_up(self, base: BaseModelRef, ledger: Ledger, pairs: Sequence[ImportedPair]) -> None:
        """Add to a ledger what is stored of these pairs and of the answers on them."""
        with self._database.reader() as connection:
            ledger.look_up(connection, base.id, pairs)

    def store_images(self, batch: ImportBatch) -> dict[str, str]:
        """Store the images of a batch; returns their names by the hashes of the files that came. Raises StorageFull."""
        images = [image for pair in batch.pairs for image in (pair.image_a, pair.image_b)]
        pngs = {image.sha256: image.png for image in images if image.png is not None}
        return dict(zip(pngs, self._files.put_images(list(pngs.values())), strict=True))

    def take_in(
        self, base: BaseModelRef, state: ImportState, batch: ImportBatch, stored: Mapping[str, str]
    ) -> Future[ImportState]:
        """Store a batch, whose images `store_images` has `stored`, and its bookmark in one transaction.

        What is there already is not stored again. Pairs of prompts that are held out, or have a twin that is, are left
        out with that as the reason. The future raises StorageFull; Conflict when another process took this batch in.
        """
        context = TakingIn(self._files, base, state, stored, self._now())

        def work(connection: Connection) -> ImportState:
            counts = take_in(connection, context=context, batch=batch)
            return ImportState(state.id, state.spec, batch.bookmark, counts, batch.is_last)

        return self._database.submit(work)

    def left_out(self, import_id: int) -> Iterator[tuple[str, str]]:
        """(row, reason) of everything an import left out, in no particular order."""
        query = select(ImportLeftOutRow.source_row, ImportLeftOutRow.reason).where(
            ImportLeftOutRow.import_id == import_id
        )
        with self._database.reader() as connection:
            rows = connection.execute(query).all()
        return ((row.source_row, row.reason) for row in rows)

    def encoding(self, base: BaseModelRef) -> EncodingProgress | None:
        """How far the encoding of imported pairs is; None when all have latents, which is cheap to see."""
        of_base = {"base_id": base.id}
        with self._database.reader() as connection:
            missing = connection.execute(_NUM_UNENCODED, of_base).scalar_one()
            if missing == 0:
                return None
            count = connection.execute(_NUM_IMPORTED, of_base).scalar_one()
            return EncodingProgress(count - missing, count)

    def unencoded(self, base: BaseModelRef, *, after: int, limit: int) -> list[UnencodedPair]:
        """Pairs without latents by id, those with an id above `after`."""
        wanted = {"base_id": base.id, "after": after, "limit": limit}
        with self._database.reader() as connection:
            return [UnencodedPair(*row) for row in connection.execute(_UNENCODED, wanted)]

    def record_encoding(
        self, base: BaseModelRef, latents: Mapping[int, tuple[bytes, bytes]], embeds: Mapping[str, bytes]
    ) -> None:
        """Store the latents (a, b) of pairs by id, and the embeddings of prompts that had none; from now on the votes
        on these pairs are trained on. Raises StorageFull."""
        contents = [content for both in latents.values() for content in both]
        self._files.put_all(images=(), latents=contents, embeds=list(embeds.values()))

        def work(connection: Connection) -> None:
            for prompt, content in embeds.items():
                self._record_embeds(connection, base, prompt, self._files.put_embeds(content))
            for pair_id, both in latents.items():
                pair = connection.execute(
                    select(PairRow.image_a_id, PairRow.image_b_id).where(PairRow.id == pair_id)
                ).one()
                for image_id, content in zip(pair, both, strict=True):
                    # Put once more, as `insert_image` does: a purge may have deleted a file shared with a render.
                    sha256 = self._files.put_latents(content)
                    connection.execute(update(ImageRow).where(ImageRow.id == image_id).values(latents_sha256=sha256))
                connection.execute(update(PairRow).where(PairRow.id == pair_id).values(is_encoded=True))

        self._database.write(work)

    def _record_embeds(self, connection: Connection, base: BaseModelRef, prompt: str, sha256: str) -> None:
        prompt_id = connection.execute(select(PromptRow.id).where(PromptRow.text == prompt)).scalar_one()
        known = select(PromptEmbedsRow.sha256).where(
            PromptEmbedsRow.base_id == base.id, PromptEmbedsRow.prompt_id == prompt_id
        )
        if connection.execute(known).first() is None:
            values = {"base_id": base.id, "prompt_id": prompt_id, "sha256": sha256}
            connection.execute(insert(PromptEmbedsRow).values(**values))


def _is(spec: ImportSpec) -> tuple[Any, ...]:
    return (
        ImportRow.fingerprint == spec.fingerprint,
        ImportRow.format == spec.format,
        ImportRow.use == spec.use,
        ImportRow.source == spec.source,
    )


def _state_of(row: Row[*tuple[Any, ...]]) -> ImportState:
    spec = ImportSpec(row.fingerprint, row.format, row.use, row.source)
    return ImportState(row.id, spec, row.bookmark, ImportCounts(**row.counts), row.is_complete)
