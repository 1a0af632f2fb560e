"""Settings of signing in: with Hugging Face on a Space, elsewhere with any provider that speaks OpenID Connect."""

from __future__ import annotations

import os
from ipaddress import ip_address
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from dmpo_app.settings.settings_group import Group


def _of_space(name: str) -> str | None:
    """What a Space says in its environment; nothing elsewhere, where such a variable may be anybody's."""
    return os.environ.get(name) or None if "SPACE_ID" in os.environ else None


def _secret_of_space() -> SecretStr | None:
    found = _of_space("OAUTH_CLIENT_SECRET")
    return None if found is None else SecretStr(found)


def _issuer_of_space() -> str | None:
    return _of_space("OPENID_PROVIDER_URL") if _of_space("OAUTH_CLIENT_ID") else None


def _address_of_space() -> str | None:
    host = _of_space("SPACE_HOST")
    return None if host is None else f"https://{host.split(',')[0].strip()}"


def _owner_of_space() -> tuple[str, ...]:
    owner = _of_space("SPACE_AUTHOR_NAME") or (_of_space("SPACE_ID") or "").split("/")[0]
    return (owner,) if owner else ()


class IdentitySettings(Group):
    """Signing in. On a Space with `hf_oauth: true` all of it is known already."""

    oidc_issuer: str | None = Field(default_factory=_issuer_of_space)
    """Address of a provider of OpenID Connect, as https://login.example.org; None: nobody can sign in. On a Space:
    Hugging Face."""
    client_id: str | None = Field(default_factory=lambda: _of_space("OAUTH_CLIENT_ID"))
    """What the provider knows this studio by."""
    client_secret: SecretStr | None = Field(default_factory=_secret_of_space)
    """... and the secret that goes with it; None for a client without one."""
    scopes: Annotated[tuple[str, ...], Field(min_length=1)] = ("openid", "profile")
    """What is asked for, as JSON; who somebody is, and no more, also where a Space may ask for more."""
    label: Annotated[str, Field(min_length=1, max_length=40)] = Field(
        default_factory=lambda: "Hugging Face" if _issuer_of_space() else "your account"
    )
    """The button says: Sign in with ..."""
    public_url: str | None = Field(default_factory=_address_of_space)
    """Where people reach the studio, as https://studio.example.org; the provider sends them back to that address with
    /login/callback. None: what the browser asked for."""
    admins: tuple[str, ...] = Field(default_factory=_owner_of_space)
    """Who administers after signing in, beside whoever has the token, as JSON: ["ada"]. On a Space: its owner."""
    admin_claim: Literal["preferred_username", "sub", "email"] = "preferred_username"
    """What of a person `admins` lists. Where people choose their username themselves, use sub. An email counts when the
    provider has verified it."""

    @field_validator("oidc_issuer", "public_url")
    @classmethod
    def _is_an_address(cls, value: str | None) -> str | None:
        """https, or http on this machine: elsewhere anybody on the way could be anybody."""
        if value is None:
            return None
        parts = urlsplit(value)
        if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(value))):
            raise ValueError("expected an address that begins with https://")
        if parts.query or parts.fragment or parts.username:
            raise ValueError("expected an address without a query, fragment or user")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _is_whole(self) -> IdentitySettings:
        if self.oidc_issuer is not None and not self.client_id:
            raise ValueError(f"the provider {self.oidc_issuer} needs a client_id: register the studio with it")
        if "openid" not in self.scopes:
            raise ValueError(f"the scopes are {', '.join(self.scopes)}; without openid nobody is identified")
        return self


def is_loopback(url: str) -> bool:
    """Whether an address is one of this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
