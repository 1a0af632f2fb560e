"""Routes for administrators: reports of pairs, the log of their own acts, gold pairs, the quality of votes."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from dmpo_app.domain.campaign import Report
from dmpo_app.domain.vote import Outcome
from dmpo_app.labeling.quality import QualityReport
from dmpo_app.labeling.quality.quality_report import build_report, to_csv
from dmpo_app.web.api_models import INT64_MAX
from dmpo_app.web.authentication import AdminToken, require_administrator
from dmpo_app.web.campaign_models import (
    AuditAnswer,
    AuditOut,
    ClearReportsAnswer,
    ClearReportsBody,
    GoldAnswer,
    GoldBody,
    GoldOut,
    ReportOut,
    ReportsAnswer,
    RestoredOut,
    StruckOut,
)
from dmpo_app.web.error_responses import StudioRoute, document_admin_errors
from dmpo_app.web.routes.personal_routes import IMAGE_LIFETIME, Before, Limit
from dmpo_app.web.routes.voting_routes import image_url
from dmpo_app.web.services import RequestLimiters, Services

ReportId = Annotated[int, Path(ge=0, le=INT64_MAX)]
AnnotatorPath = Annotated[
    str, Path(min_length=1, max_length=64, description="Public id, or the name in the quality report.")
]
OnlyStanding = Annotated[bool, Query(description="Leave out reports that were cleared.")]


def moderation_router(services: Services, limiters: RequestLimiters) -> APIRouter:
    """Routes under /api/v1 for administrators about a campaign."""
    router = APIRouter(route_class=StudioRoute, tags=["administration"])
    store, base, moderation = services.store, services.base, services.moderation

    @router.get("/reports", responses=document_admin_errors())
    async def reports(
        token: AdminToken, before: Before = None, limit: Limit = 50, standing: OnlyStanding = False
    ) -> ReportsAnswer:
        """Pairs that people reported, newest report first."""
        require_administrator(services, token)

        def work() -> ReportsAnswer:
            page = store.reports.list(base, only_open=standing, before=before, limit=limit)
            reports_out = [_report(services, one) for one in page]
            return ReportsAnswer(reports=reports_out, next=page[-1].id if len(page) == limit else None)

        return await limiters.reads.run(work)

    @router.post("/reports/{report_id}/clear", responses=document_admin_errors(404, 507))
    async def clear(report_id: ReportId, token: AdminToken) -> ReportOut:
        """Settle a report. The pair is back in the pool, and its votes train, when too few other reports stand."""
        by = require_administrator(services, token)
        return await limiters.background.run(lambda: _report(services, moderation.clear_report(report_id, by=by)))

    @router.post("/reports/{report_id}/confirm", responses=document_admin_errors(404, 409, 507))
    async def confirm(report_id: ReportId, token: AdminToken) -> ReportOut:
        """Confirm a report: its pair is out of the pool and its votes do not train, until this report is cleared."""
        by = require_administrator(services, token)
        return await limiters.background.run(lambda: _report(services, moderation.confirm_report(report_id, by=by)))

    @router.post("/reports/clear", responses=document_admin_errors(404, 413, 507))
    async def clear_many(body: ClearReportsBody, token: AdminToken) -> ClearReportsAnswer:
        """Settle every open report, or all of one annotator, except for those that were confirmed."""
        by = require_administrator(services, token)

        def work() -> ClearReportsAnswer:
            return ClearReportsAnswer(cleared=moderation.clear_reports(by=by, annotator=body.annotator))

        return await limiters.background.run(work)

    @router.get("/audit", responses=document_admin_errors())
    async def audit(token: AdminToken, before: Before = None, limit: Limit = 50) -> AuditAnswer:
        """The audit log of administrators' acts, newest first."""
        require_administrator(services, token)

        def work() -> AuditAnswer:
            acts = store.audit.list(before=before, limit=limit)
            acts_out = [AuditOut(id=a.id, at=a.at, actor=a.actor, act=a.act, subject=a.subject) for a in acts]
            return AuditAnswer(acts=acts_out, next=acts[-1].id if len(acts) == limit else None)

        return await limiters.reads.run(work)

    _add_strikes(router, services, limiters)
    return router


