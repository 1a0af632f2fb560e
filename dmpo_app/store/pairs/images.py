"""Images of a home, and the base models that its lineages begin with."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, delete, insert, or_, select, update

from dmpo_app.domain.lineage import BASE_VERSION, BaseModelRef, ImageKind, ImageRef, NewImage, Provenance
from dmpo_app.errors import NotFoundError
from dmpo_app.store import schema
from dmpo_app.store.db.database import Database
from dmpo_app.store.files import Files

_PURGE_BATCH = 500
"""Rows deleted in one transaction; few, since votes wait behind it."""


class Images:
    def __init__(self, database: Database, files: Files, now: Callable[[], datetime]) -> None:
        self._database = database
        self._files = files
        self._now = now

    def add(self, base: BaseModelRef, image: NewImage, kind: ImageKind) -> ImageRef:
        """Store an image: its files first, then its row. Raises StorageFullError."""
        store_image_files(self._files, image)
        return self._database.write(
            lambda connection: insert_image(connection, self._files, base, image, kind, at=self._now())
        )

    def get(self, image_id: int) -> ImageRef:
        """Get an image by id. Raises NotFoundError."""
        with self._database.reader() as connection:
            images = find_images(connection, [image_id])
        if image_id not in images:
            raise NotFoundError(f"there is no image {image_id}; was it deleted in the meantime?")
        return images[image_id]

    def contact_sheet(self, base: BaseModelRef) -> list[ImageRef]:
        """List the contact sheet's images by version, and in the order they were rendered."""
        query = (
            select(schema.ImageRow)
            .where(schema.ImageRow.base_id == base.id, schema.ImageRow.kind == ImageKind.CONTACT_SHEET)
            .order_by(schema.ImageRow.adapter_version, schema.ImageRow.id)
        )
        with self._database.reader() as connection:
            return [image_from_row(row) for row in connection.execute(query)]

    def for_judging(self, base: BaseModelRef) -> list[ImageRef]:
        """List the undamaged images by which versions are compared, those of the contact sheet too, oldest first."""
        query = (
            select(schema.ImageRow)
            .where(
                schema.ImageRow.base_id == base.id,
                schema.ImageRow.kind.in_([ImageKind.JUDGING, ImageKind.CONTACT_SHEET]),
                schema.ImageRow.damaged_at.is_(None),
            )
            .order_by(schema.ImageRow.id)
        )
        with self._database.reader() as connection:
            return [image_from_row(row) for row in connection.execute(query)]

    def purge_judging(self, base: BaseModelRef, *, kept_versions: Collection[int], kept_ids: Collection[int]) -> int:
        """Delete the judging images of versions but these, except those of some ids; returns how many."""
        return self._purge(
            (
                schema.ImageRow.base_id == base.id,
                schema.ImageRow.kind == ImageKind.JUDGING,
                schema.ImageRow.adapter_version.not_in(kept_versions),
                schema.ImageRow.id.not_in(kept_ids),
            )
        )

    def purge_renders(self, base: BaseModelRef, older_than: datetime) -> int:
        """Delete people's renders from before a time, with the files nothing else uses; returns how many."""
        return self._purge(
            (
                schema.ImageRow.base_id == base.id,
                schema.ImageRow.kind == ImageKind.RENDER,
                schema.ImageRow.created_at < older_than,
            )
        )

    def _purge(self, conditions: Sequence[ColumnElement[bool]]) -> int:
        num_deleted = 0
        while True:
            deleted_rows = self._database.write(partial(self._delete_rows, conditions))
            if not deleted_rows:
                return num_deleted
            # After the commit, lest a failed one leave rows without files; and in a write transaction, which keeps out
            # every process that might be about to use one of these files again.
            self._database.write(partial(self._delete_files, deleted_rows))
            num_deleted += len(deleted_rows)

    def _delete_rows(
        self, conditions: Sequence[ColumnElement[bool]], connection: Connection
    ) -> list[Row[*tuple[Any, ...]]]:
        query = (
            select(schema.ImageRow.id, schema.ImageRow.sha256, schema.ImageRow.latents_sha256)
            .where(*conditions)
            .limit(_PURGE_BATCH)
        )
        rows: list[Row[*tuple[Any, ...]]] = list(connection.execute(query))
        connection.execute(delete(schema.ImageRow).where(schema.ImageRow.id.in_([row.id for row in rows])))
        return rows

    def _delete_files(self, rows: Iterable[Row[*tuple[Any, ...]]], connection: Connection) -> None:
        unused_paths: list[Path] = []
        for row in rows:
            if not _is_used(connection, row.sha256):
                unused_paths.append(self._files.image_path(row.sha256))
            if row.latents_sha256 is not None and not _is_used(connection, row.latents_sha256):
                unused_paths.append(self._files.latents_path(row.latents_sha256))
        self._files.delete(unused_paths)


