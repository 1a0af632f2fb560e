"""Background work of the render thread between requests: pairs, the contact sheet, purging. Imports no torch."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.errors import AdapterError, BadInputError, ConflictError
from dmpo_app.rendering.contact_sheet import ContactSheetPlanner
from dmpo_app.rendering.pool import PairPlan, PoolPlanner
from dmpo_app.settings import Settings
from dmpo_app.store import Store

if TYPE_CHECKING:
    from dmpo_app.rendering.engine import Engine

_log = logging.getLogger(__name__)

_PURGE_EVERY = timedelta(hours=1)


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
        self._store = store
        self._base = base
        self._settings = settings
        self._now = now
        self._next_purge = now()
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
        self._purge()
        if self._pool.is_low() and self._make_pair(should_stop):
            return True
        if self._make_sheet_row(should_stop):
            return True
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
        try:
            is_stored = self._engine.make_pair(plan, should_stop)
        except ConflictError as error:  # its prompt was held out of training while the pair was made
            _log.info("a pair was thrown away: %s", error)
            is_stored = False
        if not is_stored:
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

    def _purge(self) -> None:
        """Purge the before/after tab's images that are older than `render.keep_days`, once an hour."""
        if self._now() >= self._next_purge:
            self._next_purge = self._now() + _PURGE_EVERY
            self._store.images.purge_renders(self._base, self._now() - timedelta(days=self._settings.render.keep_days))
