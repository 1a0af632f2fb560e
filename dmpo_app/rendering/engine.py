"""The live model at work for the studio: which version is live, batches over several versions, images for the store.

Owned by the render thread alone. This module imports torch.
"""

from __future__ import annotations

import io
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from PIL import Image

from dmpo_app.diffusion.adapter_files import AdapterWeights, read_adapter
from dmpo_app.diffusion.families.registry import family_named
from dmpo_app.diffusion.live_model import LiveModel, Sample, Shot
from dmpo_app.diffusion.lora import LoraSpec
from dmpo_app.diffusion.tensor_files import dump_conditioning, dump_latents
from dmpo_app.domain.image import ImageKind, NewImage, NewPair, PairSource
from dmpo_app.domain.lineage import BASE_VERSION, BaseModelRef
from dmpo_app.domain.render_request import RenderedImage, RenderRequest
from dmpo_app.errors import AdapterProblem, BadInput, StudioError
from dmpo_app.rendering.contact_sheet import SheetPlan
from dmpo_app.rendering.import_encoding import ImportEncoder
from dmpo_app.rendering.pool import PairPlan
from dmpo_app.settings import Settings
from dmpo_app.store import Store

MAX_BYTES = 256 << 20


class AdapterLibrary:
    """Reads each version once, hash, format and values checked; keeps the last used ones up to 256 MiB."""

    def __init__(self, store: Store, base: BaseModelRef) -> None:
        self._store = store
        self._base = base
        self._kept: OrderedDict[tuple[int, str], AdapterWeights] = OrderedDict()

    def weights(self, version: int) -> AdapterWeights:
        """The tensors of a published version. Raises NotFound where there is none, AdapterCorrupt for a damaged one."""
        adapter = self._store.adapters.get(self._base, version)
        key = (version, adapter.sha256)
        found = self._kept.get(key)
        if found is None:
            found = self._kept[key] = read_adapter(adapter.folder, adapter.sha256)
        self._kept.move_to_end(key)
        while len(self._kept) > 1 and sum(weights.num_bytes for weights in self._kept.values()) > MAX_BYTES:
            self._kept.popitem(last=False)
        return found


