"""Routes of the studio's state, renders on request, the contact sheet, versions and rounds."""

import asyncio
import math
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from pathlib import Path as FilePath
from typing import Annotated

from fastapi import APIRouter, Path, Request
from fastapi.responses import FileResponse

from dmpo_app.domain import lineage
from dmpo_app.domain.effects import say_what_was_learned
from dmpo_app.domain.judging import VersionState
from dmpo_app.domain.limits import MAX_VERSION
from dmpo_app.domain.verdict import GateVerdict
from dmpo_app.errors import NotFoundError
from dmpo_app.settings import Mode
from dmpo_app.web import api_models
from dmpo_app.web.authentication import (
    AdminToken,
    MaybeSessionToken,
    network_of,
    require_administrator,
    require_annotator,
)
from dmpo_app.web.error_responses import ApiError, StudioRoute, document_admin_errors, document_errors
from dmpo_app.web.rate_limits import RateLimits
from dmpo_app.web.routes.voting_routes import image_url
from dmpo_app.web.services import Coalesced, RequestLimiters, Services
from dmpo_app.web.shown_messages import without_paths

WEIGHTS_NAME = "pytorch_lora_weights.safetensors"

VersionPath = Annotated[int, Path(ge=0, le=MAX_VERSION)]
RoundPath = Annotated[int, Path(ge=0, le=api_models.INT64_MAX)]


def versions_router(services: Services, limiters: RequestLimiters) -> APIRouter:
    """Routes under /api/v1 about versions and rounds."""
    router = APIRouter(route_class=StudioRoute)
    _add_adapters(router, services, limiters)
    _add_rounds(router, services, limiters)
    return router


def _add_adapters(router: APIRouter, services: Services, limiters: RequestLimiters) -> None:
    adapters, base = services.store.adapters, services.base

    @router.get("/adapters", tags=["versions"])
    async def list_adapters() -> api_models.AdaptersAnswer:
        """Every version with what it learned from; the base model is version 0."""

        def work() -> api_models.AdaptersAnswer:
            refs, taken_back = adapters.list(base), services.store.taken_back.counts(base)
            effects = services.store.effects.sentences(base)
            states = adapters.states(base)  # last: they know every version of the list
            out = [_base_out(states[0])]
            out += [
                _adapter_out(ref, states[ref.version], taken_back.get(ref.version, 0), effects.get(ref.version, []))
                for ref in refs
            ]
            live = next(version for version, state in states.items() if state is VersionState.LIVE)
            return api_models.AdaptersAnswer(live_version=live, adapters=out)

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

    @router.post("/adapters/{version}/live", tags=["administration"], responses=document_admin_errors(404, 507))
    async def make_live(version: VersionPath, token: AdminToken) -> api_models.LiveAnswer:
        """Make a version live again; 0 is the base model. The render thread takes it up before its next image."""
        by = require_administrator(services, token)

        def work() -> api_models.LiveAnswer:
            adapters.set_live(base, version, by=by)
            return api_models.LiveAnswer(live_version=adapters.live_version(base))

        return await limiters.background.run(work)


def _add_rounds(router: APIRouter, services: Services, limiters: RequestLimiters) -> None:
    rounds, base = services.store.rounds, services.base

    @router.get("/rounds", tags=["rounds"])
    async def list_rounds() -> api_models.RoundsAnswer:
        """Every round, oldest first."""

        def work() -> api_models.RoundsAnswer:
            ordered = sorted(rounds.list(base), key=lambda state: state.id)
            return api_models.RoundsAnswer(rounds=[round_out(state) for state in ordered])

        return await limiters.reads.run(work)

    @router.post("/rounds", status_code=202, tags=["administration"], responses=document_admin_errors(409, 507))
    async def train_now(token: AdminToken) -> api_models.RoundOut:
        """Train now. 409 when a round is queued or running already, or there are too few votes."""
        by = require_administrator(services, token)
        question = services.settings.labeling.training_question

        def work() -> api_models.RoundOut:
            return round_out(rounds.request(base, lineage.Trigger.REQUEST, question=question, by=by))

        return await limiters.background.run(work)

    @router.get("/rounds/{round_id}/progress", tags=["rounds"], responses=document_errors(404))
    async def progress(round_id: RoundPath) -> api_models.ProgressAnswer:
        """The curves of a round, as recorded so far."""

        def work() -> api_models.ProgressAnswer:
            points = [
                api_models.ProgressPoint(
                    step=p.step,
                    loss=finite(p.loss),
                    margin=finite(p.margin),
                    accuracy=finite(p.accuracy),
                    held_out_loss=finite(p.held_out_loss),
                    health={name: value for name, value in p.health.items() if math.isfinite(value)},
                )
                for p in rounds.list_progress(rounds.get(round_id).id)
            ]
            return api_models.ProgressAnswer(round=round_id, points=points)

        return await limiters.reads.run(work)


