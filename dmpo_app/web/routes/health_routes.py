"""Routes by which a studio is watched: alive, ready, metrics, and for administrators the damage to its files."""

import asyncio
from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel

from dmpo_app.errors import StudioError
from dmpo_app.web.authentication import AdminToken, MaybeMetricsToken, require_administrator, require_metrics_token
from dmpo_app.web.campaign_models import DamageAnswer, DamagedPairOut
from dmpo_app.web.error_responses import StudioRoute, document_admin_errors
from dmpo_app.web.services import Coalesced, RequestLimiters, Services

ALIVE, READY, METRICS = "/healthz", "/readyz", "/metrics"
ROOT_PATHS = frozenset({ALIVE, READY, METRICS})
"""Paths of this API that stand at the root, where a probe looks for them."""
STORE_SECONDS = 5.0
"""A store that takes longer to answer a read counts as one that does not."""


class AliveAnswer(BaseModel):
    status: Literal["alive"] = "alive"


class ReadyAnswer(BaseModel):
    """The parts of a studio; `ready` when votes are taken: the store answers, and the backup does not refuse them."""

    ready: bool
    store: Literal["ok", "failed"]
    votes: Literal["taken", "refused"]
    pairs: int | None
    renderer: Literal["starting", "loading", "ready", "failed", "stopped"]
    trainer: Literal["running", "stopped", "off"]


def health_router(services: Services, limiters: RequestLimiters) -> APIRouter:
    """Routes at the root; no description of the API names them, since they belong to whoever runs the server."""
    router = APIRouter(route_class=StudioRoute, include_in_schema=False)
    # One for all who ask: while the store hangs, each count would keep a thread for good.
    num_pairs = Coalesced(limiters.reads, services.count_pool)

    @router.get(ALIVE)
    async def alive() -> AliveAnswer:
        """Answer 200 from the event loop, without the store."""
        return AliveAnswer()

    @router.get(READY)
    async def ready(response: Response) -> ReadyAnswer:
        """Answer 200 when votes can be taken, else 503; a model that loads or failed is no hindrance to that."""
        answer = await _readiness(services, num_pairs)
        response.status_code = 200 if answer.ready else 503
        return answer

    @router.get(METRICS)
    async def metrics_page(token: MaybeMetricsToken) -> Response:
        """Metrics in Prometheus' text format; in public mode for holders of DMPO_METRICS_TOKEN alone."""
        require_metrics_token(services, token)
        page = await limiters.reads.run(services.metrics.render)
        return Response(page, media_type=services.metrics.content_type)

    return router


async def _readiness(services: Services, num_pairs: Coalesced[int]) -> ReadyAnswer:
    try:
        pairs = await asyncio.wait_for(num_pairs.get(), STORE_SECONDS)
    except (StudioError, TimeoutError, OSError):
        pairs = None
    trainer: Literal["running", "stopped", "off"] = "running" if services.trainer.state.running else "stopped"
    if not services.settings.train:
        trainer = "off"
    votes_taken = pairs is not None and services.labeling.takes_votes()
    return ReadyAnswer(
        ready=votes_taken,
        store="failed" if pairs is None else "ok",
        votes="taken" if votes_taken else "refused",
        pairs=pairs,
        renderer=services.renderer.state.phase,
        trainer=trainer,
    )


def damage_router(services: Services, limiters: RequestLimiters) -> APIRouter:
    """Routes under /api/v1 about damage to the home's files."""
    router = APIRouter(route_class=StudioRoute, tags=["administration"])

    @router.get("/damage", responses=document_admin_errors())
    async def damage(token: AdminToken) -> DamageAnswer:
        """Pairs whose images or tensors are missing or damaged. They come back by themselves once the files are whole.

        `dmpo verify --repair` fetches files from the backup.
        """
        require_administrator(services, token)

        def work() -> DamageAnswer:
            known = services.store.damage
            return DamageAnswer(
                out_of_pool=known.count(services.base),
                pairs=[
                    DamagedPairOut(pair=one.pair_id, prompt=one.prompt, lost=one.lost, since=one.since)
                    for one in known.list(services.base)
                ],
            )

        return await limiters.reads.run(work)

    return router
