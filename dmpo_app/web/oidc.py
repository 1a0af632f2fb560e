"""A provider of OpenID Connect, asked who somebody is: authorization code with PKCE, the identity token verified.

Signatures and claims are checked by joserfc against the provider's published keys. Blocking; call it in a thread.
"""

from __future__ import annotations

import base64
import hashlib
import json
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
        query = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": redirect_uri,
            "scope": " ".join(self._settings.scopes),
            "state": state,
            "nonce": way.nonce,
            "code_challenge": _base64url(hashlib.sha256(way.verifier.encode()).digest()),
            "code_challenge_method": "S256",
        }
        endpoint = self._metadata().authorization_endpoint
        return f"{endpoint}{'&' if urlsplit(endpoint).query else '?'}{urlencode(query)}"

    def person(self, way: Way, code: str, redirect_uri: str) -> Person:
        """Who came back with a code. Raises LoginRefused when anything about it is not right, Busy as above."""
        metadata = self._metadata()
        with _client() as client:
            tokens = self._exchange(client, metadata, way, code, redirect_uri)
            claims = self._verified(client, metadata, way, tokens)
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

    def _verified(
        self, client: httpx.Client, metadata: _Metadata, way: Way, tokens: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The claims of an identity token that is the provider's, for this studio, of this way, and of now."""
        id_token, access_token = tokens.get("id_token"), tokens.get("access_token")
        if not isinstance(id_token, str):
            raise LoginRefused("the provider did not say who signed in")
        try:
            keys = KeySet.import_key_set(dict(_json(client, "GET", metadata.jwks_uri)))  # type: ignore[arg-type]
            token = jwt.decode(id_token, keys, algorithms=list(ALGORITHMS))
            claims = token.claims
            jwt.JWTClaimsRegistry(
                leeway=LEEWAY_SECONDS,
                iss={"essential": True, "value": metadata.issuer},
                aud={"essential": True, "value": self._client_id},
                sub={"essential": True},
                exp={"essential": True},
                iat={"essential": True},
                nonce={"essential": True, "value": way.nonce},
            ).validate(claims)
            claims["sub"].encode()  # JSON can say half a character, which nothing can be stored or hashed by
            if isinstance(access_token, str):
                at_hash = access_token_hash(access_token, token.header["alg"])
                if claims.get("at_hash", at_hash) != at_hash:
                    raise LoginRefused("the provider's two tokens do not belong together")
        except (JoseError, ValueError, TypeError, KeyError, RecursionError) as error:
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
        if metadata.userinfo_endpoint is None or not (isinstance(access_token, str) and access_token.isascii()):
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
        methods = found.get("token_endpoint_auth_methods_supported")
        userinfo = found.get("userinfo_endpoint")
        return _Metadata(
            issuer=issuer,
            authorization_endpoint=_endpoint(found, "authorization_endpoint"),
            token_endpoint=_endpoint(found, "token_endpoint"),
            jwks_uri=_endpoint(found, "jwks_uri"),
            userinfo_endpoint=None if userinfo is None else _endpoint(found, "userinfo_endpoint"),
            secret_in_body=isinstance(methods, list) and bool(methods) and "client_secret_basic" not in methods,
            read_at=time.monotonic(),
        )


def _client() -> httpx.Client:
    return httpx.Client(timeout=TIMEOUT_SECONDS, follow_redirects=False, headers={"Accept": "application/json"})


def _json(client: httpx.Client, method: str, url: str, **more: Any) -> Mapping[str, Any]:
    """The JSON object that the provider answers. Raises Busy when it does not, LoginRefused when it says no.

    No more is read than an answer may be long.
    """
    content = bytearray()
    try:
        with client.stream(method, url, **more) as answer:
            for chunk in answer.iter_bytes():
                content += chunk
                if len(content) > _MAX_ANSWER:
                    raise LoginRefused(f"the sign-in provider answered more than {_MAX_ANSWER // 1024} KiB")
    except httpx.HTTPError as error:
        raise Busy("the sign-in provider does not answer; try again in a moment") from error
    if answer.status_code >= 500:
        raise Busy("the sign-in provider has a problem; try again in a moment")
    try:
        found = json.loads(content) if answer.is_success else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise LoginRefused(f"the sign-in provider refused ({answer.status_code})")
    return found


def access_token_hash(access_token: str, algorithm: str) -> str:
    """The `at_hash` of an identity token signed by `algorithm`: half a hash (OpenID Connect Core 1.0, 3.1.3.6)."""
    name = "sha512" if algorithm in ("Ed25519", "EdDSA") else f"sha{algorithm[-3:]}"
    digest = hashlib.new(name, access_token.encode()).digest()
    return _base64url(digest[: len(digest) // 2])


def _base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _endpoint(found: Mapping[str, Any], name: str) -> str:
    url = found.get(name)
    if not isinstance(url, str) or not _is_safe(url):
        raise LoginRefused(f"the provider's {name} is no address that begins with https://")
    return url


def _is_safe(url: str) -> bool:
    try:
        httpx.URL(url)  # neither of the two refuses all that the other does
        parts = urlsplit(url)
    except (httpx.InvalidURL, ValueError):
        return False
    return bool(parts.hostname) and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(url)))


def _name_of(claims: Mapping[str, Any]) -> str:
    """A name to greet somebody by, without anything that cannot be seen; empty where the provider tells none."""
    for claim in ("preferred_username", "name"):
        found = claims.get(claim)
        if isinstance(found, str) and (name := "".join(c for c in found if c.isprintable()).strip()):
            return name[:MAX_NAME]
    return ""