def store_image_files(files: Files, image: NewImage) -> tuple[str, str | None]:
    """Store an image's files; returns their sha256: of the PNG and of the latents."""
    return files.put_image(image.png), None if image.latents is None else files.put_latents(image.latents)


def insert_image(
    connection: Connection, files: Files, base: BaseModelRef, image: NewImage, kind: ImageKind, *, at: datetime
) -> ImageRef:
    """Insert the row of an image whose files are stored.

    They are put once more, inside the transaction: that costs a hash, and closes the gap in which a purge may have
    deleted a file this image shares with a render.
    """
    sha256, latents_sha256 = store_image_files(files, image)
    image_id = connection.execute(
        insert(schema.ImageRow)
        .values(
            base_id=base.id,
            kind=kind,
            sha256=sha256,
            latents_sha256=latents_sha256,
            width=image.width,
            height=image.height,
            created_at=at,
            **asdict(image.provenance),
        )
        .returning(schema.ImageRow.id)
    ).scalar_one()
    return ImageRef(image_id, sha256, latents_sha256, image.width, image.height, image.provenance)


def find_images(connection: Connection, ids: Iterable[int]) -> dict[int, ImageRef]:
    """Find images by id; those that exist."""
    rows = connection.execute(select(schema.ImageRow).where(schema.ImageRow.id.in_(list(ids))))
    return {row.id: image_from_row(row) for row in rows}


def image_from_row(row: Row[*tuple[Any, ...]]) -> ImageRef:
    """Make an ImageRef from its row."""
    return ImageRef(
        id=row.id,
        sha256=row.sha256,
        latents_sha256=row.latents_sha256,
        width=row.width,
        height=row.height,
        provenance=Provenance(
            prompt=row.prompt,
            seed=row.seed,
            sampler=row.sampler,
            num_steps=row.num_steps,
            guidance=row.guidance,
            adapter_version=row.adapter_version,
            strength=row.strength,
            batch_size=row.batch_size,
            num_threads=row.num_threads,
            device=row.device,
            dtype=row.dtype,
        ),
    )


def _is_used(connection: Connection, sha256: str) -> bool:
    query = (
        select(schema.ImageRow.id)
        .where(or_(schema.ImageRow.sha256 == sha256, schema.ImageRow.latents_sha256 == sha256))
        .limit(1)
    )
    return connection.execute(query).first() is not None


class Models:
    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    def register(self, source: str, family: str, fingerprint: str) -> BaseModelRef:
        """Register a base model, with a new lineage if need be. The fingerprint decides; the source may have moved."""

        def work(connection: Connection) -> BaseModelRef:
            row = connection.execute(
                select(schema.BaseModelRow.id, schema.BaseModelRow.source).where(
                    schema.BaseModelRow.fingerprint == fingerprint
                )
            ).one_or_none()
            if row is None:
                return BaseModelRef(self._insert(connection, source, family, fingerprint), source, family, fingerprint)
            if row.source != source:
                connection.execute(
                    update(schema.BaseModelRow).where(schema.BaseModelRow.id == row.id).values(source=source)
                )
            return BaseModelRef(row.id, source, family, fingerprint)

        return self._database.write(work)

    def _insert(self, connection: Connection, source: str, family: str, fingerprint: str) -> int:
        at = self._now()
        base_id = connection.execute(
            insert(schema.BaseModelRow)
            .values(source=source, family=family, fingerprint=fingerprint, created_at=at)
            .returning(schema.BaseModelRow.id)
        ).scalar_one()
        connection.execute(
            insert(schema.AdapterRow).values(
                base_id=base_id, version=BASE_VERSION, num_votes=0, proven=False, metrics={}, config={}, created_at=at
            )
        )
        return base_id
