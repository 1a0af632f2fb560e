"""What an import comes to: which rows become prompts, on which side, and which are refused. Nothing is written here."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dmpo_app.domain.prompt import (
    MAX_PROMPT,
    ImportPlan,
    KnownPrompt,
    NewPrompt,
    Refusal,
    RefusedPrompt,
    clean_tag,
    fold,
    has_control_characters,
    tidy,
)
from dmpo_app.labeling.prompt_files import FileRow
from dmpo_app.labeling.text_checks import BlockList, NearDuplicates

_SHOWN = 120
"""Characters of a refused prompt that are repeated."""


@dataclass(frozen=True, slots=True)
class ImportRules:
    """How rows are judged. `held_out_share`: 0 trains on all new prompts, 1 holds all out; between, that share of the
    groups of near duplicates is held out, by a hash of their text, so that the same file is always split alike.
    `near_duplicate`: least similarity that makes near duplicates."""

    held_out_share: float = 0.0
    tags: tuple[str, ...] = ()
    max_length: int = MAX_PROMPT
    near_duplicate: float = 0.8


@dataclass(frozen=True, slots=True)
class _Candidate:
    row: int
    text: str
    folded: str
    tags: tuple[str, ...]

    def on(self, held_out: bool) -> NewPrompt:
        return NewPrompt(self.text, self.folded, held_out, self.tags)

    def refused(self, reason: Refusal, like: str = "") -> RefusedPrompt:
        return RefusedPrompt(self.row, self.text[:_SHOWN], reason, like[:_SHOWN])


def why_refused(text: object, folded: str, rules: ImportRules, blocked: BlockList) -> Refusal | None:
    """What is wrong with a prompt in itself, wherever it comes from. `folded` may be empty for what is no text."""
    if text is None:
        return Refusal.EMPTY
    if not isinstance(text, str):
        return Refusal.NOT_TEXT
    if has_control_characters(text):
        return Refusal.CONTROL_CHARACTERS
    if not any(character.isalnum() for character in folded):
        return Refusal.EMPTY
    if len(tidy(text)) > rules.max_length:
        return Refusal.TOO_LONG
    return Refusal.BLOCKED if blocked.blocks(folded) else None


def plan_import(
    rows: Iterable[FileRow], known: Sequence[KnownPrompt], rules: ImportRules, blocked: BlockList
) -> ImportPlan:
    """Judge every row. A row whose twin is there already, on whichever side, is known; a second twin within the file is
    a duplicate. Rows are refused when they are too close to a prompt of the other side."""
    twins: dict[str, KnownPrompt] = {}
    for prompt in known:
        twins.setdefault(prompt.folded, prompt)
    refused: list[RefusedPrompt] = []
    candidates: dict[str, _Candidate] = {}
    met: dict[int, KnownPrompt] = {}
    for row in rows:
        folded = fold(row.prompt) if isinstance(row.prompt, str) else ""
        reason = why_refused(row.prompt, folded, rules, blocked)
        text = tidy(row.prompt) if isinstance(row.prompt, str) else ""
        candidate = _Candidate(row.number, text, folded, _tags(rules.tags, row.category))
        if reason is not None:
            shown = "" if reason is Refusal.CONTROL_CHARACTERS else text[:_SHOWN]
            refused.append(RefusedPrompt(row.number, shown, reason))
        elif folded in candidates:
            refused.append(candidate.refused(Refusal.DUPLICATE, candidates[folded].text))
        elif folded in twins:
            refused += _met(candidate, twins[folded], met, rules)
        else:
            candidates[folded] = candidate
    new, too_near = _placed(list(candidates.values()), known, rules)
    refused = sorted([*refused, *too_near], key=lambda item: item.row)
    return ImportPlan(new, list(met.values()), refused)


def _met(
    candidate: _Candidate, twin: KnownPrompt, met: dict[int, KnownPrompt], rules: ImportRules
) -> list[RefusedPrompt]:
    """A prompt that is there already is no news, unless the file would have it on the other side."""
    if rules.held_out_share == 0 and twin.held_out:
        return [candidate.refused(Refusal.NEAR_HELD_OUT, twin.text)]
    if rules.held_out_share == 1 and not twin.held_out:
        return [candidate.refused(Refusal.NEAR_TRAINING, twin.text)]
    if twin.id in met:
        return [candidate.refused(Refusal.DUPLICATE, twin.text)]
    met[twin.id] = twin
    return []


def _tags(given: Sequence[str], category: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(tag for tag in (*given, clean_tag(category)) if tag))


def _placed(
    candidates: Sequence[_Candidate], known: Sequence[KnownPrompt], rules: ImportRules
) -> tuple[list[NewPrompt], list[RefusedPrompt]]:
    if rules.held_out_share in (0, 1):
        return _on_one_side(candidates, known, rules, held_out=rules.held_out_share == 1)
    return _split(candidates, known, rules)


def _on_one_side(
    candidates: Sequence[_Candidate], known: Sequence[KnownPrompt], rules: ImportRules, *, held_out: bool
) -> tuple[list[NewPrompt], list[RefusedPrompt]]:
    others = _index([prompt for prompt in known if prompt.held_out != held_out], rules)
    reason = Refusal.NEAR_TRAINING if held_out else Refusal.NEAR_HELD_OUT
    new, refused = [], []
    for candidate in candidates:
        near = next(others.of(candidate.folded), None)
        if near is None:
            new.append(candidate.on(held_out))
        else:
            refused.append(candidate.refused(reason, near.text))
    return new, refused


def _split(
    candidates: Sequence[_Candidate], known: Sequence[KnownPrompt], rules: ImportRules
) -> tuple[list[NewPrompt], list[RefusedPrompt]]:
    """Groups of near duplicates go to the side of a known near duplicate, or by their hash. Where a group has some on
    both sides, it goes into training, and its rows that are near a held-out prompt are refused."""
    indexes = [_index([prompt for prompt in known if prompt.held_out is side], rules) for side in (False, True)]
    new, refused = [], []
    for group in _groups(candidates, rules):
        near_training, near_held_out = (
            [next(index.of(candidate.folded), None) for candidate in group] for index in indexes
        )
        by_hash = _share_of(group) < rules.held_out_share
        held_out = not any(near_training) and (any(near_held_out) or by_hash)
        for candidate, near in zip(group, near_held_out, strict=True):
            if not held_out and near is not None:
                refused.append(candidate.refused(Refusal.NEAR_HELD_OUT, near.text))
            else:
                new.append((candidate.row, candidate.on(held_out)))
    return [prompt for _, prompt in sorted(new, key=lambda item: item[0])], refused


def _index(prompts: Sequence[KnownPrompt], rules: ImportRules) -> NearDuplicates[KnownPrompt]:
    return NearDuplicates(((prompt, prompt.folded) for prompt in prompts), rules.near_duplicate)


def _groups(candidates: Sequence[_Candidate], rules: ImportRules) -> list[list[_Candidate]]:
    """Candidates that are near duplicates of one another, directly or through others."""
    leader = list(range(len(candidates)))

    def find(number: int) -> int:
        while leader[number] != number:
            leader[number] = leader[leader[number]]
            number = leader[number]
        return number

    index = NearDuplicates(((n, candidate.folded) for n, candidate in enumerate(candidates)), rules.near_duplicate)
    for number, candidate in enumerate(candidates):
        for other in index.of(candidate.folded):
            leader[find(number)] = find(other)
    groups: dict[int, list[_Candidate]] = {}
    for number, candidate in enumerate(candidates):
        groups.setdefault(find(number), []).append(candidate)
    return list(groups.values())


def _share_of(group: Sequence[_Candidate]) -> float:
    """A number in [0, 1) that follows from the texts, whatever their order."""
    digest = hashlib.sha256(min(candidate.folded for candidate in group).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
