"""How good the votes are, for administrators."""

from __future__ import annotations

from fastapi import APIRouter, Response

from dmpo_app.labeling.quality import QualityReport
from dmpo_app.labeling.quality.export import to_csv
from dmpo_app.labeling.quality.quality_service import report_of
from dmpo_app.web.authentication import AdminToken, administrator_of
from dmpo_app.web.concurrency import Lanes
from dmpo_app.web.error_responses import StudioRoute, documented
from dmpo_app.web.services import Services

CSV_NAME = "annotators.csv"


def quality_router(services: Services, lanes: Lanes) -> APIRouter:
    """Routes under /api/v1 about the quality of votes."""
    router = APIRouter(route_class=StudioRoute, tags=["administration"])

    async def report(token: str) -> QualityReport:
        administrator_of(services, token)
        return await lanes.rare.run(lambda: report_of(services.store, services.base, services.settings))

    @router.get("/quality", responses=documented(401, 403, 503))
    async def quality(token: AdminToken) -> QualityReport:
        """Agreement, repeats, gold pairs, sides, times and weights, overall and by annotator, under hashed names."""
        return await report(token)

    @router.get(
        f"/quality/{CSV_NAME}",
        response_class=Response,
        responses={
            200: {"content": {"text/csv": {}}, "description": "A line an annotator."},
            **documented(401, 403, 503),
        },
    )
    async def quality_csv(token: AdminToken) -> Response:
        """The annotators as a table; no cell is a formula."""
        headers = {"Content-Disposition": f'attachment; filename="{CSV_NAME}"'}
        return Response(to_csv(await report(token)), media_type="text/csv; charset=utf-8", headers=headers)

    return router
