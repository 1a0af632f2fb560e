"""The window that comes back from a sign-in: hands the code to the page that began, or shows it to be typed there."""

from __future__ import annotations

import secrets
from html import escape

from fastapi.responses import HTMLResponse

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


def returned_page(way: str, code: str) -> HTMLResponse:
    """The page for somebody who signed in."""
    shown = f"{code[:4]} {code[4:]}"
    return _page(
        "You are signed in",
        "<p>Go back to the studio; this window can be closed.</p>"
        '<div id="by-hand" hidden><p>If the studio asks for a code, it is this one. Type it in no other place.</p>'
        f"<output>{escape(shown)}</output></div>",
        attributes=f' data-way="{escape(way)}" data-code="{escape(code)}"',
        script=_SCRIPT,
    )


def failed_page(why: str, status: int) -> HTMLResponse:
    """The page for somebody whose sign-in came to nothing."""
    words = f"<p>{escape(why[:1].upper() + why[1:])}.</p><p>Close this window and try again in the studio.</p>"
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
