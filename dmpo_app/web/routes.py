"""The JSON API under /api/v1, as one router."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.exception_handlers import http_exception_handler
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from starlette.exceptions import HTTPException
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.types import ASGIApp

from dmpo_app.web.crowding import Crowding
from dmpo_app.web.docs import docs_router
from dmpo_app.web.exports import exports_router
from dmpo_app.web.gold import gold_router
from dmpo_app.web.imports import imports_router
from dmpo_app.web.lanes import Lanes
from dmpo_app.web.limits import Limits
from dmpo_app.web.login import callback_router, login_router, provider_of
from dmpo_app.web.moderation import moderation_router
from dmpo_app.web.personal import personal_router
from dmpo_app.web.prompts import prompts_router
from dmpo_app.web.quality import quality_router
from dmpo_app.web.services import Services
from dmpo_app.web.studio import studio_router
from dmpo_app.web.versions import versions_router
from dmpo_app.web.voting import voting_router

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