def encode_png(image: Image.Image) -> bytes:
    """The PNG file of an image, without metadata; the same pixels give the same bytes."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=4)
    return buffer.getvalue()


def new_image(sample: Sample, *, with_latents: bool = False) -> NewImage:
    """An image about to be stored; with its latents when it is to be trained on."""
    return NewImage(
        png=encode_png(sample.image),
        width=sample.image.width,
        height=sample.image.height,
        provenance=sample.provenance,
        latents=dump_latents(sample.latents) if with_latents else None,
    )


_RETRY_SECONDS = 30.0
_log = logging.getLogger(__name__)


class Engine:
    """`live_version` is what pairs are made with; `problem` says why it is not the store's live one, or is empty."""

    def __init__(self, model: LiveModel, store: Store, base: BaseModelRef, *, clock: Callable[[], float]) -> None:
        self._model = model
        self._store = store
        self._base = base
        self._library = AdapterLibrary(store, base)
        self._clock = clock
        self._retry_at: dict[int, float] = {}
        self._imports = ImportEncoder(store, base, model.encoder())
        self.live_version = BASE_VERSION
        self.problem = ""

    @classmethod
    def load(
        cls, store: Store, base: BaseModelRef, settings: Settings, *, clock: Callable[[], float] = time.monotonic
    ) -> Engine:
        """Load the base model. Raises SetupProblem and its kind when that cannot be."""
        spec = LoraSpec.of(settings.round, family_named(base.family))
        return cls(LiveModel.load(base.source, settings.render, spec), store, base, clock=clock)

    @property
    def device(self) -> str:
        return str(self._model.device)

    @property
    def shares_cpu(self) -> bool:
        """Whether rendering takes the same processor as training."""
        return self._model.device.type == "cpu"

    def follow_live(self) -> None:
        """Hold the version the store calls live. A bad one changes nothing: the last good one stays, and `problem`
        says so; it is tried again after half a minute, or at once when the store names another."""
        wanted = self._store.adapters.live_version(self._base)
        if wanted == self.live_version:
            self.problem = ""
            self._restore()
            return
        if self._clock() < self._retry_at.get(wanted, 0.0):
            self._restore()
            return
        try:
            self._hold(wanted)
        except (AdapterProblem, BadInput) as error:
            self._retry_at[wanted] = self._clock() + _RETRY_SECONDS
            self.problem = f"version {wanted} could not be loaded, version {self.live_version} stays: {error}"
            _log.error("%s", self.problem)
            self._restore()
            return
        _log.info("version %d is live (before: %d)", wanted, self.live_version)
        self.live_version, self.problem = wanted, ""
        self._retry_at.clear()

    def render(self, request: RenderRequest, should_stop: Callable[[], bool]) -> list[RenderedImage]:
        """Make and store a person's images, in the order of the versions asked for."""
        shots = [Shot(request.prompt, request.seed, version, request.strength) for version in request.versions]
        samples = self._make(shots, should_stop, num_steps=request.num_steps, guidance=request.guidance)
        return [
            RenderedImage(
                version=sample.provenance.adapter_version,
                image=self._store.images.add(self._base, new_image(sample), ImageKind.RENDER),
                withheld=sample.flagged,
            )
            for sample in samples
        ]

    def make_pair(self, plan: PairPlan, should_stop: Callable[[], bool]) -> bool:
        """Make and store a pair or set of the live version, with latents and embeddings for training.

        False when the model's safety checker blacked out one of its images: such a pair says nothing and is not kept.
        """
        shots = [Shot(plan.prompt, seed, self.live_version) for seed in plan.seeds]
        samples = self._make(shots, should_stop)
        if any(sample.flagged for sample in samples):
            _log.info("a pair was dropped: the model's safety checker flagged it")
            return False
        image_a, image_b, *more = (new_image(sample, with_latents=True) for sample in samples)
        pair = NewPair(
            prompt=plan.prompt,
            image_a=image_a,
            image_b=image_b,
            prompt_embeds=dump_conditioning(self._model.conditioning(plan.prompt)),
            source=PairSource.POOL,
            more=tuple(more),
        )
        self._store.pairs.add(self._base, pair)
        return True

    def make_sheet_row(self, plan: SheetPlan, should_stop: Callable[[], bool]) -> None:
        """Make and store one row of the contact sheet."""
        shots = [Shot(plan.prompt, seed, plan.version) for seed in plan.seeds]
        for sample in self._make(shots, should_stop):
            self._store.images.add(self._base, new_image(sample), ImageKind.CONTACT_SHEET)

    def encode_imported(self) -> bool:
        """Make latents of a few imported pairs; False when all have some."""
        return self._imports.step()

    def _make(
        self,
        shots: Sequence[Shot],
        should_stop: Callable[[], bool],
        *,
        num_steps: int | None = None,
        guidance: float | None = None,
    ) -> list[Sample]:
        """Make shots of any versions, in order. Base images share the batch of the first adapted version; every further
        version is a batch of its own. The live version is back afterwards, whatever happens."""
        made: dict[int, Sample] = {}
        try:
            for version, indices in batches_by_version(shots):
                self._hold(version)
                batch = [shots[index] for index in indices]
                samples = self._model.render(batch, num_steps=num_steps, guidance=guidance, should_stop=should_stop)
                made.update(zip(indices, samples, strict=True))
        except torch.OutOfMemoryError as error:
            raise StudioError(
                f"{self.device} ran out of memory; ask for fewer versions at once or set a smaller "
                "DMPO_RENDER__RESOLUTION"
            ) from error
        finally:
            self._restore()
        return [made[index] for index in range(len(shots))]

    def _hold(self, version: int) -> None:
        """Make the model hold `version`; checks come first, so an error leaves it as it was."""
        if version != self._model.version:
            self._model.swap(version, None if version == BASE_VERSION else self._library.weights(version))

    def _restore(self) -> None:
        """The live version again. Should its own files have gone bad meanwhile, the model shows the base."""
        try:
            self._hold(self.live_version)
        except (AdapterProblem, BadInput) as error:
            self.problem = f"version {self.live_version} can no longer be loaded, the base model is shown: {error}"
            _log.error("%s", self.problem)
            self._model.swap(BASE_VERSION, None)
            self.live_version = BASE_VERSION


def batches_by_version(shots: Sequence[Shot]) -> list[tuple[int, list[int]]]:
    """(version to hold, positions of the shots made with it)."""
    by_version: dict[int, list[int]] = {}
    for index, shot in enumerate(shots):
        by_version.setdefault(shot.version, []).append(index)
    base = by_version.pop(BASE_VERSION, [])
    groups = list(by_version.items()) or [(BASE_VERSION, [])]
    version, indices = groups[0]
    return [(version, sorted(indices + base)), *groups[1:]]
