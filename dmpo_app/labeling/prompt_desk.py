"""Prompt service: imports and their planning, proposals of annotators, moves between the sides, suggestions."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.domain.prompt import (
    MAX_PROMPT,
    NewPrompt,
    PromptImportPlan,
    PromptPage,
    PromptQuery,
    Refusal,
    RefusedPrompt,
    StoredPrompt,
    SuggestedPrompt,
    clean_tag,
    fold,
    has_control_characters,
    normalize_text,
)
from dmpo_app.domain.vote import Annotator
from dmpo_app.errors import BadInputError, BusyError, ForbiddenError, NotFoundError
from dmpo_app.labeling.quality.standing import Standings
from dmpo_app.labeling.text_checks import BlockList, NearDuplicateIndex
from dmpo_app.parsing.prompt_rows import FileRow
from dmpo_app.settings import Settings
from dmpo_app.store import Store
from dmpo_app.store.prompts import NewcomerPromptLimit

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


MAX_SUGGESTIONS = 20
BATCH = 500
"""Prompts in one transaction."""

_ATTEMPTS = 5
_T = TypeVar("_T")

_REFUSAL_MESSAGES = {
    Refusal.EMPTY: "Write a prompt first.",
    Refusal.NOT_TEXT: "A prompt has to be text.",
    Refusal.CONTROL_CHARACTERS: "The prompt holds characters that cannot be seen; type it anew.",
    Refusal.BLOCKED: "The prompt holds a word that this campaign does not allow.",
}


class PromptService:
    """The prompts of one lineage. Safe for any number of threads. Raises SetupError for an unreadable block list."""

    def __init__(self, store: Store, base: BaseModelRef, settings: Settings, standings: Standings) -> None:
        self._store = store
        self._base = base
        self._settings = settings.labeling
        self.parser_limits = settings.parsing.limits
        self._standings = standings
        self._blocked = BlockList.read(settings.labeling.blocked_words)

    def rules(self, *, held_out_share: float = 0.0, tags: Sequence[str] = ()) -> PromptImportRules:
        """The rules of an import. Raises BadInputError for a share outside [0, 1] and for a tag without a word."""
        if not 0 <= held_out_share <= 1:
            raise BadInputError(f"the held-out share is {held_out_share}; expected a number from 0 to 1")
        return PromptImportRules(held_out_share, clean_tags(tags), near_duplicate=self._settings.near_duplicate)

    def plan(self, rows: Sequence[FileRow], rules: PromptImportRules) -> PromptImportPlan:
        """Plan an import: what `import_prompts` would do now."""
        return plan_import(rows, self._store.prompts.snapshot().prompts, rules, self._blocked)

    def import_prompts(self, rows: Sequence[FileRow], rules: PromptImportRules, *, by: str) -> PromptImportPlan:
        """Import prompts, an act of `by`, a transaction a batch; importing again changes nothing.

        Stored prompts get the tags. Returns what was done. Raises BusyError when others keep changing prompts.
        """
        return _with_retries(lambda: self._import_once(rows, rules, by))

    def propose(self, annotator: Annotator, text: str) -> tuple[str, bool]:
        """Add an annotator's own prompt; returns it as stored, and whether it is new. It is on disk then.

        Raises ForbiddenError when the campaign does not allow it, BadInputError saying what is wrong, RateLimitError.
        """
        if not self._settings.free_prompts:
            raise ForbiddenError("this campaign has its own prompts; it takes no others")
        folded = fold(text)
        rules = PromptImportRules(
            max_length=self._settings.free_prompt_length, near_duplicate=self._settings.near_duplicate
        )
        reason = find_refusal(text, folded, rules, self._blocked)
        if reason is not None:
            too_long = f"A prompt has at most {rules.max_length} characters here, not {len(normalize_text(text))}."
            raise BadInputError(_REFUSAL_MESSAGES.get(reason, too_long))
        prompt = NewPrompt(normalize_text(text), folded, held_out=False)
        return prompt.text, _with_retries(lambda: self._propose_once(annotator, prompt))

    def move(self, ids: Sequence[int], *, held_out: bool, by: str) -> list[RefusedPrompt]:
        """Move prompts to a side, an act of `by`; those that cannot go are returned with why, `row` being their id.

        A prompt with pairs is not held out, and near duplicates are not torn apart: move them together.
        """
        return _with_retries(lambda: self._move_once(set(ids), held_out, by))

    def find_across_split(self) -> list[tuple[StoredPrompt, StoredPrompt]]:
        """Find near duplicates across the split, the held-out one first: of lists that were written by hand."""
        prompts = self._store.prompts.snapshot().prompts
        index = self._index([prompt for prompt in prompts if not prompt.held_out])
        return [(prompt, near) for prompt in prompts if prompt.held_out for near in index.find(prompt.folded)]

    def page(self, *, search: str, query: PromptQuery) -> PromptPage:
        """A page of prompts with words that begin as those of `search` do, and the query's other conditions."""
        return self._store.prompt_catalog.page(
            self._base,
            replace(query, search=_search_words(search), tag=None if query.tag is None else clean_tag(query.tag)),
        )

    def suggest(self, text: str, count: int) -> list[SuggestedPrompt]:
        """Suggest prompts of the set with words that begin as those of `text` do, at most MAX_SUGGESTIONS."""
        return self._store.prompt_catalog.suggest(_search_words(text), min(count, MAX_SUGGESTIONS))

    def _import_once(self, rows: Sequence[FileRow], rules: PromptImportRules, by: str) -> PromptImportPlan | None:
        snapshot = self._store.prompts.snapshot()
        plan = plan_import(rows, snapshot.prompts, rules, self._blocked)
        state = snapshot.state
        for start in range(0, len(plan.new_prompts), BATCH):
            batch = plan.new_prompts[start : start + BATCH]
            next_state = self._store.prompts.insert_imported(batch, expected=state, by=by)
            if next_state is None:
                return None
            state = next_state
        stored_ids = [prompt.id for prompt in plan.stored_prompts] if rules.tags else []
        for start in range(0, len(stored_ids), BATCH):
            self._store.prompt_catalog.tag(stored_ids[start : start + BATCH], rules.tags, by=by)
        return plan

    def _propose_once(self, annotator: Annotator, prompt: NewPrompt) -> bool | None:
        held_out = self._store.prompts.snapshot(held_out=True)
        if next(self._index(held_out.prompts).find(prompt.folded), None) is not None:
            raise BadInputError("The prompt is too close to one that the model is judged by; try another one.")
        return self._store.prompts.propose(
            prompt,
            annotator_id=annotator.id,
            per_day=self._settings.free_prompts_per_day,
            expected=held_out.state,
            newcomer_limit=self._newcomer_limit(annotator),
        )

    def _newcomer_limit(self, annotator: Annotator) -> NewcomerPromptLimit | None:
        """The limit that holds for this annotator; None for an established one."""
        established = self._standings.established()
        if established is None or annotator.id in established:
            return None
        return NewcomerPromptLimit(established, self._settings.newcomers.prompt_share)

    def _move_once(self, ids: set[int], held_out: bool, by: str) -> list[RefusedPrompt] | None:
        snapshot = self._store.prompts.snapshot()
        prompts = [prompt for prompt in snapshot.prompts if prompt.id in ids and prompt.held_out != held_out]
        missing_ids = ids - {prompt.id for prompt in snapshot.prompts}
        if missing_ids:
            raise NotFoundError(
                f"there is no prompt {min(missing_ids)}; `dmpo prompts list` shows them with their numbers"
            )
        refusals = self._refuse_with_pairs(prompts) if held_out else {}
        reason = Refusal.NEAR_TRAINING if held_out else Refusal.NEAR_HELD_OUT
        while True:  # whoever stays may keep others
            accepted_ids = {prompt.id for prompt in prompts} - set(refusals)
            other_side = self._index(
                [p for p in snapshot.prompts if p.held_out != held_out and p.id not in accepted_ids]
            )
            near_by_id = {
                p.id: near for p in prompts if p.id in accepted_ids and (near := next(other_side.find(p.folded), None))
            }
            if not near_by_id:
                break
            texts = {prompt.id: prompt.text for prompt in prompts}
            refusals |= {key: RefusedPrompt(key, texts[key], reason, near.text) for key, near in near_by_id.items()}
        if self._store.prompts.move(sorted(accepted_ids), held_out=held_out, expected=snapshot.state, by=by) is None:
            return None
        return [refusals[key] for key in sorted(refusals)]

    def _refuse_with_pairs(self, prompts: Sequence[StoredPrompt]) -> dict[int, RefusedPrompt]:
        ids_with_pairs = self._store.prompts.ids_with_pairs()
        return {p.id: RefusedPrompt(p.id, p.text, Refusal.HAS_PAIRS) for p in prompts if p.id in ids_with_pairs}

    def _index(self, prompts: Sequence[StoredPrompt]) -> NearDuplicateIndex[StoredPrompt]:
        return _index_prompts(prompts, self._settings.near_duplicate)


