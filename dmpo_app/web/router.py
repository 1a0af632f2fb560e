"""The JSON API under /api/v1, as one router."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.exception_handlers import http_exception_handler
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from starlette.exceptions import HTTPException
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.types import ASGIApp

from dmpo_app.web.concurrency import RenderBackpressureMiddleware, RequestLimiters
from dmpo_app.web.rate_limits import RateLimits
from dmpo_app.web.routes.doc_routes import docs_router
from dmpo_app.web.routes.export_routes import exports_router
from dmpo_app.web.routes.import_routes import imports_router
from dmpo_app.web.routes.moderation_routes import gold_router, moderation_router, quality_router
from dmpo_app.web.routes.personal_routes import personal_router
from dmpo_app.web.routes.prompt_routes import prompts_router
from dmpo_app.web.routes.sign_in_routes import callback_router, login_router, oidc_provider_from_settings
from dmpo_app.web.routes.studio_routes import studio_router
from dmpo_app.web.routes.version_routes import versions_router
from dmpo_app.web.routes.voting_routes import voting_router
from dmpo_app.web.services import Services

PREFIX = "/api/v1"


def build_api_app(router: APIRouter, services: Services) -> ASGIApp:
    """Build the API's ASGI application with the middleware it needs: its routes handle errors and limits themselves.

    Gradio's page has more middleware, for compression, other origins and telemetry, which took a fifth of a vote's
    time.
    """
    handlers: dict[Any, Any] = {HTTPException: http_exception_handler}
    api = ExceptionMiddleware(AsyncExitStackMiddleware(router), handlers=handlers)
    return RenderBackpressureMiddleware(api, services, f"{PREFIX}/render")


def create_router(services: Services) -> APIRouter:
    """Create the router with every route of the API and its documentation; it handles errors and limits itself.

    Raises SetupError for settings that cannot be.
    """
    settings = services.settings
    limits = RateLimits(
        on=settings.public,
        votes=settings.limits.votes_per_minute,
        renders=settings.limits.renders_per_minute,
        sessions=settings.limits.sessions_per_minute,
        reports=settings.limits.reports_per_minute,
    )
    limiters = RequestLimiters()
    provider = oidc_provider_from_settings(settings)
    parts = [
        login_router(services, provider, limits),
        voting_router(services, limiters, limits),
        personal_router(services, limiters, limits),
        studio_router(services, limiters, limits),
        versions_router(services, limiters),
        moderation_router(services, limiters),
        gold_router(services, limiters),
        prompts_router(services, limiters),
        quality_router(services, limiters),
        exports_router(services, limiters),
        imports_router(services, limiters),
    ]
    router = APIRouter()
    for part in parts:
        router.include_router(part, prefix=PREFIX)
    router.include_router(docs_router(router))
    router.include_router(callback_router(services, provider))
    return router
