"""Routes for administrators' data: votes as a file in any format, imports of data sets."""

import shutil
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Self

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse
from pydantic import BaseModel, BeforeValidator
from starlette.background import BackgroundTask
from starlette.types import Receive, Scope, Send

from dmpo_app.domain.data_import import ImportUse
from dmpo_app.domain.vote import Question
from dmpo_app.errors import BadInputError, BusyError, SetupError
from dmpo_app.exchange.exporting import ExportOptions, Selection, export_to, get_format
from dmpo_app.exchange.importing.import_desk import CONTROLS, HUB_ID, SUFFIXES, ImportJob, ImportPhase, ImportService
from dmpo_app.web.api_models import INT64_MAX
from dmpo_app.web.authentication import AdminToken, require_administrator
from dmpo_app.web.error_responses import ApiError, StudioRoute, document_admin_errors
from dmpo_app.web.services import RequestLimiters, Services
from dmpo_app.web.shown_messages import without_paths

MOST_PAIRS = 200_000
"""About 100 seconds of work and 300 MB on disk; more go out by `dmpo export`."""
_ZIP_ENTRY_TIME = (1980, 1, 1, 0, 0, 0)
"""Fixed time of the zip entries, so that the same votes are the same bytes."""


class ExportFormat(StrEnum):
    """The formats of exports."""

    PICK_A_PIC = "pick-a-pic"
    OPEN_IMAGE_PREFERENCES = "open-image-preferences"
    CHOSEN_REJECTED = "chosen-rejected"
    VOTES_JSONL = "votes-jsonl"
    VOTES_CSV = "votes-csv"


def _time_text(value: Any) -> Any:
    """Refuse numbers, which would be taken as seconds since 1970."""
    if isinstance(value, str) and value.replace(".", "", 1).lstrip("-").isdigit():
        raise ValueError("must be a time such as 2026-01-31T12:00:00Z")
    return value


Moment = Annotated[
    datetime | None, BeforeValidator(_time_text), Query(description="A time; UTC where it names no zone.")
]
Versions = Annotated[list[Annotated[int, Query(ge=0, le=INT64_MAX)]] | None, Query(max_length=100)]


@contextmanager
def _held_alone(lock: threading.Lock) -> Iterator[None]:
    """Hold the lock of the one export that may run. Raises BusyError while another holds it."""
    if not lock.acquire(blocking=False):
        raise BusyError("another export is being made; try again in a moment")
    try:
        yield
    finally:
        lock.release()


