"""The contact sheet: for every version the same few held-out prompts and seeds, so that one sees how the model changed.

Version 0 is on it too. What is missing is made whenever nothing more urgent waits, the live version first, so a studio
that was stopped in between catches up after the next start.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

from dmpo_app.domain.lineage import BASE_VERSION, BaseModelRef
from dmpo_app.store import Store

NUM_PROMPTS = 4
SEEDS = (101, 202)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SheetPlan:
    """One row: a prompt under one version, once per seed, made in one batch."""

    prompt: str
    version: int
    seeds: tuple[int, ...] = SEEDS


class ContactSheetPlanner:
    """Knows which rows are missing. The store is read once; from then on `done` keeps count."""

    def __init__(self, store: Store, base: BaseModelRef) -> None:
        self._store = store
        self._base = base
        self._made: set[tuple[int, str]] | None = None
        self._prompts: list[str] = []
        self._given_up: set[int] = set()

    def next(self, live_version: int) -> SheetPlan | None:
        """The next missing row, or None when the sheet is complete or there are no held-out prompts."""
        if self._made is None or not self._prompts:
            self._made, self._prompts = self._read()
        for version in self._versions(live_version):
            for prompt in self._prompts:
                if (version, prompt) not in self._made:
                    return SheetPlan(prompt=prompt, version=version)
        return None

    def done(self, plan: SheetPlan) -> None:
        """A row has been stored."""
        if self._made is not None:
            self._made.add((plan.version, plan.prompt))

    def give_up(self, version: int) -> None:
        """A version that cannot be loaded is left out until the next start."""
        _log.warning("no contact sheet for version %d: it cannot be loaded", version)
        self._given_up.add(version)

    def _versions(self, live_version: int) -> Iterator[int]:
        published = [adapter.version for adapter in self._store.adapters.list(self._base)]
        for version in dict.fromkeys([live_version, BASE_VERSION, *reversed(published)]):
            if version not in self._given_up:
                yield version

    def _read(self) -> tuple[set[tuple[int, str]], list[str]]:
        """The complete rows, and the prompts: those in use already, else some spread over the held-out ones."""
        seeds_of: dict[tuple[int, str], set[int]] = {}
        for image in self._store.images.contact_sheet(self._base):
            made = image.provenance
            seeds_of.setdefault((made.adapter_version, made.prompt), set()).add(made.seed)
        complete = {row for row, seeds in seeds_of.items() if seeds.issuperset(SEEDS)}
        in_use = list(dict.fromkeys(prompt for _, prompt in seeds_of))[:NUM_PROMPTS]
        held_out = [prompt.text for prompt in self._store.prompts.list(held_out=True) if prompt.text not in in_use]
        missing = min(NUM_PROMPTS - len(in_use), len(held_out))
        spread = [held_out[index * len(held_out) // missing] for index in range(missing)]
        return complete, in_use + spread
