"""Conversion of a data set's rows into pairs and votes of the store: their prompts checked, their annotators named."""

from __future__ import annotations

import hashlib
import hmac
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeVar

from dmpo_app.domain.data_import import ImportedImage, ImportedPair, ImportedVote, ImportUse, pair_key
from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.domain.prompt import Refusal, fold
from dmpo_app.domain.vote import Outcome, Question, Strength
from dmpo_app.errors import BadInput
from dmpo_app.exchange.readers.pair import ImageFolder, Reason, UnusableImage
from dmpo_app.exchange.readers.reader import Facts, Judgement, PreferenceReader, Row
from dmpo_app.labeling.prompt_import import ImportRules, why_refused
from dmpo_app.labeling.quality.quality_service import hashed_names
from dmpo_app.labeling.service import MAX_ELAPSED_MS
from dmpo_app.labeling.text_checks import BlockList, NearDuplicates, clean_words
from dmpo_app.labeling.tokens import load_or_create_key
from dmpo_app.settings import Settings
from dmpo_app.store import Store
from dmpo_app.store.files import sha256_of
from dmpo_app.store.imports.import_rows import HELD_OUT

_PURPOSE = b"imported annotator:"


@dataclass(frozen=True, slots=True)
class People:
    """The annotators of one source. The same name of the same source is the same annotator in every import.

    Of a name only a hash under the home's key is kept. Answers without one are all of one annotator, the source.
    `own`: annotators of this home by the name its exports call them, so that its own votes come back to them.
    """

    source: str
    key: bytes
    own: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, store: Store, base: BaseModelRef, source: str, *, may_be_own: bool) -> People:
        """`may_be_own`: whether names may be those that this home's exports use."""
        key = load_or_create_key(store.home)
        public_ids = store.vote_records.public_ids(base) if may_be_own else {}
        name_of = hashed_names(key, public_ids)
        return cls(source, key, {name_of(annotator_id): annotator_id for annotator_id in public_ids})

    def find(self, name: object) -> tuple[int | None, str, str]:
        """(id of an annotator of this home, identity, handle) of whoever is called so at the source."""
        text = "" if name is None else str(name)
        message = _PURPOSE + f"{self.source}\0{text}".encode("utf-8", "surrogatepass")
        identity = hmac.new(self.key, message, hashlib.sha256).hexdigest()
        handle = self.source if not text else f"{self.source} {identity[:6]}"
        return self.own.get(text), identity, handle


_REMEMBERED = 100_000


class PromptGate:
    """Says of a prompt why its pairs cannot be taken in. Raises SetupProblem when the block list cannot be read."""

    def __init__(self, store: Store, settings: Settings) -> None:
        held_out = store.prompts.snapshot(held_out=True).prompts
        self._rules = ImportRules(near_duplicate=settings.labeling.near_duplicate)
        self._blocked = BlockList.read(settings.labeling.blocked_words)
        self._held_out = {prompt.folded for prompt in held_out}
        self._near = NearDuplicates(((prompt, prompt.folded) for prompt in held_out), self._rules.near_duplicate)
        self._known: dict[str, str | None] = {}

    def reason(self, prompt: str) -> str | None:
        """Why not; None: it may."""
        if prompt not in self._known:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[prompt] = self._look(prompt)
        return self._known[prompt]

    def _look(self, prompt: str) -> str | None:
        folded = fold(prompt)
        refusal = why_refused(prompt, folded, self._rules, self._blocked)
        if refusal is not None:
            return f"prompt: {refusal.value}"
        if folded in self._held_out:
            return HELD_OUT
        near = next(self._near.of(folded), None)
        return None if near is None else f"prompt: {Refusal.NEAR_HELD_OUT.value}"


_OUTCOMES = {1.0: Outcome.A, 0.0: Outcome.B, 0.5: Outcome.TIE}
_MAX_FACTS = 20
_MAX_WORDS = 200
E = TypeVar("E", bound=StrEnum)


class _LeftOut(Exception):
    """Carries the reason; never leaves this module."""


@dataclass(frozen=True, slots=True)
class FoundPair:
    """A pair whose images have not been looked at; their files as they came."""

    pair: ImportedPair
    file_a: bytes
    file_b: bytes

    @property
    def num_bytes(self) -> int:
        return len(self.file_a) + len(self.file_b)