class WholeFileResponse(FileResponse):
    """A file that is sent whole, and then deleted: one that refuses a range sends nothing and runs no background."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [header for header in scope["headers"] if header[0] not in (b"range", b"if-range")]
        await super().__call__({**scope, "headers": headers}, receive, send)


def exports_router(services: Services, limiters: RequestLimiters) -> APIRouter:
    """Routes under /api/v1 about exports."""
    router = APIRouter(route_class=StudioRoute, tags=["administration"])
    one_at_a_time = threading.Lock()

    @router.get(
        "/exports/{format}",
        response_class=FileResponse,
        responses={
            200: {"content": {"application/zip": {}}, "description": "Data files, card and manifest."},
            **document_admin_errors(507),
        },
    )
    async def export(
        format: ExportFormat,
        token: AdminToken,
        since: Moment = None,
        until: Moment = None,
        question: Question | None = None,
        version: Versions = None,
        min_votes: Annotated[int, Query(ge=1, le=1_000_000)] = 1,
        min_agreement: Annotated[float, Query(ge=0, le=1)] = 0.0,
        reported: bool = False,
    ) -> FileResponse:
        """Export the votes in a format of the field, without images, hashed names; see docs/data.md. One at a time.

        That it was asked for is on record among the administrators' acts.
        """
        administrator = require_administrator(services, token)
        selection = Selection(
            since=_aware(since),
            until=_aware(until),
            versions=frozenset(version or ()),
            question=question,
            min_votes=min_votes,
            min_agreement=min_agreement,
            reported=reported,
        )

        def work() -> Path:
            with _held_alone(one_at_a_time):
                path = _export_to_zip(services, format.value, selection)
                services.store.audit.record(administrator, "export", format.value)
                return path

        try:
            path = await limiters.background.run(work)
        except SetupError as error:  # parquet without pyarrow: nothing that asking again would mend
            raise ApiError(501, "unavailable", str(error)) from error
        return WholeFileResponse(
            path,
            media_type="application/zip",
            filename=f"{format.value}.zip",
            background=BackgroundTask(shutil.rmtree, path.parent),
        )

    return router


def _export_to_zip(services: Services, name: str, selection: Selection) -> Path:
    """Write the export as a zip in a temporary folder of its own, which the caller deletes."""
    store, base = services.store, services.base
    count = store.pairs.count(base)
    if count > MOST_PAIRS:
        raise BadInputError(
            f"{count} pairs are too many for one request, at most {MOST_PAIRS}; use the command dmpo export"
        )
    folder = Path(tempfile.mkdtemp(prefix="dmpo-export-"))
    try:
        content, archive = folder / "export", folder / "export.zip"
        options = ExportOptions(with_images=False)
        export_to(content, store, base, services.settings, get_format(name), selection, options)
        with zipfile.ZipFile(archive, "w") as file:
            for path in sorted(path for path in content.rglob("*") if path.is_file()):
                info = zipfile.ZipInfo(path.relative_to(content).as_posix(), _ZIP_ENTRY_TIME)
                info.compress_type = zipfile.ZIP_DEFLATED
                with path.open("rb") as source, file.open(info, "w") as target:
                    shutil.copyfileobj(source, target)
        shutil.rmtree(content)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return archive


def _aware(moment: datetime | None) -> datetime | None:
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


MOST_BYTES = 4 << 30
"""More goes through `dmpo import`, or by its id from the hub."""
_WRITE_CHUNK_BYTES = 1 << 20
_DIGITS = 16
"""Digits of a Content-Length that is believed."""

Use = Annotated[
    ImportUse, Query(alias="as", description="votes: train on the votes; pairs: show the pairs to people; or both.")
]
_ENDINGS = "|".join(suffix.removeprefix(".") for suffix in SUFFIXES)
FileName = Annotated[
    str, Query(min_length=1, max_length=200, json_schema_extra={"pattern": rf"^[^/\\{CONTROLS}]+\.({_ENDINGS})$"})
]
HubName = Annotated[str, Query(min_length=1, max_length=200, json_schema_extra={"pattern": f"^{HUB_ID.pattern}$"})]


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
    def from_import(cls, one: ImportJob) -> Self:
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
    def from_desk(cls, desk: ImportService) -> Self:
        current = desk.current
        return cls(current=None if current is None else ImportOut.from_import(current))


def imports_router(services: Services, limiters: RequestLimiters) -> APIRouter:
    """Routes under /api/v1/imports."""
    router = APIRouter(route_class=StudioRoute, tags=["administration"])
    desk = services.imports

    @router.get("/imports", responses=document_admin_errors())
    async def show_import(token: AdminToken) -> CurrentImportOut:
        """Progress of the current import."""
        require_administrator(services, token)
        return CurrentImportOut.from_desk(desk)

    @router.post("/imports/hub", status_code=202, responses=document_admin_errors(409))
    async def import_from_hub(token: AdminToken, name: HubName, use: Use = ImportUse.BOTH) -> CurrentImportOut:
        """Preview a data set of the hub, `owner/name`. Nothing is written before `POST /imports/take-in`."""
        require_administrator(services, token)
        await limiters.background.run(lambda: desk.read_hub(name, use))
        return CurrentImportOut.from_desk(desk)

    @router.post("/imports/take-in", status_code=202, responses=document_admin_errors(409))
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

    @router.delete("/imports", responses=document_admin_errors(404))
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
        responses=document_admin_errors(409, 413, 507),
        openapi_extra={
            "requestBody": {
                "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
                "required": True,
            }
        },
    )
    async def send(request: Request, token: AdminToken, name: FileName, use: Use = ImportUse.BOTH) -> CurrentImportOut:
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
