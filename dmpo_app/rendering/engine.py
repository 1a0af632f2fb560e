"""Render engine: keeps the live version loaded, batches over several versions, stores images, encodes imported ones.

Owned by the render thread alone. This module imports torch.

Of imported pairs it makes latents and prompt embeddings: images are enlarged or reduced until they cover the base
model's size and cut around the middle, so a pair of two sizes becomes one of the same.
"""

import io
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Self

import torch
from PIL import Image

from dmpo_app.diffusion.adapter_files import AdapterWeights, read_adapter
from dmpo_app.diffusion.families.registry import get_family
from dmpo_app.diffusion.live_model import LiveModel, Sample, Shot
from dmpo_app.diffusion.loading import Encoder, Pixels, resize_and_crop
from dmpo_app.diffusion.lora import LoraSpec
from dmpo_app.diffusion.tensor_files import dump_conditioning, dump_latents
from dmpo_app.domain.data_import import UnencodedPair
from dmpo_app.domain.lineage import (
    BASE_VERSION,
    BaseModelRef,
    ImageKind,
    ImageRef,
    NewImage,
    Provenance,
    RenderedImage,
    RenderRequest,
)
from dmpo_app.errors import AdapterError, BadInputError, DamagedFileError, NotFoundError, StudioError
from dmpo_app.exchange.readers.reader import UnusableImageError, decode_image
from dmpo_app.rendering.duel_planner import DuelPlan, store_duel
from dmpo_app.rendering.pool import PairPlan, SheetPlan, store_pair
from dmpo_app.settings import Settings
from dmpo_app.store import Store

_log = logging.getLogger(__name__)

MAX_CACHE_BYTES = 256 << 20
_RETRY_SECONDS = 30.0
_PASSED_OVER_SECONDS = 60.0


class AdapterCache:
    """LRU cache of adapter weights, up to 256 MiB; a version is read once; hash, format and values are checked."""

    def __init__(self, store: Store, base: BaseModelRef) -> None:
        self._store = store
        self._base = base
        self._cache: OrderedDict[tuple[int, str], AdapterWeights] = OrderedDict()

    def get(self, version: int) -> AdapterWeights:
        """The tensors of a published version.

        Raises NotFoundError where there is none, AdapterCorruptError for a damaged one.
        """
        adapter = self._store.adapters.get(self._base, version)
        key = (version, adapter.sha256)
        adapter_weights = self._cache.get(key)
        if adapter_weights is None:
            adapter_weights = self._cache[key] = read_adapter(adapter.folder, adapter.sha256)
        self._cache.move_to_end(key)
        while len(self._cache) > 1 and sum(weights.num_bytes for weights in self._cache.values()) > MAX_CACHE_BYTES:
            self._cache.popitem(last=False)
        return adapter_weights


