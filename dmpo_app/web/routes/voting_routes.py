"""Sessions, assignments, images and votes: what the label widget and outside clients use."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from dmpo_app.domain.vote import Annotator, Answer, Assignment
from dmpo_app.labeling.service import MAX_ASSIGNMENTS, MAX_ELAPSED_MS
from dmpo_app.web.api_models import (
    INT64_MAX,
    AssignmentOut,
    AssignmentsAnswer,
    SessionAnswer,
    SessionBody,
    UndoAnswer,
    VoteAnswer,
    VoteBody,
)
from dmpo_app.web.authentication import SessionToken, admitted, annotator_of
from dmpo_app.web.concurrency import Lanes
from dmpo_app.web.error_responses import StudioRoute, documented
from dmpo_app.web.rate_limits import Limits
from dmpo_app.web.services import Services

IMAGES = "/api/v1/images/"
MAX_COUNT = 1000
ANONYMOUS = "anonymous"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

Count = Annotated[int, Query(ge=1, le=MAX_COUNT, description=f"At most {MAX_ASSIGNMENTS} are open at a time.")]
VoteId = Annotated[int, Path(ge=0, le=INT64_MAX)]
ImageToken = Annotated[str, Path(max_length=1000)]


def image_url(services: Services, image_id: int, expires_at: datetime) -> str:
    """An unguessable, expiring address of one image; it needs no header and says nothing about how it was made."""
    return IMAGES + services.labeling.image_url_token(image_id, expires_at)


def voting_router(services: Services, lanes: Lanes, limits: Limits) -> APIRouter:
    """Routes under /api/v1 for annotators."""
    router = APIRouter(route_class=StudioRoute, tags=["voting"])
    labeling = services.labeling

    @router.post("/session", responses=documented(403, 413, 429, 503, 507))
    async def open_session(body: SessionBody) -> SessionAnswer:
        """Become an annotator. The token is the identity: keep it, there is no other way back to it."""
        limits.session()

        def work() -> tuple[Annotator, str]:
            return labeling.open_session(body.handle or ANONYMOUS, body.invite or None)

        annotator, token = await lanes.writes.run(work)
        return SessionAnswer(annotator=annotator.public_id, token=token)

    @router.get("/assignments", responses=documented(401, 403, 503))
    async def list_assignments(token: SessionToken, count: Count = 1) -> AssignmentsAnswer:
        """Pairs to judge. Asking again gives the same open ones first and tops them up to `count`.

        Where several questions are asked, those about a pair follow one another, its images on the same sides.
        """

        wished = min(count, MAX_ASSIGNMENTS)

        annotator = await admitted(labeling, lanes, token)
        items = await lanes.votes.run(lambda: labeling.assignments(annotator, wished))
        addresses = _Addresses(services)
        return AssignmentsAnswer(assignments=[_assignment(services, item, addresses) for item in items])

    _add_votes(router, services, lanes, limits)

    @router.get(
        "/images/{token}",
        response_class=Response,
        responses={200: {"content": {"image/png": {}}, "description": "The image."}, **documented(404, 410)},
    )
    async def image(token: ImageToken) -> Response:
        """One image. The address is the permission; it expires."""
        png = await lanes.reads.run(lambda: services.store.files.read_image(labeling.image_for(token).sha256))
        return _png(png)

    return router


def _add_votes(router: APIRouter, services: Services, lanes: Lanes, limits: Limits) -> None:
    labeling = services.labeling

    @router.post(
        "/votes",
        status_code=201,
        responses={
            200: {"model": VoteAnswer, "description": "This very vote had been taken before."},
            **documented(401, 403, 404, 409, 410, 413, 429, 503, 507),
        },
    )
    async def vote(body: VoteBody, token: SessionToken, response: Response) -> VoteAnswer:
        """Answer an assignment. Safe to send again: the same answer is 200, another one 409."""

        annotator = await admitted(labeling, lanes, token)
        limits.vote(f"annotator:{annotator.id}")
        answer = Answer(body.choice, body.strength, body.comment, None if body.order is None else tuple(body.order))
        elapsed_ms = min(body.elapsed_ms, MAX_ELAPSED_MS)
        taken = await lanes.votes.run(lambda: labeling.vote(annotator, body.assignment, answer, elapsed_ms))
        if labeling.settles:
            await lanes.writes.run(labeling.settle)
        response.status_code = 201 if taken.created else 200
        return VoteAnswer(vote=taken.vote_id, votes_until_round=labeling.votes_until_round(taken))

    @router.delete("/votes/{vote_id}", responses=documented(401, 403, 404, 409, 503, 507))
    async def undo(vote_id: VoteId, token: SessionToken) -> UndoAnswer:
        """Take back one's own latest vote; its assignment is open again. Undoing twice does no harm.

        Again and again it goes back over the last 10; older ones can be withdrawn.
        """

        def work() -> UndoAnswer:
            labeling.undo(annotator_of(labeling, token), vote_id)
            return UndoAnswer(vote=vote_id, votes_until_round=labeling.votes_until_round())

        return await lanes.writes.run(work)


class _Addresses:
    """Of the images in one answer: an image shown twice has one address, so that it is fetched once."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._known: dict[tuple[int, datetime], str] = {}

    def of(self, image_id: int, expires_at: datetime) -> str:
        if (image_id, expires_at) not in self._known:
            self._known[image_id, expires_at] = image_url(self._services, image_id, expires_at)
        return self._known[image_id, expires_at]


def _assignment(services: Services, item: Assignment, addresses: _Addresses) -> AssignmentOut:
    # A little longer than the assignment, so that an image asked for in its last second still comes.
    expires_at = item.expires_at + timedelta(minutes=1)
    return AssignmentOut(
        id=item.id,
        prompt=item.prompt,
        left=addresses.of(item.left_image_id, expires_at),
        right=addresses.of(item.right_image_id, expires_at),
        more=[addresses.of(image_id, expires_at) for image_id in item.more_image_ids],
        question=item.question,
        asks=[ask for ask in services.settings.labeling.asks if ask != "strength" or not item.more_image_ids],
        expires_at=item.expires_at,
    )


def _png(png: bytes) -> Response:
    """Only bytes that this program encoded itself; the check guards against a damaged home, not against people."""
    if not png.startswith(PNG_SIGNATURE):
        raise ValueError("a stored image is not a PNG")
    return Response(png, media_type="image/png", headers={"Cache-Control": "private, max-age=86400, immutable"})