def finite(value: float | None) -> float | None:
    """Replace NaN and infinity, which JSON does not have, by null."""
    return value if value is not None and math.isfinite(value) else None


def round_out(state: lineage.RoundState) -> api_models.RoundOut:
    """Convert a round to its response body."""
    return api_models.RoundOut(
        id=state.id,
        status=state.status,
        trigger=state.trigger,
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


def _base_out(state: VersionState) -> api_models.AdapterOut:
    return api_models.AdapterOut(
        version=lineage.BASE_VERSION,
        parent=None,
        live=state is VersionState.LIVE,
        state=state,
        state_words=state.words,
        votes=0,
        taken_back=0,
        proven=True,
        verdict=None,
        metrics={},
        created_at=None,
        download=None,
        learned=[],
    )


def _adapter_out(
    ref: lineage.AdapterRef, state: VersionState, taken_back: int, effects: list[str]
) -> api_models.AdapterOut:
    verdict = GateVerdict.from_metrics(ref.metrics)
    return api_models.AdapterOut(
        version=ref.version,
        parent=ref.parent,
        live=state is VersionState.LIVE,
        state=state,
        state_words=state.words,
        votes=ref.num_votes,
        taken_back=taken_back,
        proven=ref.proven,
        verdict=None if verdict is None else _verdict_out(verdict),
        metrics={name: finite(value) for name, value in ref.metrics.items()},
        created_at=ref.created_at,
        download=f"/api/v1/adapters/{ref.version}/download",
        learned=effects if verdict else say_what_was_learned(ref.metrics, effects),
    )


def _verdict_out(verdict: GateVerdict) -> api_models.VerdictOut:
    return api_models.VerdictOut(outcome=verdict.outcome, sentence=verdict.sentence, caution=verdict.caution)


def _weights(services: Services, version: int) -> FilePath:
    if version == lineage.BASE_VERSION:
        raise NotFoundError("version 0 is the base model itself; it has no adapter to download")
    path = services.store.adapters.get(services.base, version).folder / WEIGHTS_NAME
    if not path.is_file():
        raise NotFoundError(f"the weights of version {version} are missing from the studio's folder")
    return path


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
    async def status() -> api_models.StatusAnswer:
        """Status of the studio: votes, the round that runs, the version that is live. Cheap; meant to be polled."""
        return await coalesced_status.get()

    @router.get("/history", tags=["studio"])
    async def history() -> api_models.HistoryAnswer:
        """Votes an hour."""

        def work() -> api_models.HistoryAnswer:
            return api_models.HistoryAnswer(
                hours=[api_models.HourOut(hour=hour, votes=count) for hour, count in store.votes.per_hour(base)]
            )

        return await limiters.reads.run(work)

    @router.get("/contact-sheet", tags=["studio"])
    async def contact_sheet() -> api_models.SheetAnswer:
        """The same few prompts and seeds under every version."""
        return await limiters.reads.run(lambda: _sheet(services, store.images.contact_sheet(base)))


def _add_render(router: APIRouter, services: Services, limiters: RequestLimiters, limits: RateLimits) -> None:
    @router.post("/render", tags=["studio"], responses=document_errors(401, 404, 409, 413, 429, 503, 507))
    async def render(
        body: api_models.RenderBody, token: MaybeSessionToken, request: Request
    ) -> api_models.RenderAnswer:
        """Make one image a version from one prompt and seed. Needs no token; with one, limits count for it alone."""
        render_request = lineage.RenderRequest(
            prompt=body.prompt,
            seed=body.seed,
            versions=tuple(body.versions),
            strength=body.strength,
            num_steps=body.steps,
            guidance=body.guidance,
        )

        adapter_versions = set(render_request.versions) - {lineage.BASE_VERSION}

        def check() -> None:
            if limits.is_enabled:
                annotator = None if token is None else require_annotator(services.labeling, token)
                limits.check_render(annotator.id if annotator else None, network_of(request))
            for version in adapter_versions:
                services.store.adapters.get(services.base, version)

        if (
            limits.is_enabled or adapter_versions
        ):  # else there is nothing to look up, and a flood is turned away without a thread
            await limiters.reads.run(check)
        images = await _await_render(services.renderer.submit(render_request))
        expires_at = datetime.now(UTC) + IMAGE_LIFETIME
        return api_models.RenderAnswer(
            images=[
                api_models.RenderedOut(
                    version=made.version,
                    url=image_url(services, made.image.id, expires_at),
                    withheld=made.withheld,
                )
                for made in images
            ]
        )


async def _await_render(future: Future[list[lineage.RenderedImage]]) -> list[lineage.RenderedImage]:
    """Wait for the render thread without holding a thread. When the caller leaves, what was queued is cancelled."""
    try:
        return await asyncio.wait_for(asyncio.wrap_future(future), RENDER_TIMEOUT_SECONDS)
    except TimeoutError as error:
        raise ApiError(503, "busy", "The model is busy; try again later.", retry_after=10) from error
    except asyncio.CancelledError as error:
        if future.cancelled():  # by the render thread, which is stopping; else it is this request that ends
            raise ApiError(503, "not_ready", "The studio is shutting down.", retry_after=5) from error
        raise


def _status(services: Services) -> api_models.StatusAnswer:
    now = services.labeling.status()
    renderer, trainer = services.renderer.state, services.trainer.state
    return api_models.StatusAnswer(
        votes=now.votes,
        votes_until_round=now.votes_until_round,
        min_votes=services.settings.min_votes,
        pool=now.pool,
        live_version=now.live_version,
        round=None if now.round is None else round_out(now.round),
        last_round=None if now.last_round is None else _last_round(now.last_round),
        last_error=None if now.last_error is None else without_paths(now.last_error),
        encoding=None
        if now.encoding is None
        else api_models.EncodingOut(done=now.encoding.done, total=now.encoding.total),
        storage=now.storage_problem,
        renderer=api_models.RendererOut(
            phase=renderer.phase,
            message=without_paths(renderer.message),
            pending=renderer.pending,
            device=renderer.device,
        ),
        mode=_mode(services, renderer.device),
        trainer=api_models.TrainerOut(
            running=trainer.running,
            restarts=trainer.restarts,
            message=without_paths(trainer.message),
            phase=without_paths(trainer.phase),
        ),
    )


def _mode(services: Services, device: str | None) -> Mode:
    """Hardware mode, by the device of the loaded model where it is known, else as detected at the start."""
    if services.gpu_minutes is not None or device is None:
        return services.mode
    return "cpu" if device.startswith("cpu") else "gpu"


def _last_round(state: lineage.RoundState) -> api_models.LastRoundOut:
    return api_models.LastRoundOut(
        id=state.id,
        status=state.status,
        reason=None if state.reason is None else without_paths(state.reason),
        adapter_version=state.adapter_version,
    )


def _sheet(services: Services, images: list[lineage.ImageRef]) -> api_models.SheetAnswer:
    expires_at = datetime.now(UTC) + IMAGE_LIFETIME
    rows: dict[int, list[api_models.SheetImage]] = {}
    for image in images:
        provenance = image.provenance
        cell = api_models.SheetImage(
            prompt=provenance.prompt, seed=provenance.seed, url=image_url(services, image.id, expires_at)
        )
        rows.setdefault(provenance.adapter_version, []).append(cell)
    sheet_rows = [
        api_models.SheetRow(version=v, images=sorted(rows[v], key=lambda i: (i.prompt, i.seed))) for v in sorted(rows)
    ]
    return api_models.SheetAnswer(rows=sheet_rows)
