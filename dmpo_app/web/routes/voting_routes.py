"""Voting routes: sessions, assignments, images and votes, for the label widget and outside clients."""

from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from dmpo_app.domain.vote import Annotator, Assignment, AssignmentKind, SubmittedVote
from dmpo_app.labeling.service import MAX_ASSIGNMENTS, MAX_ELAPSED_MS
from dmpo_app.web import api_models
from dmpo_app.web.authentication import SessionToken, network_of, require_admitted_annotator, require_annotator
from dmpo_app.web.error_responses import StudioRoute, document_errors
from dmpo_app.web.rate_limits import RateLimits
from dmpo_app.web.services import RequestLimiters, Services

IMAGES = "/api/v1/images/"
MAX_COUNT = 1000
ANONYMOUS = "anonymous"

Count = Annotated[int, Query(ge=1, le=MAX_COUNT, description=f"At most {MAX_ASSIGNMENTS} are open at a time.")]
VoteId = Annotated[int, Path(ge=0, le=api_models.INT64_MAX)]
ImageToken = Annotated[str, Path(max_length=1000)]


def image_url(services: Services, image_id: int, expires_at: datetime) -> str:
    """URL of an image, unguessable and expiring; it needs no header and says nothing about how the image was made."""
    return IMAGES + services.labeling.image_url_token(image_id, expires_at)


def voting_router(services: Services, limiters: RequestLimiters, limits: RateLimits) -> APIRouter:
    """Routes under /api/v1 for annotators."""
    router = APIRouter(route_class=StudioRoute, tags=["voting"])
    labeling = services.labeling

    @router.post("/session", responses=document_errors(403, 413, 429, 503, 507))
    async def open_session(body: api_models.SessionBody, request: Request) -> api_models.SessionAnswer:
        """Become an annotator. The token is the identity: keep it, there is no other way back to it."""
        limits.check_session(network_of(request))

        def work() -> tuple[Annotator, str]:
            return labeling.open_session(body.handle or ANONYMOUS, body.invite or None)

        annotator, token = await limiters.writes.run(work)
        return api_models.SessionAnswer(annotator=annotator.public_id, token=token)

    @router.get("/assignments", responses=document_errors(401, 403, 503))
    async def list_assignments(
        token: SessionToken, count: Count = 1, kind: AssignmentKind = AssignmentKind.LABEL
    ) -> api_models.AssignmentsAnswer:
        """Assignments to vote on. Asking again gives the same open ones first and tops them up to `count`.

        `kind=duels`: only pairs of two versions' images of one prompt and seed, those of an open study first; among the
        others some are mixed in.

        Where several questions are asked, those about a pair follow one another, its images on the same sides.
        """
        num_assignments = min(count, MAX_ASSIGNMENTS)

        annotator = await require_admitted_annotator(labeling, limiters, token)
        is_for_duels = kind is AssignmentKind.DUELS
        study = await limiters.reads.run(lambda: labeling.study_for(annotator)) if is_for_duels else None
        items = await limiters.votes.run(lambda: labeling.assignments(annotator, num_assignments, kind, study))
        addresses = _ImageUrls(services)
        return api_models.AssignmentsAnswer(
            assignments=[_assignment(services, item, addresses) for item in items],
            no_duels=await limiters.reads.run(labeling.no_duels_reason) if is_for_duels and not items else None,
        )

    _add_votes(router, services, limiters, limits)

    @router.get(
        "/images/{token}",
        response_class=Response,
        responses={200: {"content": {"image/png": {}}, "description": "The image."}, **document_errors(404, 410, 503)},
    )
    async def image(token: ImageToken) -> Response:
        """One image. The address is the permission; it expires. 410 also for an image that is damaged."""
        png = await limiters.reads.run(lambda: labeling.read_image(token))
        return Response(png, media_type="image/png", headers={"Cache-Control": "private, max-age=86400, immutable"})

    return router


def _add_votes(router: APIRouter, services: Services, limiters: RequestLimiters, limits: RateLimits) -> None:
    labeling = services.labeling

    @router.post(
        "/votes",
        status_code=201,
        responses={
            200: {"model": api_models.VoteAnswer, "description": "This very vote had been taken before."},
            **document_errors(401, 403, 404, 409, 410, 413, 429, 503, 507),
        },
    )
    async def vote(
        body: api_models.VoteBody, token: SessionToken, request: Request, response: Response
    ) -> api_models.VoteAnswer:
        """Vote on an assignment. Safe to send again: the same vote is 200, another one 409."""
        annotator = await require_admitted_annotator(labeling, limiters, token)
        limits.check_vote(annotator.id, network_of(request))
        vote_input = SubmittedVote(
            body.choice, body.strength, body.comment, None if body.order is None else tuple(body.order)
        )
        elapsed_ms = min(body.elapsed_ms, MAX_ELAPSED_MS)
        vote_receipt = await limiters.votes.run(
            lambda: labeling.vote(annotator, body.assignment, vote_input, elapsed_ms)
        )
        if labeling.is_synchronous:
            await limiters.writes.run(labeling.wait_until_durable)
        services.decisions.wake()
        response.status_code = 201 if vote_receipt.is_new else 200
        return api_models.VoteAnswer(
            vote=vote_receipt.vote_id, votes_until_round=labeling.votes_until_round(vote_receipt)
        )

    @router.delete("/votes/{vote_id}", responses=document_errors(401, 403, 404, 409, 503, 507))
    async def undo(vote_id: VoteId, token: SessionToken) -> api_models.UndoAnswer:
        """Take back one's own latest vote; its assignment is open again. Undoing twice does no harm.

        Again and again it goes back over the last 10; older ones can be withdrawn.
        """

        def work() -> api_models.UndoAnswer:
            labeling.undo(require_annotator(labeling, token), vote_id)
            services.decisions.wake()
            return api_models.UndoAnswer(vote=vote_id, votes_until_round=labeling.votes_until_round())

        return await limiters.writes.run(work)


class _ImageUrls:
    """Image URLs of one response: an image that occurs twice has one URL, so that it is fetched once."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._urls: dict[tuple[int, datetime], str] = {}

    def url_for(self, image_id: int, expires_at: datetime) -> str:
        if (image_id, expires_at) not in self._urls:
            self._urls[image_id, expires_at] = image_url(self._services, image_id, expires_at)
        return self._urls[image_id, expires_at]


def _assignment(services: Services, item: Assignment, addresses: _ImageUrls) -> api_models.AssignmentOut:
    # A little longer than the assignment, so that an image asked for in its last second still comes.
    expires_at = item.expires_at + timedelta(minutes=1)
    return api_models.AssignmentOut(
        id=item.id,
        prompt=item.prompt,
        left=addresses.url_for(item.left_image_id, expires_at),
        right=addresses.url_for(item.right_image_id, expires_at),
        more=[addresses.url_for(image_id, expires_at) for image_id in item.more_image_ids],
        question=item.question,
        asks=[ask for ask in services.settings.labeling.asks if ask != "strength" or not item.more_image_ids],
        expires_at=item.expires_at,
    )