class Engine:
    """The live model with the store behind it.

    `live_version` is what pairs are made with; `problem` says why it is not the store's live one, or is empty.
    """

    def __init__(self, model: LiveModel, store: Store, base: BaseModelRef, *, clock: Callable[[], float]) -> None:
        self._model = model
        self._store = store
        self._base = base
        self._adapter_cache = AdapterCache(store, base)
        self._clock = clock
        self._retry_at: dict[int, float] = {}
        self._imports = ImportEncoder(store, base, model.encoder())
        self.live_version = BASE_VERSION
        self.problem = ""

    @classmethod
    def load(
        cls, store: Store, base: BaseModelRef, settings: Settings, *, clock: Callable[[], float] = time.monotonic
    ) -> Self:
        """Load the base model. Raises SetupError and its kind when that cannot be."""
        spec = LoraSpec.from_settings(settings.round, get_family(base.family))
        return cls(LiveModel.load(base.source, settings.render, spec), store, base, clock=clock)

    @property
    def device(self) -> str:
        return str(self._model.device)

    @property
    def shares_cpu(self) -> bool:
        """True when rendering takes the same processor as training."""
        return self._model.device.type == "cpu"

    def sync_live_version(self) -> None:
        """Load the version the store calls live.

        A bad one changes nothing: the last good one stays, and `problem` says so; it is tried again after half a
        minute, or at once when the store names another.
        """
        target_version = self._store.adapters.live_version(self._base)
        if target_version == self.live_version:
            self.problem = ""
            self._restore_live_version()
            return
        if self._clock() < self._retry_at.get(target_version, 0.0):
            self._restore_live_version()
            return
        try:
            self._load_version(target_version)
        except (AdapterError, BadInputError) as error:
            self._retry_at[target_version] = self._clock() + _RETRY_SECONDS
            self.problem = f"version {target_version} could not be loaded, version {self.live_version} stays: {error}"
            _log.error("%s", self.problem)
            self._restore_live_version()
            return
        _log.info("version %d is live (before: %d)", target_version, self.live_version)
        self.live_version, self.problem = target_version, ""
        self._retry_at.clear()

    def render(self, request: RenderRequest, should_stop: Callable[[], bool]) -> list[RenderedImage]:
        """Make and store a person's images, in the order of the versions asked for."""
        shots = [Shot(request.prompt, request.seed, version, request.strength) for version in request.versions]
        samples = self._render_shots(shots, should_stop, num_steps=request.num_steps, guidance=request.guidance)
        return [
            RenderedImage(
                version=sample.provenance.adapter_version,
                image=self._store.images.add(self._base, image_from_sample(sample), ImageKind.RENDER),
                withheld=sample.flagged,
            )
            for sample in samples
        ]

    def make_pair(self, plan: PairPlan, should_stop: Callable[[], bool]) -> bool:
        """Make and store a pair or set of the live version, with latents and embeddings for training.

        False when it is not kept, see `pool.store_pair`.
        """
        shots = [Shot(plan.prompt, seed, self.live_version) for seed in plan.seeds]
        samples = self._render_shots(shots, should_stop)
        return store_pair(
            self._store,
            self._base,
            [image_from_sample(sample, with_latents=True) for sample in samples],
            dump_conditioning(self._model.conditioning(plan.prompt)),
            flagged=any(sample.flagged for sample in samples),
        )

    def make_duel(self, plan: DuelPlan, should_stop: Callable[[], bool]) -> bool:
        """Make and store a duel: both images in batches of one shape, so that they differ by the version alone.

        False when it is not kept, see `duel_planner.store_duel`.
        """
        shots = [Shot(plan.prompt, plan.seed, version) for version in plan.versions]
        samples = self._render_shots(shots, should_stop)
        image_a, image_b = (image_from_sample(sample) for sample in samples)
        flagged = any(sample.flagged for sample in samples)
        return store_duel(self._store, self._base, image_a, image_b, flagged=flagged)

    def make_sheet_row(
        self, plan: SheetPlan, should_stop: Callable[[], bool], *, kind: ImageKind = ImageKind.CONTACT_SHEET
    ) -> list[ImageRef]:
        """Make and store one row of the contact sheet, or of the images that versions are compared by."""
        shots = [Shot(plan.prompt, seed, plan.version) for seed in plan.seeds]
        samples = self._render_shots(shots, should_stop)
        return [self._store.images.add(self._base, image_from_sample(sample), kind) for sample in samples]

    def expected_provenance(self, shot: Shot, *, batch_size: int) -> Provenance:
        """The provenance of an image of this shot if it was made now, with the default sampling."""
        return self._model.expected_provenance(shot, batch_size)

    def encode_imported(self) -> bool:
        """Make latents of a few pairs without; False when all have some."""
        return self._imports.step()

    def _render_shots(
        self,
        shots: Sequence[Shot],
        should_stop: Callable[[], bool],
        *,
        num_steps: int | None = None,
        guidance: float | None = None,
    ) -> list[Sample]:
        """Render shots of any versions, in order; the live version is loaded again afterwards, whatever happens."""
        try:
            return render_shots(
                self._model, shots, self._load_version, num_steps=num_steps, guidance=guidance, should_stop=should_stop
            )
        except torch.OutOfMemoryError as error:
            raise StudioError(
                f"{self.device} ran out of memory; ask for fewer versions at once or set a smaller "
                "DMPO_RENDER__RESOLUTION"
            ) from error
        finally:
            self._restore_live_version()

    def _load_version(self, version: int) -> None:
        """Load `version` into the model; checks come first, so an error leaves it as it was."""
        if version != self._model.version:
            self._model.swap(version, None if version == BASE_VERSION else self._adapter_cache.get(version))

    def _restore_live_version(self) -> None:
        """Load the live version again; the base model, should its files have gone bad meanwhile."""
        try:
            self._load_version(self.live_version)
        except (AdapterError, BadInputError) as error:
            self.problem = f"version {self.live_version} can no longer be loaded, the base model is shown: {error}"
            _log.error("%s", self.problem)
            self._model.swap(BASE_VERSION, None)
            self.live_version = BASE_VERSION


