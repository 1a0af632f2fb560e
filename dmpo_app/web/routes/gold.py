"""Gold pairs, for administrators: which they are, what the right answer is."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Path

from dmpo_app.domain.vote import Outcome
from dmpo_app.web.api_models import INT64_MAX
from dmpo_app.web.authentication import AdminToken, administrator_of
from dmpo_app.web.campaign_models import GoldAnswer, GoldBody, GoldOut
from dmpo_app.web.concurrency import Lanes
from dmpo_app.web.error_responses import StudioRoute, documented
from dmpo_app.web.routes.personal_routes import IMAGE_LIFETIME
from dmpo_app.web.routes.voting_routes import image_url
from dmpo_app.web.services import Services

PairId = Annotated[int, Path(ge=0, le=INT64_MAX)]


def gold_router(services: Services, lanes: Lanes) -> APIRouter:
    """Routes under /api/v1/gold."""
    router = APIRouter(route_class=StudioRoute, tags=["administration"])
    store, base = services.store, services.base

    @router.get("/gold", responses=documented(401, 403, 503))
    async def gold(token: AdminToken) -> GoldAnswer:
        """The gold pairs with their right answers."""
        administrator_of(services, token)

        def work() -> GoldAnswer:
            answers = store.gold.answers(base)
            return GoldAnswer(gold=[_shown(services, pair_id, answer) for pair_id, answer in answers.items()])

        return await lanes.reads.run(work)

    @router.put("/gold/{pair_id}", responses=documented(401, 403, 404, 422, 503, 507))
    async def put_gold(pair_id: PairId, body: GoldBody, token: AdminToken) -> GoldOut:
        """Make a pair a gold pair: mixed in at the campaign's rate, and not trained on from now on."""
        by = administrator_of(services, token)

        def work() -> GoldOut:
            answer = Outcome(body.answer)
            store.gold.set(base, pair_id, answer, by=by)
            return _shown(services, pair_id, answer)

        return await lanes.rare.run(work)

    @router.delete("/gold/{pair_id}", status_code=204, responses=documented(401, 403, 404, 503, 507))
    async def delete_gold(pair_id: PairId, token: AdminToken) -> None:
        """Make a gold pair a pair like any other."""
        by = administrator_of(services, token)
        await lanes.rare.run(lambda: store.gold.set(base, pair_id, None, by=by))

    return router


def _shown(services: Services, pair_id: int, answer: Outcome) -> GoldOut:
    pair, expires_at = services.store.pairs.get(pair_id), datetime.now(UTC) + IMAGE_LIFETIME
    images = [image_url(services, image.id, expires_at) for image in (pair.image_a, pair.image_b)]
    return GoldOut(pair=pair_id, answer=answer, prompt=pair.prompt, images=images)
