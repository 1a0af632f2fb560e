"""Versions of the model and the rounds that made them."""

from __future__ import annotations

import math
from pathlib import Path as FilePath
from typing import Annotated

from fastapi import APIRouter, Path
from fastapi.responses import FileResponse

from dmpo_app.domain.limits import MAX_VERSION
from dmpo_app.domain.lineage import BASE_VERSION, AdapterRef
from dmpo_app.domain.round import RoundState, Trigger
from dmpo_app.errors import NotFoundError
from dmpo_app.web.api_models import (
    INT64_MAX,
    AdapterOut,
    AdaptersAnswer,
    LiveAnswer,
    ProgressAnswer,
    ProgressPoint,
    RoundOut,
    RoundsAnswer,
)
from dmpo_app.web.authentication import AdminToken, require_administrator
from dmpo_app.web.concurrency import RequestLimiters
from dmpo_app.web.error_responses import StudioRoute, document_errors, without_paths
from dmpo_app.web.services import Services

WEIGHTS_NAME = "pytorch_lora_weights.safetensors"

VersionPath = Annotated[int, Path(ge=0, le=MAX_VERSION)]
RoundPath = Annotated[int, Path(ge=0, le=INT64_MAX)]


def versions_router(services: Services, limiters: RequestLimiters) -> APIRouter:
    """Routes under /api/v1 about versions and rounds."""
    router = APIRouter(route_class=StudioRoute)
    _add_adapters(router, services, limiters)
    _add_rounds(router, services, limiters)
    return router


def _add_adapters(router: APIRouter, services: Services, limiters: RequestLimiters) -> None:
    adapters, base = services.store.adapters, services.base

    @router.get("/adapters", tags=["versions"])
    async def list_adapters() -> AdaptersAnswer:
        """Every version with what it learned from; the base model is version 0."""

        def work() -> AdaptersAnswer:
            live = adapters.live_version(base)
            refs = [_base_out(live)] + [_adapter_out(ref, live) for ref in adapters.list(base)]
            return AdaptersAnswer(live_version=live, adapters=refs)

        return await limiters.reads.run(work)

    @router.get(
        "/adapters/{version}/download",
        tags=["versions"],
        response_class=FileResponse,
        responses={
            200: {"content": {"application/octet-stream": {}}, "description": "safetensors, LoRA of diffusers."},
            **document_errors(404),
        },
    )
    async def download(version: VersionPath) -> FileResponse:
        """The weights of a version: `pipe.load_lora_weights(file)` in plain diffusers."""
        path = await limiters.background.run(lambda: _weights(services, version))
        return FileResponse(path, media_type="application/octet-stream", filename=f"dmpo-version-{version}.safetensors")

    @router.post(
        "/adapters/{version}/live", tags=["administration"], responses=document_errors(401, 403, 404, 503, 507)
    )
    async def make_live(version: VersionPath, token: AdminToken) -> LiveAnswer:
        """Make a version live again; 0 is the base model. The render thread takes it up before its next image."""
        by = require_administrator(services, token)

        def work() -> LiveAnswer:
            adapters.set_live(base, version, by=by)
            return LiveAnswer(live_version=adapters.live_version(base))

        return await limiters.background.run(work)


def _add_rounds(router: APIRouter, services: Services, limiters: RequestLimiters) -> None:
    rounds, base = services.store.rounds, services.base

    @router.get("/rounds", tags=["rounds"])
    async def list_rounds() -> RoundsAnswer:
        """Every round, oldest first."""

        def work() -> RoundsAnswer:
            ordered = sorted(rounds.list(base), key=lambda state: state.id)
            return RoundsAnswer(rounds=[round_out(state) for state in ordered])

        return await limiters.reads.run(work)

    @router.post(
        "/rounds", status_code=202, tags=["administration"], responses=document_errors(401, 403, 409, 503, 507)
    )
    async def train_now(token: AdminToken) -> RoundOut:
        """Train now. 409 when a round is queued or running already, or there are too few votes."""
        by = require_administrator(services, token)
        question = services.settings.labeling.training_question

        def work() -> RoundOut:
            return round_out(rounds.request(base, Trigger.REQUEST, question=question, by=by))

        return await limiters.background.run(work)

    @router.get("/rounds/{round_id}/progress", tags=["rounds"], responses=document_errors(404))
    async def progress(round_id: RoundPath) -> ProgressAnswer:
        """The curves of a round, as recorded so far."""

        def work() -> ProgressAnswer:
            points = [
                ProgressPoint(
                    step=p.step,
                    loss=finite(p.loss),
                    margin=finite(p.margin),
                    accuracy=finite(p.accuracy),
                    held_out_loss=finite(p.held_out_loss),
                    health={name: value for name, value in p.health.items() if math.isfinite(value)},
                )
                for p in rounds.list_progress(rounds.get(round_id).id)
            ]
            return ProgressAnswer(round=round_id, points=points)

        return await limiters.reads.run(work)


def finite(value: float | None) -> float | None:
    """Replace NaN and infinity, which JSON does not have, by null."""
    return value if value is not None and math.isfinite(value) else None


def round_out(state: RoundState) -> RoundOut:
    """Convert a round to its response body."""
    return RoundOut(
        id=state.id,
        status=state.status,
        step=state.step,
        steps=state.steps,
        loss=finite(state.loss),
        margin=finite(state.margin),
        accuracy=finite(state.accuracy),
        eta_seconds=finite(state.eta_seconds),
        votes=state.num_votes,
        attempts=state.attempts,
        parent_version=state.parent_version,
        adapter_version=state.adapter_version,
        reason=None if state.reason is None else without_paths(state.reason),
        created_at=state.created_at,
        finished_at=state.finished_at,
    )


def _base_out(live: int) -> AdapterOut:
    return AdapterOut(
        version=BASE_VERSION,
        parent=None,
        live=live == BASE_VERSION,
        votes=0,
        proven=True,
        metrics={},
        created_at=None,
        download=None,
    )


def _adapter_out(ref: AdapterRef, live: int) -> AdapterOut:
    return AdapterOut(
        version=ref.version,
        parent=ref.parent,
        live=ref.version == live,
        votes=ref.num_votes,
        proven=ref.proven,
        metrics={name: finite(value) for name, value in ref.metrics.items()},
        created_at=ref.created_at,
        download=f"/api/v1/adapters/{ref.version}/download",
    )


def _weights(services: Services, version: int) -> FilePath:
    if version == BASE_VERSION:
        raise NotFoundError("version 0 is the base model itself; it has no adapter to download")
    path = services.store.adapters.get(services.base, version).folder / WEIGHTS_NAME
    if not path.is_file():
        raise NotFoundError(f"the weights of version {version} are missing from the studio's folder")
    return path
