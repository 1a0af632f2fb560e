"""OpenID Connect sign-in routes: begin, the callback in a window of its own, and redeeming it for a session."""

import secrets
from html import escape
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, Field

from dmpo_app.errors import BusyError, LoginRefusedError, NotFoundError, SetupError
from dmpo_app.labeling.sign_in import LIFETIME
from dmpo_app.settings import Settings
from dmpo_app.web.api_models import PlainText, example
from dmpo_app.web.authentication import MaybeSessionToken, network_of
from dmpo_app.web.error_responses import StudioRoute, document_errors
from dmpo_app.web.oidc import OidcProvider
from dmpo_app.web.rate_limits import RateLimits
from dmpo_app.web.routes.voting_routes import ANONYMOUS
from dmpo_app.web.services import Services, ThreadLimiter

_STYLE = """
:root{color-scheme:light dark}
body{font:17px/1.55 system-ui,sans-serif;max-width:30rem;margin:0 auto;padding:3rem 1.5rem}
h1{font-size:1.4rem}
output{display:block;margin:1rem 0;font:600 2rem/1.2 ui-monospace,Menlo,Consolas,monospace;letter-spacing:.12em}
"""

# To pages of this origin alone: the one that opened this window, and, where the provider cut that tie, others that
# browsers let it reach. Nobody without the ticket of this way can use the code.
_SCRIPT = """
const { way, code } = document.body.dataset;
history.replaceState(null, "", location.pathname);
const message = { kind: "dmpo-login", way, code };
const taken = (data) => data?.kind === "dmpo-login-taken" && data.way === way && close();
addEventListener("message", (event) => event.origin === location.origin && taken(event.data));
const channel = new BroadcastChannel("dmpo-login");
channel.addEventListener("message", (event) => taken(event.data));
channel.postMessage(message);
window.opener?.postMessage(message, location.origin);
setTimeout(() => { document.getElementById("by-hand").hidden = false; }, 1500);
"""


def signed_in_page(way: str, code: str) -> HTMLResponse:
    """Page after a sign-in that worked."""
    displayed_code = f"{code[:4]} {code[4:]}"
    return _page(
        "You are signed in",
        "<p>Go back to the studio; this window can be closed.</p>"
        '<div id="by-hand" hidden><p>If the studio asks for a code, it is this one. Type it in no other place.</p>'
        f"<output>{escape(displayed_code)}</output></div>",
        attributes=f' data-way="{escape(way)}" data-code="{escape(code)}"',
        script=_SCRIPT,
    )


def failed_page(reason: str, status: int) -> HTMLResponse:
    """Page after a sign-in that failed."""
    words = f"<p>{escape(reason[:1].upper() + reason[1:])}.</p><p>Close this window and try again in the studio.</p>"
    return _page("The sign-in did not work", words, status=status)


def _page(title: str, body: str, *, attributes: str = "", script: str = "", status: int = 200) -> HTMLResponse:
    nonce = secrets.token_urlsafe(16)
    policy = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    )
    document = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<style nonce="{nonce}">{_STYLE}</style><body{attributes}><h1>{title}</h1>{body}'
        + (f'<script nonce="{nonce}">{script}</script>' if script else "")
    )
    headers = {"Content-Security-Policy": policy, "Cache-Control": "no-store"}
    return HTMLResponse(document, status_code=status, headers=headers)


CALLBACK = "/login/callback"

FromProvider = Annotated[str, Query(max_length=2000)]


class LoginAbout(BaseModel):
    available: bool = Field(description="Whether people can sign in here.")
    needed: bool = Field(description="Whether only those take part who did.")
    label: str | None = Field(description="With whom, in words.")


class LoginBegun(BaseModel):
    model_config = example(url="https://login.example.org/authorize?...", way="q1Zk", ticket="gAAAAAB...", seconds=600)

    url: str = Field(description="Open it in a window of its own.")
    way: str = Field(description="Tells which sign-in a message of that window is about; no secret.")
    ticket: str = Field(description="Keep it: with the code of that window it is the session.")
    seconds: int = Field(description="How long it is good for.")


class RedeemBody(BaseModel):
    model_config = example(ticket="gAAAAAB...", code="K7WQ2MXP")

    ticket: Annotated[PlainText, Field(strict=True, max_length=1000)]
    code: Annotated[PlainText, Field(strict=True, max_length=40)]


