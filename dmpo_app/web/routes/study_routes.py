"""Routes for administrators: human studies between two versions, their results and their table."""

from typing import Annotated

from fastapi import APIRouter, Path, Response

from dmpo_app.domain.judging import Study, StudyRecord
from dmpo_app.judging.study import study_csv, summarize_study
from dmpo_app.web.api_models import INT64_MAX
from dmpo_app.web.authentication import AdminToken, require_administrator
from dmpo_app.web.error_responses import StudioRoute, document_admin_errors
from dmpo_app.web.services import RequestLimiters, Services
from dmpo_app.web.study_models import StudiesAnswer, StudyAnswerBody, StudyBody, StudyOut, result_out, study_out

StudyId = Annotated[int, Path(ge=0, le=INT64_MAX)]


def study_router(services: Services, limiters: RequestLimiters) -> APIRouter:
    """Routes under /api/v1 for administrators about human studies."""
    router = APIRouter(route_class=StudioRoute, tags=["administration"])
    store, base = services.store, services.base

    def summarize(study_id: int) -> tuple[StudyRecord, Study]:
        record = store.studies.get(base, study_id)
        versions = {"version_a": record.plan.version_a, "version_b": record.plan.version_b}
        return record, summarize_study(store.studies.answers(base, study_id), **versions)

    @router.get("/studies", responses=document_admin_errors())
    async def studies(token: AdminToken) -> StudiesAnswer:
        """Human studies, oldest first."""
        require_administrator(services, token)
        records = await limiters.reads.run(lambda: store.studies.list(base))
        return StudiesAnswer(studies=[study_out(one) for one in records])

    @router.post("/studies", responses=document_admin_errors(404, 409, 413, 507))
    async def create(body: StudyBody, token: AdminToken) -> StudyOut:
        """Create a study. Its pairs are made from now on, and given to people who judge versions, before others."""
        by = require_administrator(services, token)
        return study_out(await limiters.background.run(lambda: store.studies.create(base, body.plan, by=by)))

    @router.get("/studies/{study_id}", responses=document_admin_errors(404))
    async def study(study_id: StudyId, token: AdminToken) -> StudyAnswerBody:
        """A study and its results so far: majorities, win rate with its interval, agreement, for each question."""
        require_administrator(services, token)
        record, summary = await limiters.background.run(lambda: summarize(study_id))
        return StudyAnswerBody(study=study_out(record), results=[result_out(one) for one in summary.results])

    @router.post("/studies/{study_id}/close", responses=document_admin_errors(404, 507))
    async def close(study_id: StudyId, token: AdminToken) -> StudyOut:
        """Close a study: its pairs are given to nobody any more."""
        by = require_administrator(services, token)
        return study_out(await limiters.background.run(lambda: store.studies.close(base, study_id, by=by)))

    @router.get(
        "/studies/{study_id}/table",
        response_class=Response,
        responses={
            200: {"content": {"text/csv": {}}, "description": "A line a pair and question."},
            **document_admin_errors(404),
        },
    )
    async def table(study_id: StudyId, token: AdminToken) -> Response:
        """The pairs of a study as a table: their answers to each question and the majority; no cell is a formula."""
        require_administrator(services, token)
        _, summary = await limiters.background.run(lambda: summarize(study_id))
        headers = {"Content-Disposition": f'attachment; filename="study-{study_id}.csv"'}
        return Response(study_csv(summary), media_type="text/csv; charset=utf-8", headers=headers)

    return router