def _add_strikes(router: APIRouter, services: Services, limiters: RequestLimiters) -> None:
    moderation, labeling = services.moderation, services.labeling

    @router.post("/annotators/{annotator}/strike", responses=document_admin_errors(404, 507))
    async def strike(annotator: AnnotatorPath, token: AdminToken) -> StruckOut:
        """Strike an annotator: votes, reports and prompts of theirs do not count until they are restored."""
        by = require_administrator(services, token)

        def work() -> StruckOut:
            struck = moderation.strike(annotator, by=by)
            return StruckOut(
                annotator=struck.public_id,
                struck_at=struck.struck_at,
                votes=struck.votes,
                reports=struck.reports,
                prompts=struck.prompts,
                votes_until_round=labeling.votes_until_round(),
            )

        return await limiters.background.run(work)

    @router.post("/annotators/{annotator}/restore", responses=document_admin_errors(404, 507))
    async def restore(annotator: AnnotatorPath, token: AdminToken) -> RestoredOut:
        """Undo a strike: everything counts again as if it had not been."""
        by = require_administrator(services, token)

        def work() -> RestoredOut:
            moderation.restore(annotator, by=by)
            return RestoredOut(votes_until_round=labeling.votes_until_round())

        return await limiters.background.run(work)


def _report(services: Services, report: Report) -> ReportOut:
    expires_at = datetime.now(UTC) + IMAGE_LIFETIME
    return ReportOut(
        id=report.id,
        pair=report.pair_id,
        annotator=report.annotator,
        reason=report.reason,
        text=report.text,
        at=report.at,
        cleared_at=report.cleared_at,
        cleared_by=report.cleared_by,
        confirmed_at=report.confirmed_at,
        confirmed_by=report.confirmed_by,
        retired=report.retired_at is not None,
        hidden=report.hidden_at is not None,
        prompt=report.prompt,
        images=[image_url(services, image_id, expires_at) for image_id in (report.image_a_id, report.image_b_id)],
    )


PairId = Annotated[int, Path(ge=0, le=INT64_MAX)]


def gold_router(services: Services, limiters: RequestLimiters) -> APIRouter:
    """Routes under /api/v1/gold."""
    router = APIRouter(route_class=StudioRoute, tags=["administration"])
    store, base = services.store, services.base

    @router.get("/gold", responses=document_admin_errors())
    async def gold(token: AdminToken) -> GoldAnswer:
        """The gold pairs with their right answers."""
        require_administrator(services, token)

        def work() -> GoldAnswer:
            answers = store.gold.right_outcomes(base)
            return GoldAnswer(gold=[_gold_out(services, pair_id, answer) for pair_id, answer in answers.items()])

        return await limiters.reads.run(work)

    @router.put("/gold/{pair_id}", responses=document_admin_errors(404, 422, 507))
    async def put_gold(pair_id: PairId, body: GoldBody, token: AdminToken) -> GoldOut:
        """Make a pair a gold pair: mixed in at the campaign's rate, and not trained on from now on."""
        by = require_administrator(services, token)

        def work() -> GoldOut:
            answer = Outcome(body.answer)
            store.gold.set(base, pair_id, answer, by=by)
            return _gold_out(services, pair_id, answer)

        return await limiters.background.run(work)

    @router.delete("/gold/{pair_id}", status_code=204, responses=document_admin_errors(404, 507))
    async def delete_gold(pair_id: PairId, token: AdminToken) -> None:
        """Make a gold pair a pair like any other."""
        by = require_administrator(services, token)
        await limiters.background.run(lambda: store.gold.set(base, pair_id, None, by=by))

    return router


def _gold_out(services: Services, pair_id: int, answer: Outcome) -> GoldOut:
    pair, expires_at = services.store.pairs.get(pair_id), datetime.now(UTC) + IMAGE_LIFETIME
    images = [image_url(services, image.id, expires_at) for image in (pair.image_a, pair.image_b)]
    return GoldOut(pair=pair_id, answer=answer, prompt=pair.prompt, images=images)


CSV_NAME = "annotators.csv"


def quality_router(services: Services, limiters: RequestLimiters) -> APIRouter:
    """Routes under /api/v1 about the quality of votes."""
    router = APIRouter(route_class=StudioRoute, tags=["administration"])

    async def report(token: AdminToken) -> QualityReport:
        require_administrator(services, token)
        return await limiters.background.run(lambda: build_report(services.store, services.base, services.settings))

    @router.get("/quality", responses=document_admin_errors())
    async def quality(token: AdminToken) -> QualityReport:
        """Agreement, repeats, gold pairs, sides, times and weights, overall and by annotator, under hashed names."""
        return await report(token)

    @router.get(
        f"/quality/{CSV_NAME}",
        response_class=Response,
        responses={
            200: {"content": {"text/csv": {}}, "description": "A line an annotator."},
            **document_admin_errors(),
        },
    )
    async def quality_csv(token: AdminToken) -> Response:
        """The annotators as a table; no cell is a formula."""
        headers = {"Content-Disposition": f'attachment; filename="{CSV_NAME}"'}
        return Response(to_csv(await report(token)), media_type="text/csv; charset=utf-8", headers=headers)

    return router
