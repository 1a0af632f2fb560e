"""The JSON API under /api/v1 as one router, and its documentation: OpenAPI, and a page that shows it."""

import json
import re
from collections.abc import Mapping
from functools import cache, cached_property
from html import escape
from typing import Any, cast

from fastapi import APIRouter, Request, Response
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.types import ASGIApp

from dmpo_app import __version__
from dmpo_app.web.api_models import INT64_MAX
from dmpo_app.web.authentication import OPTIONAL_SCHEME
from dmpo_app.web.error_responses import (
    StudioRoute,
    UnroutedMiddleware,
    add_security_headers,
    response_from_http_exception,
    response_from_unexpected,
)
from dmpo_app.web.metrics import MetricsMiddleware
from dmpo_app.web.rate_limits import RateLimits
from dmpo_app.web.routes.data_routes import exports_router, imports_router
from dmpo_app.web.routes.effect_routes import effects_router
from dmpo_app.web.routes.health_routes import damage_router, health_router
from dmpo_app.web.routes.judging_routes import judging_router
from dmpo_app.web.routes.moderation_routes import gold_router, moderation_router, quality_router
from dmpo_app.web.routes.personal_routes import personal_router
from dmpo_app.web.routes.prompt_routes import prompts_router
from dmpo_app.web.routes.sign_in_routes import callback_router, login_router, oidc_provider_from_settings
from dmpo_app.web.routes.studio_routes import studio_router, versions_router
from dmpo_app.web.routes.study_routes import study_router
from dmpo_app.web.routes.voting_routes import voting_router
from dmpo_app.web.services import RenderBackpressureMiddleware, RequestLimiters, Services

TITLE = "DMPO Studio"
DESCRIPTION = (
    "People say which of two generated images they prefer; the model learns it while they watch. "
    'Every error is `{"detail", "code"}`. Limits (429) apply in public mode only.'
)
PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"

_STYLE = """
:root{color-scheme:light dark;--line:#8884;--soft:#8881;--accent:#0d8272}
body{font:16px/1.55 system-ui,sans-serif;max-width:56rem;margin:0 auto;padding:2rem 1rem 6rem}
h2{margin-top:2.5rem;text-transform:capitalize}
details{border:1px solid var(--line);border-radius:10px;margin:.5rem 0;padding:.6rem .9rem}
summary{cursor:pointer}code,pre{font:14px/1.5 ui-monospace,Menlo,Consolas,monospace}
pre{background:var(--soft);border-radius:8px;padding:.8rem;overflow:auto}
b.m{display:inline-block;min-width:4.5rem;color:var(--accent);font-family:ui-monospace,monospace}
td{padding:.15rem .9rem .15rem 0;vertical-align:top}
"""


class DescribedRouter(APIRouter):
    """A router with the OpenAPI description of its routes, below `root_path`, which is made when first asked for."""

    def __init__(self, root_path: str) -> None:
        super().__init__(redirect_slashes=False)  # they would leave the root path out
        self._root_path = root_path

    @cached_property
    def description(self) -> Mapping[str, Any]:
        return _describe(self, self._root_path)


def _describe(api_router: APIRouter, root_path: str) -> Mapping[str, Any]:
    servers = [{"url": root_path}] if root_path else None
    schema = get_openapi(
        title=TITLE, version=__version__, description=DESCRIPTION, routes=api_router.routes, servers=servers
    )
    schema["components"]["securitySchemes"].pop(OPTIONAL_SCHEME)
    for operations in schema["paths"].values():
        for operation in operations.values():
            if {OPTIONAL_SCHEME: []} in operation.get("security", ()):
                operation["security"] = [{}, {"annotator": []}]
    return cast(dict[str, Any], _with_whole_limits(schema))


def _with_whole_limits(part: Any) -> Any:
    """Write the limit of an id as the integer it is: the framework's model of a schema makes it a float beyond it."""
    if isinstance(part, dict):
        return {name: _with_whole_limits(value) for name, value in part.items()}
    if isinstance(part, list):
        return [_with_whole_limits(value) for value in part]
    return INT64_MAX if isinstance(part, float) and part == float(INT64_MAX) else part


def docs_router(api_router: DescribedRouter) -> APIRouter:
    """`/openapi.json` and `/docs`, and the same under /api/v1, about the routes of `api_router`."""
    router = APIRouter(route_class=StudioRoute, include_in_schema=False)
    document = cache(lambda: json.dumps(api_router.description))
    html = cache(lambda: _page(api_router.description))

    @router.get("/api/v1/openapi.json")
    @router.get("/openapi.json")
    async def openapi() -> Response:
        return Response(document(), media_type="application/json")

    @router.get("/api/v1/docs")
    @router.get("/docs")
    async def page() -> HTMLResponse:
        return HTMLResponse(html(), headers={"Content-Security-Policy": PAGE_POLICY})

    return router


