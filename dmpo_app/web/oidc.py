"""A provider of OpenID Connect, asked who somebody is: authorization code with PKCE, the identity token verified.

Signatures and claims are checked by joserfc against the provider's published keys. Blocking; call it in a thread.
"""

from __future__ import annotations

import base64
import hashlib
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import httpx
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from dmpo_app.errors import Busy, LoginRefused
from dmpo_app.labeling.sign_in import Person, Way
from dmpo_app.settings import IdentitySettings
from dmpo_app.settings.sections import is_loopback

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "EdDSA")
"""Signatures by the provider's private key. `none`, and HS256 by a secret that is no key, are not among them."""
TIMEOUT_SECONDS = 10.0
LEEWAY_SECONDS = 60
METADATA_SECONDS = 3600.0
MAX_NAME = 60
MAX_SUBJECT = 255
_MAX_ANSWER = 256 * 1024


@dataclass(frozen=True, slots=True)
class _Metadata:
    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None
    secret_in_body: bool
    read_at: float


class OidcProvider:
    """The provider of the settings. Its metadata and keys are read when they are first needed."""

    def __init__(self, settings: IdentitySettings) -> None:
        if settings.oidc_issuer is None or settings.client_id is None:
            raise ValueError("there is no provider in these settings")
        self._issuer = settings.oidc_issuer
        self._client_id = settings.client_id
        self._secret = None if settings.client_secret is None else settings.client_secret.get_secret_value()
        self._settings = settings
        self._lock = threading.Lock()
        self._known: _Metadata | None = None

    def address(self, way: Way, state: str, redirect_uri: str) -> str:
        """Where somebody signs in. Raises Busy when the provider does not answer."""
        challenge = hashlib.sha256(way.verifier.encode()).digest()
        query = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": redirect_uri,
            "scope": " ".join(self._settings.scopes),
            "state": state,
            "nonce": way.nonce,
            "code_challenge": base64.urlsafe_b64encode(challenge).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        endpoint = self._metadata().authorization_endpoint
        return f"{endpoint}{'&' if urlsplit(endpoint).query else '?'}{urlencode(query)}"

    def person(self, way: Way, code: str, redirect_uri: str) -> Person:
        """Who came back with a code. Raises LoginRefused when anything about it is not right, Busy as above."""
        metadata = self._metadata()
        with _client() as client:
            tokens = self._exchange(client, metadata, way, code, redirect_uri)
            claims = self._verified(client, metadata, way, tokens.get("id_token"))
            if not {"preferred_username", "name"} & claims.keys():
                claims = {**self._userinfo(client, metadata, tokens.get("access_token"), claims["sub"]), **claims}
        return Person(metadata.issuer, claims["sub"], _name_of(claims), self._admin_name(claims))

    def _exchange(
        self, client: httpx.Client, metadata: _Metadata, way: Way, code: str, redirect_uri: str
    ) -> Mapping[str, Any]:
        body = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": way.verifier,
        }
        auth: httpx.BasicAuth | None = None
        if self._secret is None:
            body["client_id"] = self._client_id
        elif metadata.secret_in_body:
            body |= {"client_id": self._client_id, "client_secret": self._secret}
        else:  # RFC 6749, 2.3.1: both are form-encoded first
            auth = httpx.BasicAuth(quote(self._client_id, safe=""), quote(self._secret, safe=""))
        return _json(client, "POST", metadata.token_endpoint, data=body, auth=auth)

    def _verified(self, client: httpx.Client, metadata: _Metadata, way: Way, id_token: object) -> dict[str, Any]:
        """The claims of an identity token that is the provider's, for this studio, of this way, and of now."""
        if not isinstance(id_token, str):
            raise LoginRefused("the provider did not say who signed in")
        try:
            keys = KeySet.import_key_set(dict(_json(client, "GET", metadata.jwks_uri)))  # type: ignore[arg-type]
            claims = jwt.decode(id_token, keys, algorithms=list(ALGORITHMS)).claims
            jwt.JWTClaimsRegistry(
                leeway=LEEWAY_SECONDS,
                iss={"essential": True, "value": metadata.issuer},
                aud={"essential": True, "value": self._client_id},
                sub={"essential": True},
                exp={"essential": True},
                iat={"essential": True},
                nonce={"essential": True, "value": way.nonce},
            ).validate(claims)
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise LoginRefused(f"what the provider said cannot be relied on ({type(error).__name__})") from error
        parties = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
        authorized = claims.get("azp", self._client_id if len(parties) == 1 else None)
        if authorized != self._client_id or claims["nonce"] != way.nonce or len(claims["sub"]) > MAX_SUBJECT:
            raise LoginRefused("what the provider said is not meant for this studio")
        return claims

    def _userinfo(
        self, client: httpx.Client, metadata: _Metadata, access_token: object, subject: str
    ) -> Mapping[str, Any]:
        """What the provider tells beside the identity token; nothing where that is of somebody else."""
        if metadata.userinfo_endpoint is None or not isinstance(access_token, str):
            return {}
        headers = {"Authorization": f"Bearer {access_token}"}
        more = _json(client, "GET", metadata.userinfo_endpoint, headers=headers)
        return more if more.get("sub") == subject else {}

    def _admin_name(self, claims: Mapping[str, Any]) -> str | None:
        claim = self._settings.admin_claim
        if claim == "email" and claims.get("email_verified") is not True:
            return None
        found = claims.get(claim)
        return found if isinstance(found, str) and 0 < len(found) <= MAX_SUBJECT else None

    def _metadata(self) -> _Metadata:
        with self._lock:
            if self._known is None or time.monotonic() - self._known.read_at > METADATA_SECONDS:
                with _client() as client:
                    self._known = self._read(_json(client, "GET", f"{self._issuer}/.well-known/openid-configuration"))
            return self._known

    def _read(self, found: Mapping[str, Any]) -> _Metadata:
        issuer = found.get("issuer")
        if not isinstance(issuer, str) or issuer.rstrip("/") != self._issuer:
            raise LoginRefused(f"the provider at {self._issuer} says that it is another one")
        methods = found.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        userinfo = found.get("userinfo_endpoint")
        return _Metadata(
            issuer=issuer,
            authorization_endpoint=_endpoint(found, "authorization_endpoint"),
            token_endpoint=_endpoint(found, "token_endpoint"),
            jwks_uri=_endpoint(found, "jwks_uri"),
            userinfo_endpoint=None if userinfo is None else _endpoint(found, "userinfo_endpoint"),
            secret_in_body="client_secret_basic" not in methods,
            read_at=time.monotonic(),
        )


