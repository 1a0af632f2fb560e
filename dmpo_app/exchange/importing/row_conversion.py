"""From a row of any format to pairs with answers: what can be said before an image is decoded."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeVar

from dmpo_app.domain.data_import import ImportedImage, ImportedPair, ImportedVote, ImportUse, pair_key
from dmpo_app.domain.vote import Outcome, Question, Strength
from dmpo_app.errors import BadInput
from dmpo_app.exchange.importing.people import People
from dmpo_app.exchange.importing.prompt_gate import PromptGate
from dmpo_app.exchange.readers.image_sources import ImageFolder, UnusableImage
from dmpo_app.exchange.readers.pair import Reason
from dmpo_app.exchange.readers.reader import Facts, Judgement, PreferenceReader, Row
from dmpo_app.labeling.service import MAX_ELAPSED_MS
from dmpo_app.labeling.text_checks import clean_words
from dmpo_app.store.files import sha256_of

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