def _page(schema: Mapping[str, Any]) -> str:
    groups: dict[str, list[str]] = {}
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            tag = (operation.get("tags") or ["other"])[0]
            groups.setdefault(tag, []).append(_operation(schema, method, path, operation))
    body = "".join(f"<h2>{escape(tag)}</h2>{''.join(items)}" for tag, items in groups.items())
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{TITLE} API</title><style>{_STYLE}</style>"
        f"<h1>{TITLE} API</h1><p>{escape(DESCRIPTION)}</p>"
        f'<p>Machine-readable: <a href="openapi.json">openapi.json</a></p>{body}</html>'
    )


def _operation(schema: Mapping[str, Any], method: str, path: str, operation: Mapping[str, Any]) -> str:
    rows = [
        f"<tr><td><code>{escape(p['name'])}</code></td><td>in {escape(p['in'])}</td>"
        f"<td>{escape(p.get('description') or '')}</td></tr>"
        for p in operation.get("parameters", [])
    ]
    response_rows = [
        f"<tr><td><code>{escape(status)}</code></td><td>{escape(answer.get('description') or '')}</td></tr>"
        for status, answer in sorted(operation["responses"].items())
    ]
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    return (
        f"<details><summary><b class=m>{escape(method.upper())}</b> <code>{escape(path)}</code></summary>"
        f"<p>{escape(operation.get('description') or operation.get('summary') or '')}</p>"
        + (f"<table>{''.join(rows)}</table>" if rows else "")
        + (f"<p>Body</p>{_example(schema, body)}" if body else "")
        + f"<p>Responses</p><table>{''.join(response_rows)}</table></details>"
    )


def _example(schema: Mapping[str, Any], reference: Mapping[str, Any]) -> str:
    """Show the example of a referenced schema, else the schema itself."""
    name = str(reference.get("$ref", "")).rsplit("/", 1)[-1]
    model = schema["components"]["schemas"].get(name, reference)
    example = (model.get("examples") or [model])[0]
    return f"<pre>{escape(json.dumps(example, indent=2))}</pre>"


PREFIX = "/api/v1"


def build_api_app(router: DescribedRouter, services: Services) -> ASGIApp:
    """Build the API's ASGI application with the middleware it needs: its routes handle errors and limits themselves.

    Gradio's page has more middleware, for compression, other origins and telemetry, which took a fifth of a vote's
    time.
    """
    handlers: dict[Any, Any] = {HTTPException: _http_problem, Exception: _unexpected_problem}
    api = ExceptionMiddleware(AsyncExitStackMiddleware(router), handlers=handlers)
    guarded = RenderBackpressureMiddleware(api, services, f"{PREFIX}/render")
    shaped = UnroutedMiddleware(guarded, lambda path: _methods_at(router.description, path))
    return MetricsMiddleware(shaped, services.metrics, prefix=PREFIX)


def _methods_at(schema: Mapping[str, Any], path: str) -> list[str]:
    """The methods of a path, by the description of the API; GET of one that is not described."""
    templates = [path] if path in schema["paths"] else [one for one in schema["paths"] if _matches(one, path)]
    return sorted({method.upper() for one in templates for method in schema["paths"][one]}) or ["GET"]


def _matches(template: str, path: str) -> bool:
    """True when a path is one of a template, such as /api/v1/rounds/{round_id}/progress."""
    return re.fullmatch(re.sub(r"\\{.*?\\}", "[^/]+", re.escape(template)), path) is not None


async def _http_problem(_request: Request, error: Exception) -> Response:
    """Answer what no route raised: a path that is none, in the shape of every error."""
    assert isinstance(error, HTTPException)
    return add_security_headers(response_from_http_exception(error))


async def _unexpected_problem(request: Request, error: Exception) -> Response:
    """Answer what failed behind a route, as when a file cannot be opened to be sent."""
    return add_security_headers(response_from_unexpected(request, error))


def create_router(services: Services) -> DescribedRouter:
    """Create the router with every route of the API and its documentation; it handles errors and limits itself.

    Raises SetupError for settings that cannot be.
    """
    settings = services.settings
    limits = RateLimits(settings.limits, on=settings.public)
    limiters = RequestLimiters()
    provider = oidc_provider_from_settings(settings)
    parts = [
        login_router(services, provider, limits),
        voting_router(services, limiters, limits),
        personal_router(services, limiters, limits),
        studio_router(services, limiters, limits),
        versions_router(services, limiters),
        judging_router(services, limiters),
        effects_router(services, limiters),
        moderation_router(services, limiters),
        gold_router(services, limiters),
        prompts_router(services, limiters),
        quality_router(services, limiters),
        study_router(services, limiters),
        exports_router(services, limiters),
        imports_router(services, limiters),
        damage_router(services, limiters),
    ]
    router = DescribedRouter(settings.root_path)
    for part in parts:
        router.include_router(part, prefix=PREFIX)
    router.include_router(docs_router(router))
    router.include_router(callback_router(services, provider))
    router.include_router(health_router(services, limiters))
    return router