def clean_tags(tags: Sequence[str]) -> tuple[str, ...]:
    """Normalize tags, each once. Raises BadInputError for one without a letter or digit."""
    cleaned = {clean_tag(tag): tag for tag in tags}
    if "" in cleaned:
        raise BadInputError(f"{cleaned['']!r} is no tag; expected a word or a few")
    return tuple(cleaned)


def _search_words(text: str) -> tuple[str, ...]:
    """Split a search text into at most eight folded words; none for a text without letters."""
    if has_control_characters(text) or not any(character.isalnum() for character in text):
        return ()
    return tuple(fold(text).split()[:8])


def _with_retries(work: Callable[[], _T | None]) -> _T:
    """Retry `work` while the prompts change under it (it returns None then). Raises BusyError after a few attempts."""
    for _ in range(_ATTEMPTS):
        result = work()
        if result is not None:
            return result
    raise BusyError("others are changing prompts at the same time; try again in a moment")


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
        candidate = _Candidate(row.number, text, folded, _merge_tags(rules.tags, row.category))
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


def _merge_tags(tags: Sequence[str], category: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(tag for tag in (*tags, clean_tag(category)) if tag))


def _assign_sides(
    candidates: Sequence[_Candidate], stored: Sequence[StoredPrompt], rules: PromptImportRules
) -> tuple[list[NewPrompt], list[RefusedPrompt]]:
    if rules.held_out_share in (0, 1):
        return _on_one_side(candidates, stored, rules, held_out=rules.held_out_share == 1)
    return _split_by_group(candidates, stored, rules)


