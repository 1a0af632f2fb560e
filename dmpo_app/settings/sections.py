"""Sections of the settings: strangers' files, backup, sign-in, labeling, campaign."""

import os
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Literal, Self, Union, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationInfo, field_validator, model_validator

from dmpo_app.domain.limits import ParserLimits
from dmpo_app.domain.vote import Question


def read_words(cls: type[BaseModel], value: object, info: ValidationInfo) -> object:
    """Read the text of a field's value where pydantic does not: `none` as None, and digits as one of a field's numbers.

    A before-validator of all fields of a group: `field_validator("*", mode="before")(read_words)`. pydantic turns "4"
    into 4 for an int, and refuses it for a Literal of numbers.
    """
    if not isinstance(value, str) or info.field_name is None:
        return value
    text = value.strip().lower()
    for alternative in _alternatives(cls.model_fields[info.field_name].annotation):
        if alternative is NoneType and text == "none":
            return None
        if get_origin(alternative) is Literal:
            for choice in get_args(alternative):
                if not isinstance(choice, str) and str(choice).lower() == text:
                    return choice
    return value


def _alternatives(annotation: object) -> Iterator[object]:
    """Yield the types of a union, without what only annotates them."""
    if get_origin(annotation) is Annotated:
        yield from _alternatives(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for alternative in get_args(annotation):
            yield from _alternatives(alternative)
    else:
        yield annotation


class SettingsGroup(BaseModel):
    """A group of settings: frozen, refuses unknown names, and takes the text under a field as its description."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    _words = field_validator("*", mode="before")(read_words)


_LIMITS = ParserLimits()


class ParsingSettings(SettingsGroup):
    """Limits of the processes that open strangers' files: imports, data sets to train on, prompt files."""

    memory_mb: Annotated[int, Field(ge=512)] = _LIMITS.memory_mb
    """Megabytes of address space of such a process, on Linux; half of it for one row group of a parquet file."""
    cpu_seconds: Annotated[int, Field(ge=1)] = _LIMITS.cpu_seconds
    """Seconds of processor time before the next rows."""
    wait_seconds: Annotated[int, Field(ge=1)] = _LIMITS.wait_seconds
    """Seconds until the next rows, whatever is waited for; four times as many for the hub's first answer."""
    row_mb: Annotated[int, Field(ge=1, le=1024)] = _LIMITS.row_mb
    """Megabytes of one row, with the images in it; also of one line or record of JSON."""
    rows: Annotated[int, Field(ge=1)] = _LIMITS.rows
    """Rows of a data set."""
    unpacked_mb: Annotated[int, Field(ge=1)] = _LIMITS.unpacked_mb
    """Megabytes that a zip file unpacks to, and never more than half of the free disk."""
    unpacked_files: Annotated[int, Field(ge=1)] = _LIMITS.unpacked_files
    """Files in a zip file."""

    @property
    def limits(self) -> ParserLimits:
        return ParserLimits(**self.model_dump())


class BackupSettings(SettingsGroup):
    """The backup of a home on a remote storage; off without a URL."""

    url: Annotated[str, Field(min_length=1)] | None = None
    """A folder, `s3://bucket/folder`, `hf://buckets/user/name`, `hf://datasets/user/name` (private), or what else
    fsspec reads and writes; it must be this home's alone. None: no backup."""
    log_seconds: Annotated[float, Field(gt=0, le=60)] = 20.0
    """Interval at which changes are written there. A data set repository takes a commit a minute, whatever is set."""
    interval_seconds: Annotated[float, Field(gt=0)] = 900.0
    """Interval of snapshots of the whole database, if anything changed; the changes after one are logged."""
    acknowledge: Literal["disk", "remote"] = "disk"
    """When a vote is acknowledged. disk: it is on this machine's disk. remote: it is in the backup as well, which makes
    every vote wait for an upload."""
    refuse_after_seconds: Annotated[float, Field(ge=1, le=600)] = 30.0
    """Votes are refused once the storage has been out of reach for this long."""
    handover_seconds: Annotated[float, Field(ge=0, le=600)] = 10.0
    """A starting studio waits this long for the one before it to write its last changes and let go."""
    keep_snapshots: Annotated[int, Field(ge=2, le=10_000)] = 8
    """The newest snapshots that are kept ..."""
    keep_days: Annotated[int, Field(ge=0, le=3650)] = 7
    """... and the last one of each of this many days."""

    @field_validator("url", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        """Read an empty text as None: a variable that is set to nothing asks for no backup."""
        return None if isinstance(value, str) and not value.strip() else value


def _space_variable(name: str) -> str | None:
    """Read an environment variable of a Space; None elsewhere, where such a variable may be anybody's."""
    return os.environ.get(name) or None if "SPACE_ID" in os.environ else None


def _secret_of_space() -> SecretStr | None:
    secret = _space_variable("OAUTH_CLIENT_SECRET")
    return None if secret is None else SecretStr(secret)


def _issuer_of_space() -> str | None:
    return _space_variable("OPENID_PROVIDER_URL") if _space_variable("OAUTH_CLIENT_ID") else None


def _address_of_space() -> str | None:
    host = _space_variable("SPACE_HOST")
    return None if host is None else f"https://{host.split(',')[0].strip()}"


def _owner_of_space() -> tuple[str, ...]:
    owner = _space_variable("SPACE_AUTHOR_NAME") or (_space_variable("SPACE_ID") or "").split("/")[0]
    return (owner,) if owner else ()


class IdentitySettings(SettingsGroup):
    """Sign-in with an identity provider. On a Space with `hf_oauth: true` all of it is preset."""

    oidc_issuer: str | None = Field(default_factory=_issuer_of_space)
    """Address of a provider of OpenID Connect, as https://login.example.org; None: nobody can sign in. On a Space:
    Hugging Face."""
    client_id: str | None = Field(default_factory=lambda: _space_variable("OAUTH_CLIENT_ID"))
    """The client id of this studio at the provider."""
    client_secret: SecretStr | None = Field(default_factory=_secret_of_space)
    """... and the secret that goes with it; None for a client without one."""
    scopes: Annotated[tuple[str, ...], Field(min_length=1)] = ("openid", "profile")
    """The scopes of a sign-in, as JSON; identity and no more, also where a Space may ask for more."""
    label: Annotated[str, Field(min_length=1, max_length=40)] = Field(
        default_factory=lambda: "Hugging Face" if _issuer_of_space() else "your account"
    )
    """The provider's name on the button: Sign in with ..."""
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
        """Require https, or http on this machine: elsewhere anybody on the way could be anybody."""
        if value is None:
            return None
        parts = urlsplit(value)
        if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(value))):
            raise ValueError("expected an address that begins with https://")
        if parts.query or parts.fragment or parts.username:
            raise ValueError("expected an address without a query, fragment or user")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.oidc_issuer is not None and not self.client_id:
            raise ValueError(f"the provider {self.oidc_issuer} needs a client_id: register the studio with it")
        if "openid" not in self.scopes:
            raise ValueError(f"the scopes are {', '.join(self.scopes)}; without openid nobody is identified")
        return self


