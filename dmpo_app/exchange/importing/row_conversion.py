"""Conversion of a data set's rows into pairs and votes of the store: their prompts checked, their annotators named."""

import hashlib
import hmac
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Self, TypeVar

from dmpo_app.domain.data_import import ImportedImage, ImportedPair, ImportedVote, ImportUse, pair_key
from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.domain.prompt import Refusal, fold
from dmpo_app.domain.vote import Outcome, Question, Strength
from dmpo_app.errors import BadInputError
from dmpo_app.exchange.readers.reader import (
    ImageFolder,
    LeftOutReason,
    PreferenceReader,
    Row,
    RowImages,
    RowMetadata,
    RowPair,
    UnusableImageError,
    list_pairs,
)
from dmpo_app.labeling.prompt_desk import PromptImportRules, find_refusal
from dmpo_app.labeling.quality.quality_report import make_name_hasher
from dmpo_app.labeling.service import MAX_ELAPSED_MS
from dmpo_app.labeling.sign_in import load_or_create_key
from dmpo_app.labeling.text_checks import BlockList, NearDuplicateIndex, clean_remark
from dmpo_app.settings import Settings
from dmpo_app.store import Store
from dmpo_app.store.imports.import_rows import HELD_OUT

_PURPOSE = b"imported annotator:"


@dataclass(frozen=True, slots=True)
class SourceAnnotators:
    """The annotators of one source. The same name of the same source is the same annotator in every import.

    Only a hash of a name under the home's key is stored. Votes without one are all of one annotator, the source.
    `local_ids`: annotators of this home by the name its exports call them, so that its own votes come back to them.
    """

    source: str
    key: bytes
    local_ids: dict[str, int] = field(default_factory=dict)

    @classmethod
    def from_store(cls, store: Store, base: BaseModelRef, source: str, *, may_be_own: bool) -> Self:
        """The annotators of a source. `may_be_own`: names may be those that this home's exports use."""
        key = load_or_create_key(store.home)
        public_ids = store.vote_records.public_ids(base) if may_be_own else {}
        annotator_name = make_name_hasher(key, public_ids)
        return cls(source, key, {annotator_name(annotator_id): annotator_id for annotator_id in public_ids})

    def find(self, name: object) -> tuple[int | None, str, str]:
        """(id of an annotator of this home, identity, handle) of whoever is called so at the source."""
        text = "" if name is None else str(name)
        message = _PURPOSE + f"{self.source}\0{text}".encode("utf-8", "surrogatepass")
        identity = hmac.new(self.key, message, hashlib.sha256).hexdigest()
        handle = self.source if not text else f"{self.source} {identity[:6]}"
        return self.local_ids.get(text), identity, handle


_CACHE_SIZE = 100_000


class PromptChecker:
    """Check of imported prompts, with a cache. Raises SetupError when the block list cannot be read."""

    def __init__(self, store: Store, settings: Settings) -> None:
        held_out = store.prompts.snapshot(held_out=True).prompts
        self._rules = PromptImportRules(near_duplicate=settings.labeling.near_duplicate)
        self._blocked = BlockList.read(settings.labeling.blocked_words)
        self._held_out = {prompt.folded for prompt in held_out}
        self._near = NearDuplicateIndex(((prompt, prompt.folded) for prompt in held_out), self._rules.near_duplicate)
        self._known: dict[str, str | None] = {}

    def refusal_reason(self, prompt: str) -> str | None:
        """The reason why a prompt's pairs cannot be imported; None: they can."""
        if prompt not in self._known:
            if len(self._known) >= _CACHE_SIZE:
                self._known.clear()
            self._known[prompt] = self._check(prompt)
        return self._known[prompt]

    def _check(self, prompt: str) -> str | None:
        folded = fold(prompt)
        refusal = find_refusal(prompt, folded, self._rules, self._blocked)
        if refusal is not None:
            return f"prompt: {refusal.value}"
        if folded in self._held_out:
            return HELD_OUT
        near = next(self._near.find(folded), None)
        return None if near is None else f"prompt: {Refusal.NEAR_HELD_OUT.value}"


_OUTCOMES = {1.0: Outcome.A, 0.0: Outcome.B, 0.5: Outcome.TIE}
_MAX_FACTS = 20
_MAX_WORDS = 200
E = TypeVar("E", bound=StrEnum)


class _RowLeftOutError(Exception):
    """The reason why a row is left out; never leaves this module."""


@dataclass(frozen=True, slots=True)
class PairWithFiles:
    """A pair with its original image files, not decoded yet."""

    pair: ImportedPair
    file_a: bytes
    file_b: bytes

    @property
    def num_bytes(self) -> int:
        return len(self.file_a) + len(self.file_b)


@dataclass(frozen=True, slots=True)
class RowRules:
    """The rules by which rows become pairs.

    `use`: for votes alone, a pair without one is left out; for pairs alone, votes are ignored.
    """

    reader: PreferenceReader
    folder: ImageFolder
    prompts: PromptChecker
    annotators: SourceAnnotators
    use: ImportUse


