"""Rendering in people's GPU minutes: a person's own images, pairs and duels to vote on, rows of the contact sheet."""

import random
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from dmpo_app.diffusion.live_model import Shot
from dmpo_app.domain import lineage
from dmpo_app.errors import NotReadyError, StudioError
from dmpo_app.hosting.zerogpu.gpu_calls import GpuJobRunner
from dmpo_app.hosting.zerogpu.render_job import RenderJob, RenderResult
from dmpo_app.rendering.duel_planner import DuelPlan, DuelPlanner, store_duel
from dmpo_app.rendering.pool import ContactSheetPlanner, PoolPlanner, store_pair
from dmpo_app.rendering.render_thread import DamageRecheck, RenderPurge, most_urgent
from dmpo_app.settings import Settings
from dmpo_app.store import Store

MAX_PAIRS_PER_MINUTE = 24
"""Pairs of one GPU minute; the pool is checked again before the next."""
MAX_ROWS_PER_MINUTE = 8
REQUEST_SECONDS = 15.0
_NOT_HERE = (
    "On ZeroGPU images are made in the GPU time of the person who asks; press Render on the page. This API has "
    "nobody to ask for it."
)


@dataclass(frozen=True, slots=True)
class _FillPlan:
    """Plan of a GPU minute for everybody: the shots to render, and what they become."""

    groups: tuple[tuple[Shot, ...], ...]
    kind: Literal["pairs", "rows", "duels"]


