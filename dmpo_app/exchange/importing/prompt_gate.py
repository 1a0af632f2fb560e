"""Which imported prompts may have pairs: the rules of every other prompt, and the split."""

from __future__ import annotations

from dmpo_app.domain.prompt import Refusal
from dmpo_app.domain.prompt_text import fold
from dmpo_app.labeling.block_list import BlockList
from dmpo_app.labeling.prompt_checks import NearDuplicates
from dmpo_app.labeling.prompt_import import ImportRules, why_refused
from dmpo_app.settings import Settings
from dmpo_app.store import Store
from dmpo_app.store.imports.import_rows import HELD_OUT

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