class LoginAnswer(BaseModel):
    model_config = example(annotator="an_5fK2", token="gAAAAAB...", name="ada", administrator=None)

    annotator: str = Field(description="Public id of this annotator, the same at every sign-in.")
    token: str = Field(description="Send it as `Authorization: Bearer <token>`.")
    name: str = Field(description="What the provider calls you, for you to see; not stored.")
    administrator: str | None = Field(
        description="A token for administration, for some hours, if you are listed for it."
    )


def oidc_provider_from_settings(settings: Settings) -> OidcProvider | None:
    """Create the sign-in provider of the settings. Raises SetupError when people have to sign in and cannot."""
    if settings.identity.oidc_issuer is not None:
        return OidcProvider(settings.identity)
    if settings.access == "login":
        raise SetupError(
            "DMPO_LABELING__ACCESS=login, but there is nobody to sign in with; set DMPO_IDENTITY__OIDC_ISSUER and "
            "..._CLIENT_ID, or on a Space `hf_oauth: true` in its README.md"
        )
    return None


def login_router(services: Services, provider: OidcProvider | None, limits: RateLimits) -> APIRouter:
    """Routes under /api/v1/login."""
    router = APIRouter(route_class=StudioRoute, tags=["signing in"])
    settings, labeling = services.settings, services.labeling
    limiter = ThreadLimiter(4)  # of its own: it waits for another server

    @router.get("/login")
    async def about() -> LoginAbout:
        """Availability of signing in, and its necessity."""
        label = None if provider is None else settings.identity.label
        return LoginAbout(available=provider is not None, needed=settings.access == "login", label=label)

    @router.post("/login", responses=document_errors(403, 404, 429, 503))
    async def begin(request: Request) -> LoginBegun:
        """Begin to sign in."""
        oidc = _require_provider(provider)
        limits.check_login(network_of(request))
        sign_in = labeling.logins.begin()
        back_to = _redirect_uri(settings, request)
        url = await limiter.run(lambda: oidc.authorization_url(sign_in.attempt, sign_in.state, back_to))
        seconds = int(LIFETIME.total_seconds())
        return LoginBegun(url=url, way=sign_in.attempt.id, ticket=sign_in.ticket, seconds=seconds)

    @router.post("/login/session", responses=document_errors(403, 413, 503, 507))
    async def redeem(body: RedeemBody, token: MaybeSessionToken) -> LoginAnswer:
        """Redeem a sign-in for its session, once; five wrong codes end the sign-in.

        With the token of a session, who signs in here for the first time goes on as who they were in it.
        """

        def work() -> LoginAnswer:
            person = labeling.logins.redeem(body.ticket, body.code)
            annotator, session = labeling.open_session_as(person.issuer, person.subject, ANONYMOUS, token=token)
            is_administrator = person.admin_name is not None and person.admin_name in settings.identity.admins
            administrator = labeling.logins.seal_administrator(person.admin_name or "") if is_administrator else None
            return LoginAnswer(
                annotator=annotator.public_id, token=session, name=person.name, administrator=administrator
            )

        return await limiter.run(work)

    return router


def callback_router(services: Services, provider: OidcProvider | None) -> APIRouter:
    """The route of the redirect URI that a provider sends people back to."""
    router = APIRouter(route_class=StudioRoute, include_in_schema=False)
    logins = services.labeling.logins
    limiter = ThreadLimiter(4)

    @router.get(CALLBACK)
    async def returned(
        request: Request, state: FromProvider = "", code: FromProvider = "", error: FromProvider = ""
    ) -> HTMLResponse:
        oidc = _require_provider(provider)
        back_to = _redirect_uri(services.settings, request)

        def work() -> HTMLResponse:
            attempt = logins.accept_state(state)
            if error or not code:
                raise LoginRefusedError("you did not allow it, or the provider refused")
            return signed_in_page(attempt.id, logins.complete(attempt, oidc.authenticate(attempt, code, back_to)))

        try:
            return await limiter.run(work)
        except LoginRefusedError as refused:
            return failed_page(str(refused), 403)
        except BusyError as busy:
            return failed_page(str(busy), 503)

    return router


def _require_provider(provider: OidcProvider | None) -> OidcProvider:
    if provider is None:
        raise NotFoundError("nobody can sign in here")
    return provider


def _redirect_uri(settings: Settings, request: Request) -> str:
    asked_for = f"{request.url.scheme}://{request.url.netloc}{settings.root_path}"
    return (settings.identity.public_url or asked_for) + CALLBACK
