"""The contact sheet: for every version the same few held-out prompts and seeds, to show how the model changed.

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
    """One row of the contact sheet: a prompt under one version, once per seed, made in one batch."""

    prompt: str
    version: int
    seeds: tuple[int, ...] = SEEDS


class ContactSheetPlanner:
    """Planner of the missing rows. The store is read once; from then on `mark_done` keeps count."""

    def __init__(self, store: Store, base: BaseModelRef) -> None:
        self._store = store
        self._base = base
        self._complete_rows: set[tuple[int, str]] | None = None
        self._prompts: list[str] = []
        self._skipped_versions: set[int] = set()

    def next_row(self, live_version: int) -> SheetPlan | None:
        """The next missing row, or None when the sheet is complete or there are no held-out prompts."""
        if self._complete_rows is None or not self._prompts:
            self._complete_rows, self._prompts = self._read()
        for version in self._versions(live_version):
            for prompt in self._prompts:
                if (version, prompt) not in self._complete_rows:
                    return SheetPlan(prompt=prompt, version=version)
        return None

    def mark_done(self, plan: SheetPlan) -> None:
        """Record that a row has been stored."""
        if self._complete_rows is not None:
            self._complete_rows.add((plan.version, plan.prompt))

    def skip_version(self, version: int) -> None:
        """Leave out a version that cannot be loaded, until the next start."""
        _log.warning("no contact sheet for version %d: it cannot be loaded", version)
        self._skipped_versions.add(version)

    def _versions(self, live_version: int) -> Iterator[int]:
        published = [adapter.version for adapter in self._store.adapters.list(self._base)]
        for version in dict.fromkeys([live_version, BASE_VERSION, *reversed(published)]):
            if version not in self._skipped_versions:
                yield version

    def _read(self) -> tuple[set[tuple[int, str]], list[str]]:
        """Read the complete rows, and the prompts: those in use already, else some spread over the held-out ones."""
        seeds_by_row: dict[tuple[int, str], set[int]] = {}
        for image in self._store.images.contact_sheet(self._base):
            provenance = image.provenance
            seeds_by_row.setdefault((provenance.adapter_version, provenance.prompt), set()).add(provenance.seed)
        complete = {row for row, seeds in seeds_by_row.items() if seeds.issuperset(SEEDS)}
        in_use = list(dict.fromkeys(prompt for _, prompt in seeds_by_row))[:NUM_PROMPTS]
        held_out = [prompt.text for prompt in self._store.prompts.list(held_out=True) if prompt.text not in in_use]
        missing = min(NUM_PROMPTS - len(in_use), len(held_out))
        new_prompts = [held_out[index * len(held_out) // missing] for index in range(missing)]
        return complete, in_use + new_prompts
