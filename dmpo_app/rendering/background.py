"""Background work of the render thread between requests: pairs, the contact sheet, purging. Imports no torch."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

from dmpo_app.domain.image import BaseModelRef
from dmpo_app.errors import AdapterError, BadInputError
from dmpo_app.rendering.pool import ContactSheetPlanner, PairPlan, PoolPlanner
from dmpo_app.settings import Settings
from dmpo_app.store import Store

if TYPE_CHECKING:
    from dmpo_app.rendering.engine import Engine

_Work = TypeVar("_Work")
_PURGE_EVERY = timedelta(hours=1)


class RenderPurge:
    """Purge of the before/after tab's images that are older than `render.keep_days`, once an hour."""

    def __init__(self, store: Store, base: BaseModelRef, settings: Settings, now: Callable[[], datetime]) -> None:
        self._store = store
        self._base = base
        self._keep = timedelta(days=settings.render.keep_days)
        self._now = now
        self._next = now()

    def run_if_due(self) -> None:
        if self._now() >= self._next:
            self._next = self._now() + _PURGE_EVERY
            self._store.images.purge_renders(self._base, self._now() - self._keep)


def most_urgent(
    *, pool_is_low: bool, pairs: Callable[[], _Work], sheet: Callable[[], _Work], rest: Callable[[], _Work]
) -> _Work:
    """Do the most urgent work there is, and return it: a pool that has run dry, the contact sheet, then the rest.

    Each callable gives something false when it has nothing to do.
    """
    if pool_is_low and (work := pairs()):
        return work
    return sheet() or rest()


class BackgroundWork:
    """The background tasks in order of urgency; `step` does one and returns, so that requests can come in between."""

    def __init__(
        self,
        engine: Engine,
        store: Store,
        base: BaseModelRef,
        settings: Settings,
        *,
        rng: random.Random,
        now: Callable[[], datetime],
    ) -> None:
        self._engine = engine
        self._purge = RenderPurge(store, base, settings, now)
        self._encodes_next = True
        self._pool = PoolPlanner(
            store,
            base,
            settings.pool,
            rng=rng,
            shares_cpu=engine.shares_cpu,
            num_images=settings.labeling.num_images,
        )
        self._sheet = ContactSheetPlanner(store, base)

    def step(self, should_stop: Callable[[], bool]) -> bool:
        """Do the most useful thing; False when there was nothing to do.

        A pool that has run dry comes before the contact sheet, the rest of the pool after it, in turns with imported
        pairs that need latents.
        """
        self._purge.run_if_due()
        return most_urgent(
            pool_is_low=self._pool.is_low(),
            pairs=lambda: self._make_pair(should_stop),
            sheet=lambda: self._make_sheet_row(should_stop),
            rest=lambda: self._make_pair_or_encode(should_stop),
        )

    def _make_pair_or_encode(self, should_stop: Callable[[], bool]) -> bool:
        self._encodes_next = not self._encodes_next
        if self._encodes_next:
            return self._make_pair(should_stop) or self._encode_imported()
        return self._encode_imported() or self._make_pair(should_stop)

    def _encode_imported(self) -> bool:
        """Encode imported pairs, but not while a round trains on the same processor: both would take twice as long."""
        return not self._pool.is_paused_by_round() and self._engine.encode_imported()

    def _make_pair(self, should_stop: Callable[[], bool]) -> bool:
        plan: PairPlan | None = self._pool.next_pair(self._engine.live_version)
        if plan is None:
            return False
        if not self._engine.make_pair(plan, should_stop):
            self._pool.record_refusal(plan)
        return True

    def _make_sheet_row(self, should_stop: Callable[[], bool]) -> bool:
        plan = self._sheet.next_row(self._engine.live_version)
        if plan is None:
            return False
        try:
            self._engine.make_sheet_row(plan, should_stop)
        except (AdapterError, BadInputError):
            self._sheet.skip_version(plan.version)
        else:
            self._sheet.mark_done(plan)
        return True
