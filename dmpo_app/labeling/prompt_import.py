"""Planning of a prompt import: new prompts with their side, and refused rows. Nothing is written here."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dmpo_app.domain.prompt import (
    MAX_PROMPT,
    NewPrompt,
    PromptImportPlan,
    Refusal,
    RefusedPrompt,
    StoredPrompt,
    clean_tag,
    fold,
    has_control_characters,
    normalize_text,
)
from dmpo_app.labeling.prompt_files import FileRow
from dmpo_app.labeling.text_checks import BlockList, NearDuplicateIndex

_MAX_SHOWN = 120
"""Characters of a refused prompt that are shown."""


@dataclass(frozen=True, slots=True)
class PromptImportRules:
    """The rules of a prompt import.

    `held_out_share`: 0 trains on all new prompts, 1 holds all out; between, that share of the groups of near
    duplicates is held out, by a hash of their text, so that the same file is always split alike. `near_duplicate`:
    least similarity that makes near duplicates.
    """

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

    def to_new_prompt(self, held_out: bool) -> NewPrompt:
        return NewPrompt(self.text, self.folded, held_out, self.tags)

    def refuse(self, reason: Refusal, like: str = "") -> RefusedPrompt:
        return RefusedPrompt(self.row, self.text[:_MAX_SHOWN], reason, like[:_MAX_SHOWN])


def find_refusal(text: object, folded: str, rules: PromptImportRules, blocked: BlockList) -> Refusal | None:
    """The reason to refuse a prompt, from its text alone; None: it is valid. `folded`: empty for what is no text."""
    if text is None:
        return Refusal.EMPTY
    if not isinstance(text, str):
        return Refusal.NOT_TEXT
    if has_control_characters(text):
        return Refusal.CONTROL_CHARACTERS
    if not any(character.isalnum() for character in folded):
        return Refusal.EMPTY
    if len(normalize_text(text)) > rules.max_length:
        return Refusal.TOO_LONG
    return Refusal.BLOCKED if blocked.blocks(folded) else None


def plan_import(
    rows: Iterable[FileRow], stored: Sequence[StoredPrompt], rules: PromptImportRules, blocked: BlockList
) -> PromptImportPlan:
    """Plan a prompt import.

    A row whose twin is stored already, on whichever side, is existing; a second twin within the file is a duplicate.
    Rows are refused when they are too close to a prompt of the other side.
    """
    twins: dict[str, StoredPrompt] = {}
    for prompt in stored:
        twins.setdefault(prompt.folded, prompt)
    refusals: list[RefusedPrompt] = []
    candidates: dict[str, _Candidate] = {}
    existing: dict[int, StoredPrompt] = {}
    for row in rows:
        folded = fold(row.prompt) if isinstance(row.prompt, str) else ""
        reason = find_refusal(row.prompt, folded, rules, blocked)
        text = normalize_text(row.prompt) if isinstance(row.prompt, str) else ""
        candidate = _Candidate(row.number, text, folded, _tags(rules.tags, row.category))
        if reason is not None:
            shown = "" if reason is Refusal.CONTROL_CHARACTERS else text[:_MAX_SHOWN]
            refusals.append(RefusedPrompt(row.number, shown, reason))
        elif folded in candidates:
            refusals.append(candidate.refuse(Refusal.DUPLICATE, candidates[folded].text))
        elif folded in twins:
            refusals += _note_existing(candidate, twins[folded], existing, rules)
        else:
            candidates[folded] = candidate
    new, too_near = _assign_sides(list(candidates.values()), stored, rules)
    refusals = sorted([*refusals, *too_near], key=lambda item: item.row)
    return PromptImportPlan(new, list(existing.values()), refusals)


def _note_existing(
    candidate: _Candidate, twin: StoredPrompt, existing: dict[int, StoredPrompt], rules: PromptImportRules
) -> list[RefusedPrompt]:
    """Note a stored prompt as existing, or refuse the row if the file would have it on the other side."""
    if rules.held_out_share == 0 and twin.held_out:
        return [candidate.refuse(Refusal.NEAR_HELD_OUT, twin.text)]
    if rules.held_out_share == 1 and not twin.held_out:
        return [candidate.refuse(Refusal.NEAR_TRAINING, twin.text)]
    if twin.id in existing:
        return [candidate.refuse(Refusal.DUPLICATE, twin.text)]
    existing[twin.id] = twin
    return []


def _tags(tags: Sequence[str], category: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(tag for tag in (*tags, clean_tag(category)) if tag))


def _assign_sides(
    candidates: Sequence[_Candidate], stored: Sequence[StoredPrompt], rules: PromptImportRules
) -> tuple[list[NewPrompt], list[RefusedPrompt]]:
    if rules.held_out_share in (0, 1):
        return _on_one_side(candidates, stored, rules, held_out=rules.held_out_share == 1)
    return _split(candidates, stored, rules)


def _on_one_side(
    candidates: Sequence[_Candidate], stored: Sequence[StoredPrompt], rules: PromptImportRules, *, held_out: bool
) -> tuple[list[NewPrompt], list[RefusedPrompt]]:
    others = _index([prompt for prompt in stored if prompt.held_out != held_out], rules)
    reason = Refusal.NEAR_TRAINING if held_out else Refusal.NEAR_HELD_OUT
    new, refusals = [], []
    for candidate in candidates:
        near = next(others.find(candidate.folded), None)
        if near is None:
            new.append(candidate.to_new_prompt(held_out))
        else:
            refusals.append(candidate.refuse(reason, near.text))
    return new, refusals


def _split(
    candidates: Sequence[_Candidate], stored: Sequence[StoredPrompt], rules: PromptImportRules
) -> tuple[list[NewPrompt], list[RefusedPrompt]]:
    """Split groups of near duplicates by the side of a stored near duplicate, or by their hash.

    Where a group has some on both sides, it goes into training, and its rows that are near a held-out prompt are
    refused.
    """
    indexes = [_index([prompt for prompt in stored if prompt.held_out is side], rules) for side in (False, True)]
    new, refusals = [], []
    for group in _groups(candidates, rules):
        near_training, near_held_out = (
            [next(index.find(candidate.folded), None) for candidate in group] for index in indexes
        )
        by_hash = _hash_fraction(group) < rules.held_out_share
        held_out = not any(near_training) and (any(near_held_out) or by_hash)
        for candidate, near in zip(group, near_held_out, strict=True):
            if not held_out and near is not None:
                refusals.append(candidate.refuse(Refusal.NEAR_HELD_OUT, near.text))
            else:
                new.append((candidate.row, candidate.to_new_prompt(held_out)))
    return [prompt for _, prompt in sorted(new, key=lambda item: item[0])], refusals


def _index(prompts: Sequence[StoredPrompt], rules: PromptImportRules) -> NearDuplicateIndex[StoredPrompt]:
    return NearDuplicateIndex(((prompt, prompt.folded) for prompt in prompts), rules.near_duplicate)


def _groups(candidates: Sequence[_Candidate], rules: PromptImportRules) -> list[list[_Candidate]]:
    """Group candidates that are near duplicates of one another, directly or through others (union-find)."""
    leader = list(range(len(candidates)))

    def find(number: int) -> int:
        while leader[number] != number:
            leader[number] = leader[leader[number]]
            number = leader[number]
        return number

    index = NearDuplicateIndex(((n, candidate.folded) for n, candidate in enumerate(candidates)), rules.near_duplicate)
    for number, candidate in enumerate(candidates):
        for other in index.find(candidate.folded):
            leader[find(number)] = find(other)
    groups: dict[int, list[_Candidate]] = {}
    for number, candidate in enumerate(candidates):
        groups.setdefault(find(number), []).append(candidate)
    return list(groups.values())


def _hash_fraction(group: Sequence[_Candidate]) -> float:
    """The hash of a group's texts as a number in [0, 1), whatever their order."""
    digest = hashlib.sha256(min(candidate.folded for candidate in group).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
