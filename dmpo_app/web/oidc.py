"""OpenID Connect client: authorization code flow with PKCE, and verification of the identity token.

Signatures and claims are checked by joserfc against the provider's published keys. Blocking; call it in a thread.
"""

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

from dmpo_app.errors import BusyError, LoginRefusedError
from dmpo_app.labeling.sign_in import LoginAttempt, Person
from dmpo_app.settings import IdentitySettings
from dmpo_app.settings.sections import is_loopback

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "EdDSA")
"""Signatures by the provider's private key. `none`, and HS256 by a secret that is no key, are not among them."""
TIMEOUT_SECONDS = 10.0
LEEWAY_SECONDS = 60
METADATA_SECONDS = 3600.0
MAX_NAME = 60
MAX_SUBJECT = 255
_MAX_RESPONSE_BYTES = 256 * 1024


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
    """The OpenID Connect provider of the settings. Its metadata and keys are read when they are first needed."""

    def __init__(self, settings: IdentitySettings) -> None:
        if settings.oidc_issuer is None or settings.client_id is None:
            raise ValueError("there is no provider in these settings")
        self._issuer = settings.oidc_issuer
        self._client_id = settings.client_id
        self._client_secret = None if settings.client_secret is None else settings.client_secret.get_secret_value()
        self._settings = settings
        self._lock = threading.Lock()
        self._cached_metadata: _Metadata | None = None

    def authorization_url(self, attempt: LoginAttempt, state: str, redirect_uri: str) -> str:
        """Authorization URL that a person signs in at. Raises BusyError when the provider does not answer."""
        query = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": redirect_uri,
            "scope": " ".join(self._settings.scopes),
            "state": state,
            "nonce": attempt.nonce,
            "code_challenge": _base64url(hashlib.sha256(attempt.verifier.encode()).digest()),
            "code_challenge_method": "S256",
        }
        endpoint = self._load_metadata().authorization_endpoint
        return f"{endpoint}{'&' if urlsplit(endpoint).query else '?'}{urlencode(query)}"

    def authenticate(self, attempt: LoginAttempt, code: str, redirect_uri: str) -> Person:
        """Exchange an authorization code for the person.

        Raises LoginRefusedError when anything is wrong, BusyError as above.
        """
        metadata = self._load_metadata()
        with _client() as client:
            tokens = self._exchange_code(client, metadata, attempt, code, redirect_uri)
            claims = self._verify_id_token(client, metadata, attempt, tokens)
            if not {"preferred_username", "name"} & claims.keys():
                claims = {**self._fetch_userinfo(client, metadata, tokens.get("access_token"), claims["sub"]), **claims}
        return Person(metadata.issuer, claims["sub"], _display_name(claims), self._admin_name(claims))

    def _exchange_code(
        self, client: httpx.Client, metadata: _Metadata, attempt: LoginAttempt, code: str, redirect_uri: str
    ) -> Mapping[str, Any]:
        body = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": attempt.verifier,
        }
        auth: httpx.BasicAuth | None = None
        if self._client_secret is None:
            body["client_id"] = self._client_id
        elif metadata.secret_in_body:
            body |= {"client_id": self._client_id, "client_secret": self._client_secret}
        else:  # RFC 6749, 2.3.1: both are form-encoded first
            auth = httpx.BasicAuth(quote(self._client_id, safe=""), quote(self._client_secret, safe=""))
        return _json(client, "POST", metadata.token_endpoint, data=body, auth=auth)

    def _verify_id_token(
        self, client: httpx.Client, metadata: _Metadata, attempt: LoginAttempt, tokens: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Verify an identity token (issuer, audience, nonce, time) and return its claims."""
        id_token, access_token = tokens.get("id_token"), tokens.get("access_token")
        if not isinstance(id_token, str):
            raise LoginRefusedError("the provider did not say who signed in")
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
                nonce={"essential": True, "value": attempt.nonce},
            ).validate(claims)
            claims["sub"].encode()  # JSON can say half a character, which nothing can be stored or hashed by
            if isinstance(access_token, str):
                at_hash = access_token_hash(access_token, token.header["alg"])
                if claims.get("at_hash", at_hash) != at_hash:
                    raise LoginRefusedError("the provider's two tokens do not belong together")
        except (JoseError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise LoginRefusedError(f"what the provider said cannot be relied on ({type(error).__name__})") from error
        parties = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
        authorized_party = claims.get("azp", self._client_id if len(parties) == 1 else None)
        if authorized_party != self._client_id or claims["nonce"] != attempt.nonce or len(claims["sub"]) > MAX_SUBJECT:
            raise LoginRefusedError("what the provider said is not meant for this studio")
        return claims

    def _fetch_userinfo(
        self, client: httpx.Client, metadata: _Metadata, access_token: object, subject: str
    ) -> Mapping[str, Any]:
        """Fetch the userinfo claims; empty where they are of another subject."""
        if metadata.userinfo_endpoint is None or not (isinstance(access_token, str) and access_token.isascii()):
            return {}
        headers = {"Authorization": f"Bearer {access_token}"}
        more = _json(client, "GET", metadata.userinfo_endpoint, headers=headers)
        return more if more.get("sub") == subject else {}

    def _admin_name(self, claims: Mapping[str, Any]) -> str | None:
        claim = self._settings.admin_claim
        if claim == "email" and claims.get("email_verified") is not True:
            return None
        value = claims.get(claim)
        return value if isinstance(value, str) and 0 < len(value) <= MAX_SUBJECT else None

    def _load_metadata(self) -> _Metadata:
        with self._lock:
            if self._cached_metadata is None or time.monotonic() - self._cached_metadata.read_at > METADATA_SECONDS:
                with _client() as client:
                    self._cached_metadata = self._parse_metadata(
                        _json(client, "GET", f"{self._issuer}/.well-known/openid-configuration")
                    )
            return self._cached_metadata

    def _parse_metadata(self, document: Mapping[str, Any]) -> _Metadata:
        issuer = document.get("issuer")
        if not isinstance(issuer, str) or issuer.rstrip("/") != self._issuer:
            raise LoginRefusedError(f"the provider at {self._issuer} says that it is another one")
        methods = document.get("token_endpoint_auth_methods_supported")
        userinfo = document.get("userinfo_endpoint")
        return _Metadata(
            issuer=issuer,
            authorization_endpoint=_endpoint(document, "authorization_endpoint"),
            token_endpoint=_endpoint(document, "token_endpoint"),
            jwks_uri=_endpoint(document, "jwks_uri"),
            userinfo_endpoint=None if userinfo is None else _endpoint(document, "userinfo_endpoint"),
            secret_in_body=isinstance(methods, list) and bool(methods) and "client_secret_basic" not in methods,
            read_at=time.monotonic(),
        )


def _client() -> httpx.Client:
    return httpx.Client(timeout=TIMEOUT_SECONDS, follow_redirects=False, headers={"Accept": "application/json"})


def _json(client: httpx.Client, method: str, url: str, **more: Any) -> Mapping[str, Any]:
    """The JSON object that the provider answers. Raises BusyError when it does not, LoginRefusedError when it says no.

    No more is read than an answer may be long.
    """
    content = bytearray()
    try:
        with client.stream(method, url, **more) as response:
            for chunk in response.iter_bytes():
                content += chunk
                if len(content) > _MAX_RESPONSE_BYTES:
                    raise LoginRefusedError(
                        f"the sign-in provider answered more than {_MAX_RESPONSE_BYTES // 1024} KiB"
                    )
    except httpx.HTTPError as error:
        raise BusyError("the sign-in provider does not answer; try again in a moment") from error
    if response.status_code >= 500:
        raise BusyError("the sign-in provider has a problem; try again in a moment")
    try:
        document = json.loads(content) if response.is_success else None
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise LoginRefusedError(f"the sign-in provider refused ({response.status_code})")
    return document


def access_token_hash(access_token: str, algorithm: str) -> str:
    """The `at_hash` of an identity token signed by `algorithm`: half a hash (OpenID Connect Core 1.0, 3.1.3.6)."""
    name = "sha512" if algorithm in ("Ed25519", "EdDSA") else f"sha{algorithm[-3:]}"
    digest = hashlib.new(name, access_token.encode()).digest()
    return _base64url(digest[: len(digest) // 2])


def _base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _endpoint(document: Mapping[str, Any], name: str) -> str:
    url = document.get(name)
    if not isinstance(url, str) or not _is_safe(url):
        raise LoginRefusedError(f"the provider's {name} is no address that begins with https://")
    return url


def _is_safe(url: str) -> bool:
    try:
        httpx.URL(url)  # neither of the two refuses all that the other does
        parts = urlsplit(url)
    except (httpx.InvalidURL, ValueError):
        return False
    return bool(parts.hostname) and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(url)))


def _display_name(claims: Mapping[str, Any]) -> str:
    """Display name from the claims, printable characters only; empty where the provider gives none."""
    for claim in ("preferred_username", "name"):
        value = claims.get(claim)
        if isinstance(value, str) and (name := "".join(c for c in value if c.isprintable()).strip()):
            return name[:MAX_NAME]
    return ""
