"""Export route for administrators: the votes in any export format, without images, as a zip."""

from __future__ import annotations

import shutil
import tempfile
import threading
import zipfile
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import FileResponse
from starlette.background import BackgroundTask

from dmpo_app.domain.vote import Question
from dmpo_app.errors import BadInputError, BusyError, SetupError
from dmpo_app.exchange.exporting import ExportOptions, Selection, export_to, get_format
from dmpo_app.web.api_models import INT64_MAX
from dmpo_app.web.authentication import AdminToken, require_administrator
from dmpo_app.web.concurrency import RequestLimiters
from dmpo_app.web.error_responses import ApiError, StudioRoute, document_errors
from dmpo_app.web.services import Services

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


Moment = Annotated[datetime | None, Query(description="A time; UTC where it names no zone.")]
Versions = Annotated[list[Annotated[int, Query(ge=0, le=INT64_MAX)]] | None, Query(max_length=100)]


def exports_router(services: Services, limiters: RequestLimiters) -> APIRouter:
    """Routes under /api/v1 about exports."""
    router = APIRouter(route_class=StudioRoute, tags=["administration"])
    one_at_a_time = threading.Lock()

    @router.get(
        "/exports/{format}",
        response_class=FileResponse,
        responses={
            200: {"content": {"application/zip": {}}, "description": "Data files, card and manifest."},
            **document_errors(401, 403, 503, 507),
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
            if not one_at_a_time.acquire(blocking=False):
                raise BusyError("another export is being made; try again in a moment")
            try:
                path = _export_to_zip(services, format.value, selection)
                services.store.audit.record(administrator, "export", format.value)
                return path
            finally:
                one_at_a_time.release()

        try:
            path = await limiters.background.run(work)
        except SetupError as error:  # parquet without pyarrow: nothing that asking again would mend
            raise ApiError(501, "unavailable", str(error)) from error
        return FileResponse(
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
