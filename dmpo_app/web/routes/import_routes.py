"""Data sets taken in by a running studio, for administrators: sent or named, previewed, and then taken in."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel

from dmpo_app.domain.data_import import ImportUse
from dmpo_app.exchange.importing.import_desk import Import, ImportDesk, Phase
from dmpo_app.web.authentication import AdminToken, administrator_of
from dmpo_app.web.concurrency import Lanes
from dmpo_app.web.error_responses import StudioRoute, documented, without_paths
from dmpo_app.web.services import Services

MOST_BYTES = 4 << 30
"""More goes through `dmpo import`, or by its id from the hub."""
_WRITTEN_AT_ONCE = 1 << 20
_DIGITS = 16
"""Of a length that is believed."""

Use = Annotated[
    ImportUse, Query(alias="as", description="votes: train on the answers; pairs: show the pairs to people; or both.")
]
Name = Annotated[str, Query(min_length=1, max_length=200)]


class UploadRoute(StudioRoute):
    """Takes a data set as its body."""

    max_body_bytes = MOST_BYTES


class LeftOutRow(BaseModel):
    """A row that was not taken, counted from 0, and why."""

    row: str
    reason: str


class ImportOut(BaseModel):
    """An import; while it is `reading`, every row is looked at and nothing written."""

    name: str
    use: ImportUse
    phase: Phase
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
    def of(cls, one: Import) -> ImportOut:
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


class ImportState(BaseModel):
    """The import that is at work, or the last one; null: there was none since the studio started."""

    current: ImportOut | None

    @classmethod
    def of(cls, desk: ImportDesk) -> ImportState:
        current = desk.current
        return cls(current=None if current is None else ImportOut.of(current))


def imports_router(services: Services, lanes: Lanes) -> APIRouter:
    """Routes under /api/v1/imports."""
    router = APIRouter(route_class=StudioRoute, tags=["administration"])
    desk = services.imports

    @router.get("/imports", responses=documented(401, 403))
    async def show_import(token: AdminToken) -> ImportState:
        """How far the import is."""
        administrator_of(services, token)
        return ImportState.of(desk)

    @router.post("/imports/hub", status_code=202, responses=documented(401, 403, 409))
    async def import_from_hub(token: AdminToken, name: Name, use: Use = ImportUse.BOTH) -> ImportState:
        """Preview a data set of the hub, `owner/name`. Nothing is written before `POST /imports/take-in`."""
        administrator_of(services, token)
        await lanes.rare.run(lambda: desk.read_hub(name, use))
        return ImportState.of(desk)

    @router.post("/imports/take-in", status_code=202, responses=documented(401, 403, 409, 503))
    async def take_in(token: AdminToken) -> ImportState:
        """Take in what was previewed. That it was done is on record among the administrators' acts."""
        by = administrator_of(services, token)

        def on_done(done: Import) -> None:
            added = f"{done.name}: {done.counts.pairs} pairs, {done.counts.votes} votes"
            services.store.audit.note(by, "import", added)

        desk.take_in(services.labeling.kept, on_done)
        return ImportState.of(desk)

    @router.delete("/imports", responses=documented(401, 403, 404))
    async def discard(token: AdminToken) -> ImportState:
        """Stop the import and forget it. What was taken in stays; the same file, sent again, goes on after that."""
        administrator_of(services, token)
        await lanes.rare.run(desk.discard)
        return ImportState.of(desk)

    router.include_router(_upload_router(services, lanes))
    return router


def _upload_router(services: Services, lanes: Lanes) -> APIRouter:
    router = APIRouter(route_class=UploadRoute, tags=["administration"])

    @router.post(
        "/imports",
        status_code=202,
        responses=documented(401, 403, 409, 413, 507),
        openapi_extra={
            "requestBody": {
                "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
                "required": True,
            }
        },
    )
    async def send(request: Request, token: AdminToken, name: Name, use: Use = ImportUse.BOTH) -> ImportState:
        """Send a data set, the body, to be previewed: .parquet, .jsonl, .json, or a .zip of such files and images.

        At most 4 GiB. `name` is the file's name. Nothing is written before `POST /imports/take-in`.
        """
        administrator_of(services, token)  # before a byte of the body is read
        length = request.headers.get("Content-Length", "")
        with ExitStack() as stack:
            receiving = services.imports.receiving(
                name, use, int(length) if length.isdecimal() and len(length) < _DIGITS else 0
            )
            write = await lanes.rare.run(lambda: stack.enter_context(receiving))
            waiting = bytearray()
            async for chunk in request.stream():
                waiting += chunk
                if len(waiting) >= _WRITTEN_AT_ONCE:
                    await lanes.rare.run(partial(write, bytes(waiting)))
                    waiting.clear()
            await lanes.rare.run(partial(write, bytes(waiting)))
        return ImportState.of(services.imports)

    return router
