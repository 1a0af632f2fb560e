"""The JSON API under /api/v1, as one router."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.exception_handlers import http_exception_handler
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from starlette.exceptions import HTTPException
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.types import ASGIApp

from dmpo_app.web.concurrency import Crowding, Lanes
from dmpo_app.web.rate_limits import Limits
from dmpo_app.web.routes.doc_routes import docs_router
from dmpo_app.web.routes.export_routes import exports_router
from dmpo_app.web.routes.import_routes import imports_router
from dmpo_app.web.routes.moderation_routes import gold_router, moderation_router, quality_router
from dmpo_app.web.routes.personal_routes import personal_router
from dmpo_app.web.routes.prompt_routes import prompts_router
from dmpo_app.web.routes.sign_in_routes import callback_router, login_router, provider_of
from dmpo_app.web.routes.studio_routes import studio_router
from dmpo_app.web.routes.version_routes import versions_router
from dmpo_app.web.routes.voting_routes import voting_router
from dmpo_app.web.services import Services

PREFIX = "/api/v1"


def standing_alone(router: APIRouter, services: Services) -> ASGIApp:
    """The router as an application with only what it needs around it: its routes see to errors and limits themselves.

    Around Gradio's page stands more, for compression, other origins and telemetry, which took a fifth of a vote's time.
    """
    handlers: dict[Any, Any] = {HTTPException: http_exception_handler}
    api = ExceptionMiddleware(AsyncExitStackMiddleware(router), handlers=handlers)
    return Crowding(api, services, f"{PREFIX}/render")


def create_router(services: Services) -> APIRouter:
    """Every route of the API with its documentation. The router carries its own handling of errors and limits.

    Raises SetupProblem for settings that cannot be.
    """
    settings = services.settings
    limits = Limits(
        on=settings.public,
        votes=settings.limits.votes_per_minute,
        renders=settings.limits.renders_per_minute,
        sessions=settings.limits.sessions_per_minute,
        reports=settings.limits.reports_per_minute,
    )
    lanes = Lanes()
    provider = provider_of(settings)
    parts = [
        login_router(services, provider, limits),
        voting_router(services, lanes, limits),
        personal_router(services, lanes, limits),
        studio_router(services, lanes, limits),
        versions_router(services, lanes),
        moderation_router(services, lanes),
        gold_router(services, lanes),
        prompts_router(services, lanes),
        quality_router(services, lanes),
        exports_router(services, lanes),
        imports_router(services, lanes),
    ]
    router = APIRouter()
    for part in parts:
        router.include_router(part, prefix=PREFIX)
    router.include_router(docs_router(router))
    router.include_router(callback_router(services, provider))
    return router