@dataclass(frozen=True, slots=True)
class RowRules:
    """How rows become pairs. `use`: if only answers are wanted, a pair that has none is left out; if only pairs are, no
    answer is looked at."""

    reader: PreferenceReader
    folder: ImageFolder
    gate: PromptGate
    people: People
    use: ImportUse


def read_row(rules: RowRules, row: Row, number: int) -> Iterator[FoundPair | tuple[str, str]]:
    """The pairs of a row, or (row, reason). Never raises for what is in the row."""
    try:
        judgements = list(rules.reader.judgements(row))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        yield str(number), Reason.BROKEN_ROW.value
        return
    for index, judgement in enumerate(judgements):
        name = str(number) if len(judgements) == 1 else f"{number}/{index}"
        try:
            yield _found(rules, judgement, name)
        except _LeftOut as problem:
            yield name, str(problem)
        except UnusableImage as problem:
            yield name, problem.reason.value


def _found(rules: RowRules, judgement: Judgement, name: str) -> FoundPair:
    prompt = judgement.prompt.strip() if isinstance(judgement.prompt, str) else ""
    if not prompt:
        raise _LeftOut(Reason.EMPTY_PROMPT.value)
    vote = _vote(rules, judgement)
    reason = rules.gate.reason(prompt)
    if reason is not None:
        raise _LeftOut(reason)
    file_a, file_b = rules.folder.content(judgement.image_a), rules.folder.content(judgement.image_b)
    if file_a == file_b:
        raise _LeftOut(Reason.IDENTICAL_IMAGES.value)
    facts = judgement.facts
    image_a, image_b = _image(file_a, facts.made_a), _image(file_b, facts.made_b)
    key = pair_key(prompt, image_a.sha256, image_b.sha256)
    return FoundPair(ImportedPair(name, prompt, image_a, image_b, vote, key), file_a, file_b)


def _image(file: bytes, made: Mapping[str, object]) -> ImportedImage:
    sha256 = sha256_of(file)
    if made.get("sha256") not in (None, sha256):
        raise UnusableImage(Reason.BROKEN_IMAGE)
    return ImportedImage(sha256, None, 0, 0, _plain(made))


def _vote(rules: RowRules, judgement: Judgement) -> ImportedVote | None:
    """None: the pair has no answer, or it is not wanted."""
    if not rules.use.takes_votes:
        return None
    wins, facts = judgement.wins_a, judgement.facts
    outcome = _enum(Outcome, facts.outcome) or (None if isinstance(wins, Reason) else _OUTCOMES.get(wins))
    if outcome is None:
        reason = wins if isinstance(wins, Reason) else Reason.UNCLEAR_LABEL
        if not rules.use.offers_pairs or reason is not Reason.MISSING_LABEL:
            raise _LeftOut(reason.value)
        return None
    annotator_id, identity, handle = rules.people.find(facts.annotator)
    return ImportedVote(
        annotator_id,
        identity,
        handle,
        outcome,
        question=_enum(Question, facts.question) or Question.OVERALL,
        strength=_enum(Strength, facts.strength),
        comment=_comment(facts),
        elapsed_ms=_elapsed(facts.elapsed_ms),
        a_on_left=facts.a_on_left is not False,
        given_at=_time(facts.given_at),
    )


def _enum(kind: type[E], value: object) -> E | None:
    return kind(value) if isinstance(value, str) and value in set(kind) else None


def _comment(facts: Facts) -> str | None:
    if not isinstance(facts.comment, str):
        return None
    try:
        return clean_words(facts.comment, "comment")
    except BadInput as error:
        raise _LeftOut(str(error)) from error


def _elapsed(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return 0
    return min(max(0, int(value)), MAX_ELAPSED_MS)


def _time(value: object) -> datetime | None:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if not isinstance(value, datetime):
        return None
    # Through the clock time and not `astimezone`, which a pandas timestamp answers in a type of its own.
    aware = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
    return datetime.fromtimestamp(aware.timestamp(), UTC)


def _plain(made: Mapping[str, object]) -> dict[str, Any]:
    """What JSON can hold of it, bounded: it comes from strangers."""
    kept: dict[str, Any] = {}
    for name, value in list(made.items())[:_MAX_FACTS]:
        if isinstance(value, str):
            kept[str(name)[:_MAX_WORDS]] = value.encode("utf-8", "replace").decode()[:_MAX_WORDS]
        elif isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
            kept[str(name)[:_MAX_WORDS]] = value
    return kept