def _client() -> httpx.Client:
    return httpx.Client(timeout=TIMEOUT_SECONDS, follow_redirects=False, headers={"Accept": "application/json"})


def _json(client: httpx.Client, method: str, url: str, **more: Any) -> Mapping[str, Any]:
    """The JSON object that the provider answers. Raises Busy when it does not, LoginRefused when it says no."""
    try:
        answer = client.request(method, url, **more)
    except httpx.HTTPError as error:
        raise Busy("the sign-in provider does not answer; try again in a moment") from error
    if answer.status_code >= 500:
        raise Busy("the sign-in provider has a problem; try again in a moment")
    try:
        found = answer.json() if answer.is_success and len(answer.content) <= _MAX_ANSWER else None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise LoginRefused(f"the sign-in provider refused ({answer.status_code})")
    return found


def _endpoint(found: Mapping[str, Any], name: str) -> str:
    url = found.get(name)
    scheme = urlsplit(url).scheme if isinstance(url, str) else ""
    if not isinstance(url, str) or not (scheme == "https" or (scheme == "http" and is_loopback(url))):
        raise LoginRefused(f"the provider's {name} is no address that begins with https://")
    return url


def _name_of(claims: Mapping[str, Any]) -> str:
    """A name to greet somebody by, without anything that cannot be seen; empty where the provider tells none."""
    for claim in ("preferred_username", "name"):
        found = claims.get(claim)
        if isinstance(found, str) and (name := "".join(c for c in found if c.isprintable()).strip()):
            return name[:MAX_NAME]
    return ""
