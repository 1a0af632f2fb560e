"""Pictures in borrowed GPU time: a person's own, pairs for everybody to judge, rows of the contact sheet."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from dmpo_app.diffusion.live_model import Shot
from dmpo_app.domain.image import ImageKind, NewPair, PairSource
from dmpo_app.domain.lineage import BASE_VERSION, BaseModelRef
from dmpo_app.domain.render_request import RenderedImage, RendererState, RenderRequest
from dmpo_app.errors import Conflict, NotReady
from dmpo_app.hosting.zerogpu.gpu_calls import BorrowedGpu
from dmpo_app.hosting.zerogpu.render_job import Rendered, RenderJob
from dmpo_app.rendering.contact_sheet import ContactSheetPlanner
from dmpo_app.rendering.pool import PoolPlanner
from dmpo_app.rendering.render_thread import check_request
from dmpo_app.settings import Settings
from dmpo_app.store import Store

MOST_PAIRS = 24
"""Of one lent minute; the pool is looked at anew before the next."""
MOST_ROWS = 8
REQUEST_SECONDS = 15.0
_PURGE_EVERY = timedelta(hours=1)
_NOT_HERE = (
    "On ZeroGPU pictures are made in the GPU time of the person who asks; press Render on the page. This API has "
    "nobody to ask for it."
)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Filling:
    """What a lent minute makes: shots to render, and what they are for."""

    groups: tuple[tuple[Shot, ...], ...]
    for_training: bool


class LentPictures:
    """Implements `domain.Renderer`, but only for people: `render` has to be called in the event of one."""

    def __init__(
        self,
        store: Store,
        base: BaseModelRef,
        settings: Settings,
        gpu: BorrowedGpu,
        *,
        rng: random.Random,
        now: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._base = base
        self._gpu = gpu
        self._now = now
        self._keep = timedelta(days=settings.render.keep_days)
        self._next_purge = now()
        # The processor of the server does not render, so the pool need not rest while a round trains.
        self._pool = PoolPlanner(
            store, base, settings.pool, rng=rng, shares_cpu=False, num_images=settings.labeling.num_images
        )

    @property
    def state(self) -> RendererState:
        live = self._store.adapters.live_version(self._base)
        return RendererState("ready", "", live_version=live, device="zerogpu")

    def submit(self, request: RenderRequest) -> Future[list[RenderedImage]]:
        """Raises BadInput for values out of range, else NotReady: who asks here lends no GPU."""
        check_request(request)
        raise NotReady(_NOT_HERE)

    def render(self, request: RenderRequest) -> list[RenderedImage]:
        """Make and store a person's images, in the order of the versions asked for.

        Raises BadInput and NotFound for what cannot be, AdapterProblem, GpuRefused, GpuAborted, StorageFull.
        """
        check_request(request)
        self._purge()
        shots = tuple(Shot(request.prompt, request.seed, version, request.strength) for version in request.versions)
        job = RenderJob(
            groups=(shots,),
            adapters=self._adapters(*request.versions),
            seconds=REQUEST_SECONDS,
            num_steps=request.num_steps,
            guidance=request.guidance,
        )
        images: list[RenderedImage] = []
        for made in self._rendered(job):
            for image in made.images:
                ref = self._store.images.add(self._base, image, ImageKind.RENDER)
                images.append(RenderedImage(version=image.provenance.adapter_version, image=ref))
        return images

    @property
    def is_low(self) -> bool:
        """Whether so few pairs are left that a person might soon find none."""
        return self._pool.is_low()

    def fill(self, seconds: float) -> Iterator[int]:
        """Pairs, or rows of the contact sheet, until the time is over; how many pictures are stored so far.

        Nothing comes when the pool is full and the sheet complete. Raises like `render`.
        """
        filling = self._wanted()
        if filling is None:
            return
        versions = {shot.version for group in filling.groups for shot in group}
        job = RenderJob(filling.groups, self._adapters(*versions), seconds, for_training=filling.for_training)
        count = 0
        for made in self._rendered(job):
            count += self._keep_pair(made) if filling.for_training else self._keep_row(made)
            yield count

    def _rendered(self, job: RenderJob) -> Iterator[Rendered]:
        with closing(self._gpu.run(job)) as events:
            yield from (event for event in events if isinstance(event, Rendered))

    def _wanted(self) -> _Filling | None:
        """A pool that has run dry comes before the contact sheet, the rest of the pool after it."""
        pairs = self._pairs()
        rows = () if pairs and self._pool.is_low() else self._rows()
        groups = rows or pairs
        return _Filling(groups, for_training=not rows) if groups else None

    def _pairs(self) -> tuple[tuple[Shot, ...], ...]:
        live = self._store.adapters.live_version(self._base)
        plans = self._pool.plans(live, MOST_PAIRS)
        return tuple(tuple(Shot(plan.prompt, seed, live) for seed in plan.seeds) for plan in plans)

    def _rows(self) -> tuple[tuple[Shot, ...], ...]:
        sheet, live = ContactSheetPlanner(self._store, self._base), self._store.adapters.live_version(self._base)
        rows: list[tuple[Shot, ...]] = []
        while len(rows) < MOST_ROWS and (plan := sheet.next(live)) is not None:
            rows.append(tuple(Shot(plan.prompt, seed, plan.version) for seed in plan.seeds))
            sheet.done(plan)
        return tuple(rows)

    def _keep_pair(self, made: Rendered) -> int:
        """A pair that the safety checker flagged, or whose prompt is held out by now, is thrown away."""
        first, second, *more = made.images
        if any(made.flagged) or made.prompt_embeds is None:
            _log.info("a pair was dropped: the model's safety checker flagged it")
            return 0
        prompt = first.provenance.prompt
        try:
            self._store.pairs.add(
                self._base, NewPair(prompt, first, second, made.prompt_embeds, PairSource.POOL, tuple(more))
            )
        except Conflict as error:
            _log.info("a pair was thrown away: %s", error)
            return 0
        return len(made.images)

    def _keep_row(self, made: Rendered) -> int:
        for image in made.images:
            self._store.images.add(self._base, image, ImageKind.CONTACT_SHEET)
        return len(made.images)

    def _purge(self) -> None:
        """Once an hour, people's own pictures that are older than `render.keep_days`."""
        if self._now() >= self._next_purge:
            self._next_purge = self._now() + _PURGE_EVERY
            self._store.images.purge_renders(self._base, self._now() - self._keep)

    def _adapters(self, *versions: int) -> dict[int, tuple[Path, str]]:
        """Folder and hash of every version but the base model. Raises NotFound."""
        wanted = set(versions) - {BASE_VERSION}
        found = [self._store.adapters.get(self._base, version) for version in sorted(wanted)]
        return {adapter.version: (adapter.folder, adapter.sha256) for adapter in found}
