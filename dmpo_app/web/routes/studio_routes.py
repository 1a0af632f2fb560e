"""State of the studio, renders on request, the contact sheet and the history."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta

from fastapi import APIRouter, Request

from dmpo_app.domain.image import ImageRef
from dmpo_app.domain.lineage import BASE_VERSION
from dmpo_app.domain.render_request import RenderedImage, RenderRequest
from dmpo_app.domain.round import RoundState
from dmpo_app.settings import Mode
from dmpo_app.web.api_models import (
    EncodingOut,
    HistoryAnswer,
    HourOut,
    LastRoundOut,
    RenderAnswer,
    RenderBody,
    RenderedOut,
    RendererOut,
    SheetAnswer,
    SheetImage,
    SheetRow,
    StatusAnswer,
    TrainerOut,
)
from dmpo_app.web.authentication import MaybeSessionToken, rate_limit_key
from dmpo_app.web.concurrency import Coalesced, RequestLimiters
from dmpo_app.web.error_responses import ApiError, StudioRoute, document_errors, without_paths
from dmpo_app.web.rate_limits import RateLimits
from dmpo_app.web.routes.version_routes import round_out
from dmpo_app.web.routes.voting_routes import image_url
from dmpo_app.web.services import Services

RENDER_TIMEOUT_SECONDS = 180.0
IMAGE_LIFETIME = timedelta(hours=12)


def studio_router(services: Services, limiters: RequestLimiters, limits: RateLimits) -> APIRouter:
    """Routes under /api/v1 about the studio as a whole."""
    router = APIRouter(route_class=StudioRoute)
    _add_state(router, services, limiters)
    _add_render(router, services, limiters, limits)
    return router


def _add_state(router: APIRouter, services: Services, limiters: RequestLimiters) -> None:
    store, base = services.store, services.base
    # Every open page polls each second or two, and all get the same response.
    coalesced_status = Coalesced(limiters.reads, lambda: _status(services))

    @router.get("/status", tags=["studio"])
    async def status() -> StatusAnswer:
        """Status of the studio: votes, the round that runs, the version that is live. Cheap; meant to be polled."""
        return await coalesced_status.get()

    @router.get("/history", tags=["studio"])
    async def history() -> HistoryAnswer:
        """Votes an hour."""

        def work() -> HistoryAnswer:
            return HistoryAnswer(hours=[HourOut(hour=hour, votes=count) for hour, count in store.votes.per_hour(base)])

        return await limiters.reads.run(work)

    @router.get("/contact-sheet", tags=["studio"])
    async def contact_sheet() -> SheetAnswer:
        """The same few prompts and seeds under every version."""
        return await limiters.reads.run(lambda: _sheet(services, store.images.contact_sheet(base)))


def _add_render(router: APIRouter, services: Services, limiters: RequestLimiters, limits: RateLimits) -> None:
    @router.post("/render", tags=["studio"], responses=document_errors(401, 404, 409, 413, 429, 503, 507))
    async def render(body: RenderBody, token: MaybeSessionToken, request: Request) -> RenderAnswer:
        """Make one image a version from one prompt and seed. Needs no token; with one, limits count for it alone."""
        render_request = RenderRequest(
            prompt=body.prompt,
            seed=body.seed,
            versions=tuple(body.versions),
            strength=body.strength,
            num_steps=body.steps,
            guidance=body.guidance,
        )

        adapter_versions = set(render_request.versions) - {BASE_VERSION}

        def check() -> None:
            if limits.is_enabled:
                limits.check_render(rate_limit_key(services.labeling, token, request))
            for version in adapter_versions:
                services.store.adapters.get(services.base, version)

        if (
            limits.is_enabled or adapter_versions
        ):  # else there is nothing to look up, and a flood is turned away without a thread
            await limiters.reads.run(check)
        images = await _await_render(services.renderer.submit(render_request))
        expires_at = datetime.now(UTC) + IMAGE_LIFETIME
        return RenderAnswer(
            images=[
                RenderedOut(
                    version=made.version,
                    url=image_url(services, made.image.id, expires_at),
                    withheld=made.withheld,
                )
                for made in images
            ]
        )


async def _await_render(future: Future[list[RenderedImage]]) -> list[RenderedImage]:
    """Wait for the render thread without holding a thread. When the caller leaves, what was queued is cancelled."""
    try:
        return await asyncio.wait_for(asyncio.wrap_future(future), RENDER_TIMEOUT_SECONDS)
    except TimeoutError as error:
        raise ApiError(503, "busy", "The model is busy; try again later.", retry_after=10) from error
    except asyncio.CancelledError as error:
        if future.cancelled():  # by the render thread, which is stopping; else it is this request that ends
            raise ApiError(503, "not_ready", "The studio is shutting down.", retry_after=5) from error
        raise


def _status(services: Services) -> StatusAnswer:
    now = services.labeling.status()
    renderer, trainer = services.renderer.state, services.trainer.state
    return StatusAnswer(
        votes=now.votes,
        votes_until_round=now.votes_until_round,
        min_votes=services.settings.min_votes,
        pool=now.pool,
        live_version=now.live_version,
        round=None if now.round is None else round_out(now.round),
        last_round=None if now.last_round is None else _last_round(now.last_round),
        last_error=None if now.last_error is None else without_paths(now.last_error),
        encoding=None if now.encoding is None else EncodingOut(done=now.encoding.done, total=now.encoding.total),
        renderer=RendererOut(
            phase=renderer.phase,
            message=without_paths(renderer.message),
            pending=renderer.pending,
            device=renderer.device,
        ),
        mode=_mode(services, renderer.device),
        trainer=TrainerOut(running=trainer.running, restarts=trainer.restarts, message=without_paths(trainer.message)),
    )


def _mode(services: Services, device: str | None) -> Mode:
    """Hardware mode, by the device of the loaded model where it is known, else as detected at the start."""
    if services.gpu_minutes is not None or device is None:
        return services.mode
    return "cpu" if device.startswith("cpu") else "gpu"


def _last_round(state: RoundState) -> LastRoundOut:
    return LastRoundOut(
        id=state.id,
        status=state.status,
        reason=None if state.reason is None else without_paths(state.reason),
        adapter_version=state.adapter_version,
    )


def _sheet(services: Services, images: list[ImageRef]) -> SheetAnswer:
    expires_at = datetime.now(UTC) + IMAGE_LIFETIME
    rows: dict[int, list[SheetImage]] = {}
    for image in images:
        provenance = image.provenance
        cell = SheetImage(prompt=provenance.prompt, seed=provenance.seed, url=image_url(services, image.id, expires_at))
        rows.setdefault(provenance.adapter_version, []).append(cell)
    sheet_rows = [SheetRow(version=v, images=sorted(rows[v], key=lambda i: (i.prompt, i.seed))) for v in sorted(rows)]
    return SheetAnswer(rows=sheet_rows)
