"""Prompts as their callers manage them: imports, proposals of annotators, sides, suggestions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.domain.prompt import (
    ImportPlan,
    KnownPrompt,
    NewPrompt,
    PromptPage,
    PromptQuery,
    Refusal,
    RefusedPrompt,
    SuggestedPrompt,
    clean_tag,
    fold,
    has_control_characters,
    tidy,
)
from dmpo_app.domain.vote import Annotator
from dmpo_app.errors import BadInput, Busy, NotFound, NotYours
from dmpo_app.labeling.prompt_files import FileRow
from dmpo_app.labeling.prompt_import import ImportRules, plan_import, why_refused
from dmpo_app.labeling.text_checks import BlockList, NearDuplicates
from dmpo_app.settings import Settings
from dmpo_app.store import Store

MAX_SUGGESTIONS = 20
BATCH = 500
"""Prompts of one transaction."""

_ATTEMPTS = 5
_T = TypeVar("_T")

_WORDS = {
    Refusal.EMPTY: "Write a prompt first.",
    Refusal.NOT_TEXT: "A prompt has to be text.",
    Refusal.CONTROL_CHARACTERS: "The prompt holds characters that cannot be seen; type it anew.",
    Refusal.BLOCKED: "The prompt holds a word that this campaign does not allow.",
}


class PromptDesk:
    """One lineage's prompts. Safe for any number of threads. Raises SetupProblem when the block list cannot be read."""

    def __init__(self, store: Store, base: BaseModelRef, settings: Settings) -> None:
        self._store = store
        self._base = base
        self._settings = settings.labeling
        self._blocked = BlockList.read(settings.labeling.blocked_words)

    def rules(self, *, held_out_share: float = 0.0, tags: Sequence[str] = ()) -> ImportRules:
        """The rules of an import. Raises BadInput for a share outside [0, 1] and for a tag without a word."""
        if not 0 <= held_out_share <= 1:
            raise BadInput(f"the held-out share is {held_out_share}; expected a number from 0 to 1")
        return ImportRules(held_out_share, clean_tags(tags), near_duplicate=self._settings.near_duplicate)

    def plan(self, rows: Sequence[FileRow], rules: ImportRules) -> ImportPlan:
        """What `take_in` would do now."""
        return plan_import(rows, self._store.prompts.snapshot().prompts, rules, self._blocked)

    def take_in(self, rows: Sequence[FileRow], rules: ImportRules, *, by: str) -> ImportPlan:
        """Import, an act of `by`: all that can be taken is, a transaction a batch; importing again changes nothing.

        What is known already gets the tags. Returns what was done. Raises Busy when others keep changing prompts.
        """
        return _retried(lambda: self._take_in_once(rows, rules, by))

    def propose(self, annotator: Annotator, text: str) -> tuple[str, bool]:
        """A prompt of an annotator's own: as it is kept, and whether it is new. It is on disk when this returns.

        Raises NotYours when the campaign does not allow it, BadInput saying what is wrong, TooMany.
        """
        if not self._settings.free_prompts:
            raise NotYours("this campaign has its own prompts; it takes no others")
        folded = fold(text)
        rules = ImportRules(max_length=self._settings.free_prompt_length, near_duplicate=self._settings.near_duplicate)
        reason = why_refused(text, folded, rules, self._blocked)
        if reason is not None:
            too_long = f"A prompt has at most {rules.max_length} characters here, not {len(tidy(text))}."
            raise BadInput(_WORDS.get(reason, too_long))
        prompt = NewPrompt(tidy(text), folded, held_out=False)
        return prompt.text, _retried(lambda: self._propose_once(annotator, prompt))

    def place(self, ids: Sequence[int], *, held_out: bool, by: str) -> list[RefusedPrompt]:
        """Move prompts to a side, an act of `by`; those that cannot go are returned with why, `row` being their id.

        A prompt with pairs is not held out, and near duplicates are not torn apart: move them together.
        """
        return _retried(lambda: self._place_once(set(ids), held_out, by))

    def across(self) -> list[tuple[KnownPrompt, KnownPrompt]]:
        """Near duplicates on both sides, the held-out one first: of lists that were written by hand."""
        prompts = self._store.prompts.snapshot().prompts
        index = self._index([prompt for prompt in prompts if not prompt.held_out])
        return [(prompt, near) for prompt in prompts if prompt.held_out for near in index.of(prompt.folded)]

    def page(self, *, search: str, query: PromptQuery) -> PromptPage:
        """Prompts with words that begin as those of `search` do, and the query's other conditions."""
        return self._store.prompt_catalog.page(
            self._base,
            replace(query, search=_search_words(search), tag=None if query.tag is None else clean_tag(query.tag)),
        )

    def suggest(self, like: str, count: int) -> list[SuggestedPrompt]:
        """Prompts of the set with words that begin as those of `like` do, at most MAX_SUGGESTIONS."""
        return self._store.prompt_catalog.suggest(_search_words(like), min(count, MAX_SUGGESTIONS))

    def _take_in_once(self, rows: Sequence[FileRow], rules: ImportRules, by: str) -> ImportPlan | None:
        snapshot = self._store.prompts.snapshot()
        plan = plan_import(rows, snapshot.prompts, rules, self._blocked)
        state = snapshot.state
        for start in range(0, len(plan.new), BATCH):
            batch = plan.new[start : start + BATCH]
            after = self._store.prompts.take_in(batch, expected=state, by=by)
            if after is None:
                return None
            state = after
        known = [prompt.id for prompt in plan.known] if rules.tags else []
        for start in range(0, len(known), BATCH):
            self._store.prompt_catalog.tag(known[start : start + BATCH], rules.tags, by=by)
        return plan

    def _propose_once(self, annotator: Annotator, prompt: NewPrompt) -> bool | None:
        held_out = self._store.prompts.snapshot(held_out=True)
        if next(self._index(held_out.prompts).of(prompt.folded), None) is not None:
            raise BadInput("The prompt is too close to one that the model is judged by; try another one.")
        return self._store.prompts.propose(
            prompt,
            annotator_id=annotator.id,
            per_day=self._settings.free_prompts_per_day,
            expected=held_out.state,
        )

    def _place_once(self, ids: set[int], held_out: bool, by: str) -> list[RefusedPrompt] | None:
        snapshot = self._store.prompts.snapshot()
        moving = [prompt for prompt in snapshot.prompts if prompt.id in ids and prompt.held_out != held_out]
        missing = ids - {prompt.id for prompt in snapshot.prompts}
        if missing:
            raise NotFound(f"there is no prompt {min(missing)}; `dmpo prompts list` shows them with their numbers")
        refused = self._with_pairs(moving) if held_out else {}
        reason = Refusal.NEAR_TRAINING if held_out else Refusal.NEAR_HELD_OUT
        while True:  # whoever stays may keep others
            going = {prompt.id for prompt in moving} - set(refused)
            staying = self._index([p for p in snapshot.prompts if p.held_out != held_out and p.id not in going])
            kept = {p.id: near for p in moving if p.id in going and (near := next(staying.of(p.folded), None))}
            if not kept:
                break
            texts = {prompt.id: prompt.text for prompt in moving}
            refused |= {key: RefusedPrompt(key, texts[key], reason, near.text) for key, near in kept.items()}
        if self._store.prompts.place(sorted(going), held_out=held_out, expected=snapshot.state, by=by) is None:
            return None
        return [refused[key] for key in sorted(refused)]

    def _with_pairs(self, prompts: Sequence[KnownPrompt]) -> dict[int, RefusedPrompt]:
        with_pairs = self._store.prompts.with_pairs()
        return {p.id: RefusedPrompt(p.id, p.text, Refusal.HAS_PAIRS) for p in prompts if p.id in with_pairs}

    def _index(self, prompts: Sequence[KnownPrompt]) -> NearDuplicates[KnownPrompt]:
        return NearDuplicates(((prompt, prompt.folded) for prompt in prompts), self._settings.near_duplicate)


def clean_tags(tags: Sequence[str]) -> tuple[str, ...]:
    """Tags as they are stored, each once. Raises BadInput for one without a letter or digit."""
    cleaned = {clean_tag(tag): tag for tag in tags}
    if "" in cleaned:
        raise BadInput(f"{cleaned['']!r} is no tag; expected a word or a few")
    return tuple(cleaned)


def _search_words(text: str) -> tuple[str, ...]:
    """At most eight folded words; none for a text without letters."""
    if has_control_characters(text) or not any(character.isalnum() for character in text):
        return ()
    return tuple(fold(text).split()[:8])


def _retried(work: Callable[[], _T | None]) -> _T:
    """Run `work` until it found the prompts as it had compared with. Raises Busy after a few times."""
    for _ in range(_ATTEMPTS):
        result = work()
        if result is not None:
            return result
    raise Busy("others are changing prompts at the same time; try again in a moment")
