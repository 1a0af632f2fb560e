"""Routes of the session's annotator: own votes, export and withdrawal, consent, reports."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

from dmpo_app.domain.campaign import ConsentAgreement
from dmpo_app.domain.vote import Annotator, VoteRecord
from dmpo_app.labeling.tables import as_csv, as_jsonl, csv_header, document_parts
from dmpo_app.web import campaign_models
from dmpo_app.web.api_models import INT64_MAX
from dmpo_app.web.authentication import MaybeSessionToken, SessionToken, network_of, require_annotator
from dmpo_app.web.error_responses import StudioRoute, document_errors
from dmpo_app.web.rate_limits import RateLimits, region_of
from dmpo_app.web.routes.voting_routes import VoteId, image_url
from dmpo_app.web.services import RequestLimiters, Services

EXPORT_PAGE = 1000
_JSON = "application/json"
IMAGE_LIFETIME = timedelta(hours=1)

Before = Annotated[int | None, Query(ge=0, le=INT64_MAX, description="Only those with a smaller id.")]
Limit = Annotated[int, Query(ge=1, le=200)]


def personal_router(services: Services, limiters: RequestLimiters, limits: RateLimits) -> APIRouter:
    """Routes under /api/v1 for annotators about themselves."""
    router = APIRouter(route_class=StudioRoute, tags=["me"])
    _add_me(router, services, limiters)
    _add_export(router, services, limiters)
    _add_withdrawal(router, services, limiters)
    _add_consent(router, services, limiters)
    _add_reports(router, services, limiters, limits)
    return router


def _add_me(router: APIRouter, services: Services, limiters: RequestLimiters) -> None:
    store, base, labeling = services.store, services.base, services.labeling

    @router.get("/session/me", responses=document_errors(401, 503))
    async def me(token: SessionToken) -> campaign_models.MeAnswer:
        """Your annotator identity, your votes, the versions trained on them, your agreements."""

        def work() -> campaign_models.MeAnswer:
            annotator = require_annotator(labeling, token)
            counts = store.own_votes.counts(annotator.id)
            return campaign_models.MeAnswer(
                annotator=annotator.public_id,
                handle=annotator.handle,
                signed_in=annotator.signed_in,
                votes=campaign_models.OwnCounts(
                    live=counts.live,
                    undone=counts.undone,
                    withdrawn=counts.withdrawn,
                    by_question=dict(counts.by_question),
                ),
                trained=[
                    campaign_models.TrainedVersion(version=version, votes=votes)
                    for version, votes in store.own_votes.versions_trained_on(base, annotator.id)
                ],
                agreements=[_agreement(one) for one in store.consents.agreements(annotator.id)],
            )

        return await limiters.reads.run(work)

    @router.get("/votes", responses=document_errors(401, 503))
    async def own_votes(
        token: SessionToken, before: Before = None, limit: Limit = 50
    ) -> campaign_models.OwnVotesAnswer:
        """Your own votes, newest first, also those you took back."""

        def work() -> campaign_models.OwnVotesAnswer:
            votes = store.own_votes.page(require_annotator(labeling, token).id, before=before, limit=limit)
            votes_out = [_own_vote(services, vote) for vote in votes]
            return campaign_models.OwnVotesAnswer(
                votes=votes_out, next=votes[-1].vote_id if len(votes) == limit else None
            )

        return await limiters.reads.run(work)


def _add_export(router: APIRouter, services: Services, limiters: RequestLimiters) -> None:
    @router.get(
        "/votes/export",
        response_class=StreamingResponse,
        responses={
            200: {"content": {"application/x-ndjson": {}, "text/csv": {}, _JSON: {}}, "description": "A file."},
            **document_errors(401, 503),
        },
    )
    async def export(token: SessionToken, format: Literal["jsonl", "csv", "json"] = "jsonl") -> StreamingResponse:
        """All your votes as a file, newest first: a line of JSON each, or a table that spreadsheets take for text.

        `json`: one document, with the texts that you agreed to as well.
        """
        annotator = await limiters.reads.run(lambda: require_annotator(services.labeling, token))
        if format == "json":
            agreements = await limiters.reads.run(lambda: services.store.consents.agreements(annotator.id))
            parts = document_parts(annotator, agreements)
            lines, media_type = _lines(services, limiters, annotator, parts.votes, parts.head, parts.end), _JSON
        elif format == "csv":
            lines, media_type = _lines(services, limiters, annotator, as_csv, csv_header()), "text/csv"
        else:
            lines, media_type = _lines(services, limiters, annotator, as_jsonl), "application/x-ndjson"
        headers = {"Content-Disposition": f'attachment; filename="my-votes.{format}"'}
        return StreamingResponse(lines, media_type=media_type, headers=headers)


async def _lines(
    services: Services,
    limiters: RequestLimiters,
    annotator: Annotator,
    format_page: Callable[[list[VoteRecord]], str],
    header: str = "",
    end: str = "",
) -> AsyncIterator[str]:
    """Stream an export page by page, so that none is ever in memory as a whole."""
    yield header
    before: int | None = None
    while True:
        page = await limiters.reads.run(
            lambda before=before: services.store.own_votes.page(annotator.id, before=before, limit=EXPORT_PAGE)  # type: ignore[misc]
        )
        if not page:
            yield end
            return
        yield format_page(page)
        before = page[-1].vote_id


def _add_withdrawal(router: APIRouter, services: Services, limiters: RequestLimiters) -> None:
    store, labeling = services.store, services.labeling

    def withdraw_answer(annotator: Annotator, withdrawn: int) -> campaign_models.WithdrawAnswer:
        return campaign_models.WithdrawAnswer(
            withdrawn=withdrawn,
            votes_until_round=labeling.votes_until_round(),
            versions=store.taken_back.versions_of(services.base, annotator.id),
        )

    @router.post("/votes/withdraw", responses=document_errors(401, 503, 507))
    async def withdraw_all(token: SessionToken) -> campaign_models.WithdrawAnswer:
        """Withdraw every vote of yours. They stay on record as withdrawn; no later round learns from them."""

        def work() -> campaign_models.WithdrawAnswer:
            annotator = require_annotator(labeling, token)
            with labeling.durable_write():
                withdrawn = store.own_votes.withdraw_all(annotator.id)
            return withdraw_answer(annotator, withdrawn)

        return await limiters.writes.run(work)

    @router.post("/votes/{vote_id}/withdraw", responses=document_errors(401, 403, 404, 503, 507))
    async def withdraw(vote_id: VoteId, token: SessionToken) -> campaign_models.WithdrawAnswer:
        """Withdraw one vote of yours, however old. Doing so twice does no harm; the pair does not come back to you."""

        def work() -> campaign_models.WithdrawAnswer:
            annotator = require_annotator(labeling, token)
            with labeling.durable_write():
                withdrawn = store.own_votes.withdraw(vote_id, annotator.id)
            return withdraw_answer(annotator, int(withdrawn))

        return await limiters.writes.run(work)


def _add_consent(router: APIRouter, services: Services, limiters: RequestLimiters) -> None:
    labeling = services.labeling

    @router.get("/consent", responses=document_errors(401, 503))
    async def read(token: MaybeSessionToken) -> campaign_models.ConsentAnswer:
        """The consent text to agree to before the first vote, and your agreement to it."""

        def work() -> campaign_models.ConsentAnswer:
            agreement = None if token is None else labeling.consent.agreement(require_annotator(labeling, token))
            return _consent(services, agreement)

        return await limiters.reads.run(work)

    @router.post("/consent", responses=document_errors(401, 404, 409, 503, 507))
    async def agree(body: campaign_models.ConsentBody, token: SessionToken) -> campaign_models.ConsentAnswer:
        """Agree to the text with this hash. 409 when it is no longer the present one."""

        def work() -> campaign_models.ConsentAnswer:
            with labeling.durable_write():
                return _consent(services, labeling.consent.agree(require_annotator(labeling, token), body.sha256))

        return await limiters.writes.run(work)


def _add_reports(router: APIRouter, services: Services, limiters: RequestLimiters, limits: RateLimits) -> None:
    labeling = services.labeling

    @router.post("/reports", status_code=201, responses=document_errors(401, 403, 404, 413, 429, 503, 507))
    async def report(
        body: campaign_models.ReportBody, token: SessionToken, request: Request
    ) -> campaign_models.ReportAnswer:
        """Report the pair that was shown to you, which is not shown to you again.

        The same person again changes nothing until that report is cleared.
        """
        network = network_of(request)

        def work() -> campaign_models.ReportAnswer:
            annotator = require_annotator(labeling, token)
            limits.check_report(annotator.id, network)
            # A /48 of IPv6 may be one customer's, and would be 65,000 voices.
            voice = region_of(network) if ":" in network else network
            filed = labeling.report(annotator, body.assignment, body.reason, body.text, network=voice)
            is_gone = filed.retired_at is not None or filed.hidden_at is not None
            return campaign_models.ReportAnswer(report=filed.id, retired=is_gone)

        return await limiters.writes.run(work)


def _consent(services: Services, agreement: ConsentAgreement | None) -> campaign_models.ConsentAnswer:
    text = services.labeling.consent.text
    return campaign_models.ConsentAnswer(
        needed=text is not None and agreement is None,
        text=None if text is None else text.text,
        version=None if text is None else text.version,
        sha256=None if text is None else text.sha256,
        agreed_at=None if agreement is None else agreement.at,
    )


def _agreement(agreement: ConsentAgreement) -> campaign_models.AgreementOut:
    return campaign_models.AgreementOut(
        version=agreement.version, sha256=agreement.text_sha256, at=agreement.at, text=agreement.text
    )


def _own_vote(services: Services, vote: VoteRecord) -> campaign_models.OwnVote:
    expires_at = datetime.now(UTC) + IMAGE_LIFETIME
    return campaign_models.OwnVote(
        vote=vote.vote_id,
        prompt=vote.prompt,
        left=image_url(services, vote.left_image_id, expires_at),
        right=image_url(services, vote.right_image_id, expires_at),
        more=[image_url(services, image_id, expires_at) for image_id in vote.more_image_ids],
        order=None if vote.order is None else list(vote.order),
        question=vote.question,
        choice=vote.choice,
        strength=vote.strength,
        comment=vote.comment,
        elapsed_ms=vote.elapsed_ms,
        at=vote.at,
        undone_at=vote.undone_at,
        withdrawn_at=vote.withdrawn_at,
        versions=list(vote.versions),
    )