def is_loopback(url: str) -> bool:
    """True for an address of this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


PUBLIC_SHARE = 0.05
PUBLIC_REPORTS = 2


class NewcomerSettings(SettingsGroup):
    """Newcomers, in public mode: what they may do to others together, and when they are established.

    Who signed in, has an invitation or came with an import is established at once.
    """

    record_votes: Annotated[int, Field(ge=1)] = 20
    """A record takes so many votes for an image ..."""
    record_hours: Annotated[float, Field(ge=0, le=87_600, allow_inf_nan=False)] = 24.0
    """... the first of them so many hours ago; sides, repeats, gold pairs and agreement must not speak against it."""
    share: Annotated[float, Field(gt=0, lt=1)] | None = 0.1
    """Share of all weight in a round that newcomers have together at most, once somebody is established; none: any."""
    hidden_share: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Share of the offered pairs that reports of newcomers hide at most; votes on a hidden pair go on counting."""
    reports_to_hide: Annotated[int, Field(ge=1, le=100)] = 3
    """So many people hide a pair by their reports, those of one network (/24 of IPv4, /64 of IPv6) counting once."""
    prompt_share: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of the training prompts that newcomers may have added (`free_prompts`)."""


class LabelingSettings(SettingsGroup):
    """Labeling: the questions, and the conditions of taking part."""

    questions: Annotated[tuple[Question, ...], Field(min_length=1)] = (Question.OVERALL,)
    """Questions about a pair, one after another, each answered by a vote of its own: overall, appeal, fit, as JSON:
    ["overall", "fit"]."""
    training_question: Question = Question.OVERALL
    """Rounds learn from the votes on this question; it is one of those asked."""
    asks: tuple[Literal["strength", "comment"], ...] = ()
    """Additions to a vote on the page, as JSON: ["strength"] asks whether an image is slightly or clearly better,
    ["comment"] offers a line of text."""
    ranking_size: Literal[0, 3, 4] = 0
    """This many images of a prompt are ranked, best first, instead of comparing pairs. 0: pairs; those that are in
    the home already come back then."""
    reports_to_retire: Literal["auto"] | Annotated[int, Field(ge=1, le=100)] = "auto"
    """A pair that this many established people have reported is retired until an administrator clears the reports: it
    leaves the pool, and its votes do not count. auto: 2 in public mode, 1 otherwise, where everybody is established."""
    consent: Annotated[str, Field(min_length=1)] | None = None
    """Consent before the first pair: a text to agree to, or a .txt or .md file that holds it; None: nothing."""
    consent_version: Annotated[str, Field(min_length=1, max_length=32)] = "1"
    """Stored with every agreement. A new text or version is agreed to anew."""
    strategy: Literal["fresh", "overlap", "uncertainty", "scorers", "coverage", "ratings", "random"] = "fresh"
    """Selection of the next pair. fresh: the fewest votes, of the newest version. overlap: every n-th pair to several
    people. uncertainty: the smallest margin of the policy. scorers: most disagreement of automatic scorers. coverage:
    prompts with the fewest votes. ratings: the widest posterior from the votes. random: any."""
    overlap_every: Annotated[int, Field(ge=1)] = 5
    """overlap: every pair whose number is a multiple of this ..."""
    overlap_people: Annotated[int, Field(ge=2, le=1000)] = 3
    """... goes to this many people."""
    showings_per_pair: Annotated[int, Field(ge=1)] | None = None
    """A pair is assigned this often at most, on each question; None: while somebody is left who has not seen it."""
    gold_rate: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Share of assignments that are of gold pairs (`dmpo gold`), which tell who votes right; not trained on."""
    repeat_rate: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Share of assignments that are of pairs the person has voted on before, sides swapped. Not trained on again."""
    repeat_after: Annotated[int, Field(ge=1)] = 20
    """... at least this many votes ago."""
    access: Literal["auto", "open", "invite", "login"] = "auto"
    """Who may take part. open: everybody; invite: whoever has a link of `dmpo invite create`; login: whoever signed in.
    auto: login in public mode where there is somebody to sign in with, as on a Space with `hf_oauth: true`, else
    open."""
    free_prompts: bool = False
    """Annotators may add prompts of their own, which pairs are then made of; on the Before / after tab."""
    free_prompts_per_day: Annotated[int, Field(ge=1, le=10_000)] = 20
    """... at most this many within 24 hours, each of them."""
    free_prompt_length: Annotated[int, Field(ge=1, le=1000)] = 300
    """... of at most this many characters."""
    blocked_words: Path | None = None
    """A text file of words or phrases, one a line; prompts with any of them are refused, whole words, whatever their
    case or accents. For prompts of annotators and imports; None: nothing is blocked."""
    near_duplicate: Annotated[float, Field(ge=0.5, le=1)] = 0.8
    """Prompts on both sides of the split may share less than this of their words (Jaccard similarity of the sets)."""
    reliability: Literal["off", "dawid_skene"] = "off"
    """dawid_skene: in a round, an annotator's votes count by how far the others bear them out; the mean is 1, and 0 who
    clicks at random or against the others. off: every vote counts 1."""
    max_annotator_share: Literal["auto"] | Annotated[float, Field(gt=0, le=1)] | None = "auto"
    """What one annotator may weigh of all votes of a round; none: any share. auto: 0.05 in public mode, none
    otherwise."""

    newcomers: NewcomerSettings = NewcomerSettings()

    licence: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+-]{0,63}$")] | None = None
    """Licence of what is collected, as the hub names it (cc-by-4.0, mit, other): stands on the card of exports, and is
    needed to push one."""

    @property
    def num_images(self) -> int:
        """The number of images of an assignment: 2 for a pair."""
        return self.ranking_size or 2

    def annotator_share(self, *, public: bool) -> float | None:
        """The cap in force; None where there is none."""
        if self.max_annotator_share == "auto":
            return PUBLIC_SHARE if public else None
        return self.max_annotator_share

    def retirement_threshold(self, *, public: bool) -> int:
        """The number of established people whose reports retire a pair."""
        if self.reports_to_retire == "auto":
            return PUBLIC_REPORTS if public else 1
        return self.reports_to_retire

    @model_validator(mode="after")
    def _questions_make_sense(self) -> Self:
        if len(set(self.questions)) < len(self.questions):
            raise ValueError(f"a question is asked once; questions are {', '.join(self.questions)}")
        if self.training_question not in self.questions:
            raise ValueError(
                f"rounds would wait forever: training_question is {self.training_question.value!r}, which is not among "
                f"the questions {', '.join(self.questions)}; set both"
            )
        return self
