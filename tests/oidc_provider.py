"""A small provider of OpenID Connect in a process of its own: `python -m tests.oidc_provider PORT`.

Everything a client needs is real: discovery, a page that asks, codes that are good once and for their PKCE verifier and
client, signed identity tokens, keys, userinfo. POST /misbehave makes it lie, so that clients can be seen to notice.
"""

import base64
import hashlib
import hmac
import html
import json
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

import httpx
from joserfc import jws, jwt
from joserfc.jwk import ECKey, OctKey

from tests.patience import PATIENCE
from tests.studio_process import PROJECT_ROOT, free_port

CLIENT_ID, CLIENT_SECRET = "dmpo studio", "s3cret: of tests"
SHARED_KEY = OctKey.import_key("a key that is published, though it is symmetric", {"kid": "shared"})


class Provider(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.issuer = f"http://127.0.0.1:{self.server_port}"
        self.key = ECKey.generate_key("P-256", {"kid": "1", "use": "sig", "alg": "ES256"})
        self.codes: dict[str, dict[str, str]] = {}
        self.access: dict[str, str] = {}
        self.lies: dict[str, Any] = {}


class Handler(BaseHTTPRequestHandler):
    server: Provider

    def do_GET(self) -> None:
        path, query = self._asked()
        issuer = self.server.issuer
        if path == "/.well-known/openid-configuration":
            names = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "jwks"}
            found = {name: f"{issuer}/{path}" for name, path in names.items()}
            self._json({"issuer": issuer, "userinfo_endpoint": f"{issuer}/userinfo", **found})
        elif path == "/jwks":
            shared = [SHARED_KEY.as_dict(private=True)] if self.server.lies.get("signature") == "symmetric" else []
            self._json({"keys": [{"kty": "new kind of key"}, *shared, self.server.key.as_dict(private=False)]})
        elif path == "/userinfo":
            subject = self.server.access.get(self.headers.get("Authorization", "").removeprefix("Bearer "))
            self._json({"sub": subject, "preferred_username": subject}, 200 if subject else 401)
        elif path == "/authorize" and query.get("client_id") == CLIENT_ID and query.get("response_type") == "code":
            fields = "".join(
                f'<input type="hidden" name="{html.escape(name)}" value="{html.escape(value)}">'
                for name, value in query.items()
            )
            people = "".join(f'<button name="as" value="{name}">Allow as {name}</button>' for name in ("ada", "eve"))
            page = (
                f'<!doctype html><title>Provider</title><form method="post" action="/authorize">{fields}{people}</form>'
            )
            self._answer(200, page.encode(), "text/html")
        else:
            self._json({"error": "invalid_request"}, 400)

    def do_POST(self) -> None:
        path, _ = self._asked()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        if path == "/misbehave":
            self.server.lies = json.loads(body)
            self._answer(200, b"{}", "application/json")
            return
        form = {name: values[-1] for name, values in parse_qs(body).items()}
        if path == "/authorize":
            self._allow(form)
        elif path == "/token":
            self._token(form)
        else:
            self._json({"error": "not_found"}, 404)

    def _allow(self, form: dict[str, str]) -> None:
        code = secrets.token_urlsafe(12)
        self.server.codes[code] = form
        back = {"state": form["state"], **({"code": code} if "as" in form else {"error": "access_denied"})}
        self.send_response(302)
        self.send_header("Location", f"{form['redirect_uri']}?{urlencode(back)}")
        self._isolate()
        self.end_headers()

    def _token(self, form: dict[str, str]) -> None:
        asked = self.server.codes.pop(form.get("code", ""), None)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        if (
            asked is None
            or not self._is_client()
            or form["redirect_uri"] != asked["redirect_uri"]
            or not hmac.compare_digest(challenge.rstrip(b"=").decode(), asked["code_challenge"])
        ):
            self._json({"error": "invalid_grant"}, 400)
            return
        now, access = int(time.time()), secrets.token_urlsafe(12)
        self.server.access[access] = asked["as"]
        claims = {
            "iss": self.server.issuer, "sub": asked["as"], "aud": CLIENT_ID, "iat": now, "exp": now + 300,
            "nonce": asked["nonce"], "at_hash": _half_of_sha256(access), **self.server.lies.get("claims", {}),
        }  # fmt: skip
        claims = {name: value for name, value in claims.items() if value is not None}
        self._json({"access_token": access, "token_type": "Bearer", "id_token": self._signed(claims)})

    def _signed(self, claims: dict[str, Any]) -> str:
        how = self.server.lies.get("signature")
        if how == "none":
            parts = ({"alg": "none"}, claims)
            return ".".join(base64.urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=").decode() for p in parts) + "."
        if how == "hs256":  # as if the client's secret were a key
            return jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(CLIENT_SECRET * 2), algorithms=["HS256"])
        if how == "public key":  # as if what everybody may read were a secret
            public = OctKey.import_key(base64.b64encode(self.server.key.as_der(private=False)))
            return jwt.encode({"alg": "HS256", "kid": "1"}, claims, public, algorithms=["HS256"])
        if how == "symmetric":  # by a key that is published as "kty": "oct"
            return jwt.encode({"alg": "HS256", "kid": "shared"}, claims, SHARED_KEY, algorithms=["HS256"])
        if how == "its own key":  # one that comes with the token
            key = ECKey.generate_key("P-256")
            return jwt.encode({"alg": "ES256", "jwk": key.as_dict(private=False)}, claims, key)
        key = ECKey.generate_key("P-256") if how == "foreign" else self.server.key
        return jws.serialize_compact({"alg": "ES256", "kid": "1"}, json.dumps(claims), key)

    def _is_client(self) -> bool:
        given = base64.b64decode(self.headers.get("Authorization", "").removeprefix("Basic ")).decode()
        return [unquote(part) for part in given.split(":")] == [CLIENT_ID, CLIENT_SECRET]

    def _asked(self) -> tuple[str, dict[str, str]]:
        parts = urlsplit(self.path)
        return parts.path, {name: values[-1] for name, values in parse_qs(parts.query).items()}

    def _isolate(self) -> None:
        """As large providers do: the window that opened this one is out of reach from then on."""
        if self.server.lies.get("isolated"):
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")

    def _json(self, content: dict[str, Any], status: int = 200) -> None:
        path, _ = self._asked()
        body = json.dumps({**content, **self.server.lies.get("answers", {}).get(path, {})}).encode()
        body = self.server.lies.get("bodies", {}).get(path, "").encode() or body
        status = self.server.lies.get("statuses", {}).get(path, self.server.lies.get("status", status))
        self._answer(status, body, "application/json")

    def _answer(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self._isolate()
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is logged."""


def _half_of_sha256(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()[:16]).rstrip(b"=").decode()


class RunningProvider:
    """A running provider, with what tests may say to it."""

    def __init__(self, issuer: str) -> None:
        self.issuer = issuer

    @property
    def settings(self) -> dict[str, Any]:
        """Of a studio whose people sign in with it."""
        return {"oidc_issuer": self.issuer, "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "label": "Tests"}

    def misbehave(self, **lies: Any) -> None:
        httpx.post(f"{self.issuer}/misbehave", content=json.dumps(lies), timeout=PATIENCE).raise_for_status()

    def allow(self, url: str, who: str | None = "ada") -> dict[str, str]:
        """Allow, as `who`, what an authorization address asks for; None refuses. Returns what comes back."""
        query = dict(item.split("=", 1) for item in urlsplit(url).query.split("&"))
        form = {name: unquote(value.replace("+", " ")) for name, value in query.items()}
        answer = httpx.post(f"{self.issuer}/authorize", data=form | ({"as": who} if who else {}), timeout=PATIENCE)
        back = parse_qs(urlsplit(answer.headers["Location"]).query)
        return {name: values[-1] for name, values in back.items()}


@contextmanager
def running_provider() -> Iterator[RunningProvider]:
    """A provider in a process of its own, ready to be asked."""
    port = free_port()
    command = [sys.executable, "-m", "tests.oidc_provider", str(port)]
    process = subprocess.Popen(command, cwd=PROJECT_ROOT, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield RunningProvider(process.stdout.readline().decode().strip())
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


if __name__ == "__main__":
    provider = Provider(int(sys.argv[1]))
    sys.stdout.write(f"{provider.issuer}\n")
    sys.stdout.flush()
    provider.serve_forever()