def _on_one_side(
    candidates: Sequence[_Candidate], stored: Sequence[StoredPrompt], rules: PromptImportRules, *, held_out: bool
) -> tuple[list[NewPrompt], list[RefusedPrompt]]:
    others = _index_prompts([prompt for prompt in stored if prompt.held_out != held_out], rules.near_duplicate)
    reason = Refusal.NEAR_TRAINING if held_out else Refusal.NEAR_HELD_OUT
    new, refusals = [], []
    for candidate in candidates:
        near = next(others.find(candidate.folded), None)
        if near is None:
            new.append(candidate.to_new_prompt(held_out))
        else:
            refusals.append(candidate.refuse(reason, near.text))
    return new, refusals


def _split_by_group(
    candidates: Sequence[_Candidate], stored: Sequence[StoredPrompt], rules: PromptImportRules
) -> tuple[list[NewPrompt], list[RefusedPrompt]]:
    """Split groups of near duplicates by the side of a stored near duplicate, or by their hash.

    Where a group has some on both sides, it goes into training, and its rows that are near a held-out prompt are
    refused.
    """
    indexes = [
        _index_prompts([prompt for prompt in stored if prompt.held_out is side], rules.near_duplicate)
        for side in (False, True)
    ]
    new, refusals = [], []
    for group in _group_near_duplicates(candidates, rules):
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


def _index_prompts(prompts: Sequence[StoredPrompt], similarity: float) -> NearDuplicateIndex[StoredPrompt]:
    return NearDuplicateIndex(((prompt, prompt.folded) for prompt in prompts), similarity)


def _group_near_duplicates(candidates: Sequence[_Candidate], rules: PromptImportRules) -> list[list[_Candidate]]:
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
