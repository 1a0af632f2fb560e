"""Import routes for administrators: upload a data set or name one of the hub, preview it, then import it."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel

from dmpo_app.domain.data_import import ImportUse
from dmpo_app.exchange.importing.import_desk import ImportJob, ImportPhase, ImportService
from dmpo_app.web.authentication import AdminToken, require_administrator
from dmpo_app.web.concurrency import RequestLimiters
from dmpo_app.web.error_responses import StudioRoute, document_errors, without_paths
from dmpo_app.web.services import Services

MOST_BYTES = 4 << 30
"""More goes through `dmpo import`, or by its id from the hub."""
_WRITE_CHUNK_BYTES = 1 << 20
_DIGITS = 16
"""Digits of a Content-Length that is believed."""

Use = Annotated[
    ImportUse, Query(alias="as", description="votes: train on the votes; pairs: show the pairs to people; or both.")
]
Name = Annotated[str, Query(min_length=1, max_length=200)]


class DatasetUploadRoute(StudioRoute):
    """A route whose body is a data set file."""

    max_body_bytes = MOST_BYTES


class LeftOutRow(BaseModel):
    """A row left out of the import, counted from 0, and the reason."""

    row: str
    reason: str


class ImportOut(BaseModel):
    """An import; while it is `reading`, every row is checked and nothing written."""

    name: str
    use: ImportUse
    phase: ImportPhase
    format: str
    total_bytes: int
    num_bytes: int
    total_rows: int
    is_resumed: bool
    rows: int
    pairs: int
    votes: int
    ties: int
    unlabelled: int
    duplicates: int
    left_out: dict[str, int]
    left_out_rows: list[LeftOutRow]
    problem: str

    @classmethod
    def from_import(cls, one: ImportJob) -> ImportOut:
        counts = one.counts
        return cls(
            name=one.name,
            use=one.use,
            phase=one.phase,
            format=one.format,
            total_bytes=one.total_bytes,
            num_bytes=one.num_bytes,
            total_rows=one.total_rows,
            is_resumed=one.is_resumed,
            rows=counts.rows,
            pairs=counts.pairs,
            votes=counts.votes,
            ties=counts.ties,
            unlabelled=counts.unlabelled,
            duplicates=counts.duplicates,
            left_out=dict(counts.left_out),
            left_out_rows=[LeftOutRow(row=row, reason=reason) for row, reason in one.left_out],
            problem=without_paths(one.problem),
        )


class CurrentImportOut(BaseModel):
    """The current import, or the last one; null: there was none since the studio started."""

    current: ImportOut | None

    @classmethod
    def from_desk(cls, desk: ImportService) -> CurrentImportOut:
        current = desk.current
        return cls(current=None if current is None else ImportOut.from_import(current))


def imports_router(services: Services, limiters: RequestLimiters) -> APIRouter:
    """Routes under /api/v1/imports."""
    router = APIRouter(route_class=StudioRoute, tags=["administration"])
    desk = services.imports

    @router.get("/imports", responses=document_errors(401, 403))
    async def show_import(token: AdminToken) -> CurrentImportOut:
        """Progress of the current import."""
        require_administrator(services, token)
        return CurrentImportOut.from_desk(desk)

    @router.post("/imports/hub", status_code=202, responses=document_errors(401, 403, 409))
    async def import_from_hub(token: AdminToken, name: Name, use: Use = ImportUse.BOTH) -> CurrentImportOut:
        """Preview a data set of the hub, `owner/name`. Nothing is written before `POST /imports/take-in`."""
        require_administrator(services, token)
        await limiters.background.run(lambda: desk.read_hub(name, use))
        return CurrentImportOut.from_desk(desk)

    @router.post("/imports/take-in", status_code=202, responses=document_errors(401, 403, 409, 503))
    async def take_in(token: AdminToken) -> CurrentImportOut:
        """Import what was previewed. Recorded in the audit log."""
        by = require_administrator(services, token)

        def on_done(finished_import: ImportJob) -> None:
            summary = (
                f"{finished_import.name}: {finished_import.counts.pairs} pairs, {finished_import.counts.votes} votes"
            )
            services.store.audit.record(by, "import", summary)

        desk.start_import(services.labeling.durable_write, on_done)
        return CurrentImportOut.from_desk(desk)

    @router.delete("/imports", responses=document_errors(401, 403, 404))
    async def discard(token: AdminToken) -> CurrentImportOut:
        """Stop the import and forget it. Imported rows stay; the same file, sent again, goes on after them."""
        require_administrator(services, token)
        await limiters.background.run(desk.discard)
        return CurrentImportOut.from_desk(desk)

    router.include_router(_upload_router(services, limiters))
    return router


def _upload_router(services: Services, limiters: RequestLimiters) -> APIRouter:
    router = APIRouter(route_class=DatasetUploadRoute, tags=["administration"])

    @router.post(
        "/imports",
        status_code=202,
        responses=document_errors(401, 403, 409, 413, 507),
        openapi_extra={
            "requestBody": {
                "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
                "required": True,
            }
        },
    )
    async def send(request: Request, token: AdminToken, name: Name, use: Use = ImportUse.BOTH) -> CurrentImportOut:
        """Upload a data set, the body, for a preview: .parquet, .jsonl, .json, or a .zip of such files and images.

        At most 4 GiB. `name` is the file's name. Nothing is written before `POST /imports/take-in`.
        """
        require_administrator(services, token)  # before a byte of the body is read
        length = request.headers.get("Content-Length", "")
        with ExitStack() as stack:
            upload = services.imports.receive_file(
                name, use, int(length) if length.isdecimal() and len(length) < _DIGITS else 0
            )
            write = await limiters.background.run(lambda: stack.enter_context(upload))
            buffer = bytearray()
            async for chunk in request.stream():
                buffer += chunk
                if len(buffer) >= _WRITE_CHUNK_BYTES:
                    await limiters.background.run(partial(write, bytes(buffer)))
                    buffer.clear()
            await limiters.background.run(partial(write, bytes(buffer)))
        return CurrentImportOut.from_desk(services.imports)

    return router