def render_shots(
    model: LiveModel,
    shots: Sequence[Shot],
    load_version: Callable[[int], None],
    *,
    num_steps: int | None,
    guidance: float | None,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[Sample]:
    """Render shots of any versions, in order; `load_version` loads one into the model.

    Base images share the batch of the first adapted version; every further version is a batch of its own.
    """
    samples_by_index: dict[int, Sample] = {}
    for version, indices in batches_by_version(shots):
        load_version(version)
        batch = [shots[index] for index in indices]
        samples = model.render(batch, num_steps=num_steps, guidance=guidance, should_stop=should_stop)
        samples_by_index.update(zip(indices, samples, strict=True))
    return [samples_by_index[index] for index in range(len(shots))]


def batches_by_version(shots: Sequence[Shot]) -> list[tuple[int, list[int]]]:
    """Group shots into batches: (version to load, positions of the shots made with it)."""
    by_version: dict[int, list[int]] = {}
    for index, shot in enumerate(shots):
        by_version.setdefault(shot.version, []).append(index)
    base = by_version.pop(BASE_VERSION, [])
    groups = list(by_version.items()) or [(BASE_VERSION, [])]
    version, indices = groups[0]
    return [(version, sorted(indices + base)), *groups[1:]]


def encode_png(image: Image.Image) -> bytes:
    """Encode an image as PNG without metadata; the same pixels give the same bytes."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=4)
    return buffer.getvalue()


def image_from_sample(sample: Sample, *, with_latents: bool = False) -> NewImage:
    """Convert a sample to an image for the store; with its latents when it is to be trained on."""
    return NewImage(
        png=encode_png(sample.image),
        width=sample.image.width,
        height=sample.image.height,
        provenance=sample.provenance,
        latents=dump_latents(sample.latents) if with_latents else None,
    )


BATCH_PAIRS = 4
"""A person who asks for an image waits for at most one batch."""


class ImportEncoder:
    """Encoder of the pairs that lack latents, a batch at a time: imported ones, and those that lost theirs to damage.

    A pair whose images cannot be read is passed over, and tried again a minute later.
    """

    def __init__(
        self, store: Store, base: BaseModelRef, encoder: Encoder, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._base = base
        self._encoder = encoder
        self._clock = clock
        self._last_pair_id = 0
        self._starts_over_at = 0.0

    def step(self) -> bool:
        """Encode the next batch; False when there is nothing to encode. Raises StorageFullError."""
        pairs = self._store.imports.list_unencoded(self._base, after=self._last_pair_id, limit=BATCH_PAIRS)
        if not pairs:
            if self._clock() >= self._starts_over_at:
                self._last_pair_id, self._starts_over_at = 0, self._clock() + _PASSED_OVER_SECONDS
            return False
        latents: dict[int, tuple[bytes, ...]] = {}
        images: dict[int, list[Pixels]] = {}
        for pair in pairs:
            if stored_latents := self._stored_latents(pair):
                latents[pair.id] = stored_latents
                continue
            try:
                images[pair.id] = [self._load_image(sha256) for sha256 in pair.pngs]
            except (NotFoundError, UnusableImageError) as error:
                _log.warning("pair %d cannot be encoded: %s", pair.id, error)
                if isinstance(error, DamagedFileError):
                    self._store.damage.record(error)
        latents |= self._encode(images)
        if latents:
            encoded_pairs = [pair for pair in pairs if pair.id in latents]
            self._store.imports.record_encoding(self._base, latents, self._embeds(encoded_pairs))
        self._last_pair_id = pairs[-1].id
        return True

    def _encode(self, images: Mapping[int, Sequence[Pixels]]) -> dict[int, tuple[bytes, ...]]:
        """Encode the images of pairs, by pair id, in one batch."""
        if not images:
            return {}
        rest = iter(self._encoder.latents([one for of_pair in images.values() for one in of_pair]))
        return {pair_id: tuple(dump_latents(next(rest)) for _ in of_pair) for pair_id, of_pair in images.items()}

    def _stored_latents(self, pair: UnencodedPair) -> tuple[bytes, ...] | None:
        """The latents that the pair had, if all of them are whole: its prompt's embeddings were lost, not they."""
        names = [name for name in pair.latents if name is not None]
        if len(names) < len(pair.pngs):
            return None
        try:
            return tuple(self._store.files.read_latents(name) for name in names)
        except DamagedFileError:
            return None

    def _load_image(self, sha256: str) -> Pixels:
        return resize_and_crop(decode_image(self._store.files.read_image(sha256)), self._encoder.size)

    def _has_embeds(self, pair: UnencodedPair) -> bool:
        try:
            return pair.embeds is not None and bool(self._store.files.read_embeds(pair.embeds))
        except DamagedFileError:
            return False

    def _embeds(self, pairs: list[UnencodedPair]) -> dict[str, bytes]:
        prompts = dict.fromkeys(pair.prompt for pair in pairs if not self._has_embeds(pair))
        return {prompt: dump_conditioning(self._encoder.conditioning(prompt)) for prompt in prompts}