def read_row(rules: RowRules, row: Row, number: int) -> Iterator[PairWithFiles | tuple[str, str]]:
    """Read the pairs of a row, or (row, reason). Never raises for what is in the row."""
    row_pairs = list_pairs(rules.reader, row)
    if isinstance(row_pairs, LeftOutReason):
        yield str(number), row_pairs.value
        return
    images = RowImages(rules.folder)
    for index, row_pair in enumerate(row_pairs):
        name = str(number) if len(row_pairs) == 1 else f"{number}/{index}"
        try:
            yield _read_pair(rules, row_pair, images, name)
        except _RowLeftOutError as problem:
            yield name, str(problem)
        except UnusableImageError as problem:
            yield name, problem.reason.value


def _read_pair(rules: RowRules, row_pair: RowPair, images: RowImages, name: str) -> PairWithFiles:
    prompt = row_pair.prompt.strip() if isinstance(row_pair.prompt, str) else ""
    if not prompt:
        raise _RowLeftOutError(LeftOutReason.EMPTY_PROMPT.value)
    vote = _vote(rules, row_pair)
    reason = rules.prompts.refusal_reason(prompt)
    if reason is not None:
        raise _RowLeftOutError(reason)
    file_a, file_b = images.content(row_pair.image_a), images.content(row_pair.image_b)
    if file_a == file_b:
        raise _RowLeftOutError(LeftOutReason.IDENTICAL_IMAGES.value)
    metadata = row_pair.metadata
    image_a = _image(images.sha256(file_a), metadata.provenance_a)
    image_b = _image(images.sha256(file_b), metadata.provenance_b)
    key = pair_key(prompt, image_a.sha256, image_b.sha256)
    return PairWithFiles(ImportedPair(name, prompt, image_a, image_b, vote, key), file_a, file_b)


def _image(sha256: str, metadata: Mapping[str, object]) -> ImportedImage:
    if metadata.get("sha256") not in (None, sha256):
        raise UnusableImageError(LeftOutReason.BROKEN_IMAGE)
    return ImportedImage(sha256, None, 0, 0, _json_values(metadata))


def _vote(rules: RowRules, row_pair: RowPair) -> ImportedVote | None:
    """The vote of a pair; None: the pair has none, or votes are not imported."""
    if not rules.use.takes_votes:
        return None
    wins, metadata = row_pair.wins_a, row_pair.metadata
    outcome = _parse_enum(Outcome, metadata.outcome) or (
        None if isinstance(wins, LeftOutReason) else _OUTCOMES.get(wins)
    )
    if outcome is None:
        reason = wins if isinstance(wins, LeftOutReason) else LeftOutReason.UNCLEAR_LABEL
        if not rules.use.offers_pairs or reason is not LeftOutReason.MISSING_LABEL:
            raise _RowLeftOutError(reason.value)
        return None
    annotator_id, identity, handle = rules.annotators.find(metadata.annotator)
    return ImportedVote(
        annotator_id,
        identity,
        handle,
        outcome,
        question=_parse_enum(Question, metadata.question) or Question.OVERALL,
        strength=_parse_enum(Strength, metadata.strength),
        comment=_parse_comment(metadata),
        elapsed_ms=_parse_elapsed_ms(metadata.elapsed_ms),
        a_on_left=metadata.a_on_left is not False,
        given_at=_parse_time(metadata.given_at),
    )


def _parse_enum(kind: type[E], value: object) -> E | None:
    return kind(value) if isinstance(value, str) and value in set(kind) else None


def _parse_comment(metadata: RowMetadata) -> str | None:
    if not isinstance(metadata.comment, str):
        return None
    try:
        return clean_remark(metadata.comment, "comment")
    except BadInputError as error:
        raise _RowLeftOutError(str(error)) from error


def _parse_elapsed_ms(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:  # NaN
        return 0
    return int(min(max(0, value), MAX_ELAPSED_MS))


def _parse_time(value: object) -> datetime | None:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if not isinstance(value, datetime):
        return None
    # Through the clock time and not `astimezone`, which a pandas timestamp answers in a type of its own.
    aware = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
    try:
        return datetime.fromtimestamp(aware.timestamp(), UTC)
    except (ValueError, OverflowError, OSError):  # in UTC it is of year 0, or 10,000
        return None


def _json_values(metadata: Mapping[str, object]) -> dict[str, Any]:
    """The JSON values among metadata, bounded: they come from strangers."""
    values: dict[str, Any] = {}
    for name, value in list(metadata.items())[:_MAX_FACTS]:
        if isinstance(value, str):
            values[str(name)[:_MAX_WORDS]] = value.encode("utf-8", "replace").decode()[:_MAX_WORDS]
        elif isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
            values[str(name)[:_MAX_WORDS]] = value
    return values