class ZeroGpuRenderer:
    """Renderer on ZeroGPU. Implements `Renderer`, but `render` has to be called in the event of a person."""

    def __init__(
        self,
        store: Store,
        base: lineage.BaseModelRef,
        settings: Settings,
        gpu: GpuJobRunner,
        *,
        rng: random.Random,
        now: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._base = base
        self._gpu = gpu
        self._purge = RenderPurge(store, base, settings, now)
        self._recheck = DamageRecheck(store, now)
        # The processor of the server does not render, so the pool need not rest while a round trains.
        self._pool = PoolPlanner(
            store, base, settings.pool, rng=rng, shares_cpu=False, num_images=settings.labeling.num_images
        )
        self._duels = DuelPlanner(store, base, settings.judging, rng=rng)

    @property
    def state(self) -> lineage.RendererState:
        live = self._store.adapters.live_version(self._base)
        return lineage.RendererState("ready", "", live_version=live, device="zerogpu")

    def submit(self, request: lineage.RenderRequest) -> Future[list[lineage.RenderedImage]]:
        """Refuse a request of the API, which has no GPU minutes.

        Raises BadInputError for values out of range, else NotReadyError.
        """
        lineage.check_request(request)
        raise NotReadyError(_NOT_HERE)

    def render(self, request: lineage.RenderRequest) -> list[lineage.RenderedImage]:
        """Make and store a person's images, in the order of the versions asked for.

        Raises BadInputError and NotFoundError for what cannot be, AdapterError, GpuRefusedError, GpuAbortedError,
        StorageFullError.
        """
        lineage.check_request(request)
        self._purge.run_if_due()
        shots = tuple(Shot(request.prompt, request.seed, version, request.strength) for version in request.versions)
        job = RenderJob(
            groups=(shots,),
            adapters=self._adapters(*request.versions),
            seconds=REQUEST_SECONDS,
            num_steps=request.num_steps,
            guidance=request.guidance,
        )
        images: list[lineage.RenderedImage] = []
        for rendered in self._render_events(job):
            for image in rendered.images:
                ref = self._store.images.add(self._base, image, lineage.ImageKind.RENDER)
                images.append(lineage.RenderedImage(version=image.provenance.adapter_version, image=ref))
        return images

    @property
    def is_low(self) -> bool:
        """True when so few pairs are left that a person might soon find none."""
        return self._pool.is_low()

    def fill(self, seconds: float) -> Iterator[int]:
        """Render pairs, rows of the contact sheet or duels until the time is over; yield the number of stored images.

        Nothing comes when the pool is full, the sheet complete and enough duels are ready. Raises like `render`.
        """
        self._recheck.run_if_due()
        fill_plan = self._plan_fill()
        if fill_plan is None:
            return
        versions = {shot.version for group in fill_plan.groups for shot in group}
        job = RenderJob(fill_plan.groups, self._adapters(*versions), seconds, for_training=fill_plan.kind == "pairs")
        store_images = {"pairs": self._store_pair, "rows": self._store_row, "duels": self._store_duel}[fill_plan.kind]
        count = 0
        for rendered in self._render_events(job):
            count += store_images(rendered)
            yield count

    def _render_events(self, job: RenderJob) -> Iterator[RenderResult]:
        with closing(self._gpu.run(job)) as events:
            yield from (event for event in events if isinstance(event, RenderResult))

    def _plan_fill(self) -> _FillPlan | None:
        """Plan the minute: pairs, rows of the contact sheet or duels, whichever is more urgent."""
        return most_urgent(
            pool_is_low=self._pool.is_low(),
            pairs=self._plan_pairs,
            sheet=self._plan_rows,
            rest=lambda: self._plan_duels() or self._plan_pairs(),
        )

    def _plan_pairs(self) -> _FillPlan | None:
        live = self._store.adapters.live_version(self._base)
        plans = self._pool.next_pairs(live, MAX_PAIRS_PER_MINUTE)
        groups = tuple(tuple(Shot(plan.prompt, seed, live) for seed in plan.seeds) for plan in plans)
        return _FillPlan(groups, "pairs") if groups else None

    def _plan_duels(self) -> _FillPlan | None:
        plans = self._duels.next_duels(MAX_PAIRS_PER_MINUTE)
        groups = tuple(tuple(Shot(plan.prompt, plan.seed, version) for version in plan.versions) for plan in plans)
        return _FillPlan(groups, "duels") if groups else None

    def _plan_rows(self) -> _FillPlan | None:
        sheet, live = ContactSheetPlanner(self._store, self._base), self._store.adapters.live_version(self._base)
        rows: list[tuple[Shot, ...]] = []
        while len(rows) < MAX_ROWS_PER_MINUTE and (plan := sheet.next_row(live)) is not None:
            rows.append(tuple(Shot(plan.prompt, seed, plan.version) for seed in plan.seeds))
            sheet.mark_done(plan)
        return _FillPlan(tuple(rows), "rows") if rows else None

    def _store_pair(self, rendered: RenderResult) -> int:
        if rendered.prompt_embeds is None:
            raise StudioError("the GPU process made a pair without its encoded prompt")
        flagged = any(rendered.flagged)
        is_stored = store_pair(self._store, self._base, rendered.images, rendered.prompt_embeds, flagged=flagged)
        return len(rendered.images) if is_stored else 0

    def _store_duel(self, rendered: RenderResult) -> int:
        image_a, image_b = rendered.images
        is_stored = store_duel(self._store, self._base, image_a, image_b, flagged=any(rendered.flagged))
        if not is_stored:
            made_a, made_b = image_a.provenance, image_b.provenance
            versions = made_a.adapter_version, made_b.adapter_version
            self._duels.record_refusal(DuelPlan(made_a.prompt, made_a.seed, versions))
        return len(rendered.images) if is_stored else 0

    def _store_row(self, rendered: RenderResult) -> int:
        for image in rendered.images:
            self._store.images.add(self._base, image, lineage.ImageKind.CONTACT_SHEET)
        return len(rendered.images)

    def _adapters(self, *versions: int) -> dict[int, tuple[Path, str]]:
        """Folder and hash of every version but the base model. Raises NotFoundError."""
        adapter_versions = set(versions) - {lineage.BASE_VERSION}
        adapters = [self._store.adapters.get(self._base, version) for version in sorted(adapter_versions)]
        return {adapter.version: (adapter.folder, adapter.sha256) for adapter in adapters}
