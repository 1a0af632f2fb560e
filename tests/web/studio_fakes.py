"""Stand-ins for the render thread and the trainer, so that the page and the API can be tested without a model."""

import io
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dmpo_app.domain.judging import Verdict
from dmpo_app.domain.lineage import (
    BaseModelRef,
    ImageKind,
    NewAdapter,
    NewImage,
    NewPair,
    PairSource,
    Provenance,
    RenderedImage,
    RendererState,
    RenderRequest,
    RoundProgress,
    Sampling,
    TrainerState,
    Trigger,
)
from dmpo_app.domain.verdict import GateVerdict
from dmpo_app.errors import BusyError, NotReadyError
from dmpo_app.pocket.scenes import COLOURS, SETTINGS, SUBJECTS, SceneConstraints, sample_scene
from dmpo_app.store import Store
from examples.pocket_model.render import render

SAMPLING = Sampling(num_steps=20, guidance=3.0)


def png_of(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def provenance(prompt: str, seed: int, version: int, *, strength: float = 1.0) -> Provenance:
    return Provenance(
        prompt=prompt, seed=seed, sampler="ddim", num_steps=20, guidance=3.0, adapter_version=version,
        strength=strength, batch_size=2, num_threads=1, device="cpu", dtype="float32",
    )  # fmt: skip


def scene_image(prompt: str, seed: int, version: int, *, size: int = 128, latents: bool = False) -> NewImage:
    """A little scene; later versions are warmer, so that they can be told apart."""
    generator = np.random.default_rng(seed)
    words = prompt.split()
    wish = SceneConstraints(
        subject=next((word for word in words if word in SUBJECTS), None),
        colour=next((word for word in words if word in COLOURS), None),
        setting=next((word for word in words if word in SETTINGS), None),
    )
    warmth = np.array([1 + 0.12 * version, 1, 1 - 0.12 * version])
    pixels = np.clip(render(sample_scene(generator, wish), size=size) * warmth, 0, 255).astype(np.uint8)
    return NewImage(png_of(pixels), size, size, provenance(prompt, seed, version), b"latents" if latents else None)


def add_pairs(store: Store, base: BaseModelRef, count: int, *, size: int = 128, version: int = 0) -> None:
    """Pairs of little scenes with prompts that name a subject, a colour and a setting."""
    pairs = []
    for i in range(count):
        place = f"{'on a' if SETTINGS[i % 6] == 'beach' else 'in the'} {SETTINGS[i % 6]}"
        prompt = f"a {COLOURS[i % 8]} {SUBJECTS[(3 * i) % 10]} {place}"
        a, b = (scene_image(prompt, 2 * i + side, version, size=size, latents=True) for side in (0, 1))
        pairs.append(NewPair(prompt, a, b, b"embeds", PairSource.STARTER))
    store.pairs.add_many(base, pairs)


class FakeRenderer:
    """A renderer that draws scenes.

    `hold` keeps requests waiting; `full` and `failed` refuse them; `waiting` is how many it says do; images of
    `withheld` versions count as flagged.
    """

    def __init__(self, store: Store, base: BaseModelRef, *, size: int = 128) -> None:
        self._store, self._base, self._size = store, base, size
        self._pool = ThreadPoolExecutor(1)
        self.hold = threading.Event()
        self.hold.set()
        self.full = False
        self.waiting = 0
        self.failed = ""
        self.error: Exception | None = None
        self.withheld: set[int] = set()
        self.requests: list[RenderRequest] = []

    @property
    def state(self) -> RendererState:
        if self.failed:
            return RendererState("failed", self.failed)
        live = self._store.adapters.live_version(self._base)
        return RendererState("ready", "", live_version=live, pending=self.waiting, device="cpu")

    def submit(self, request: RenderRequest) -> Future[list[RenderedImage]]:
        if self.failed:
            raise NotReadyError(self.failed)
        if self.full:
            raise BusyError("32 people are waiting for an image already; try again in a moment")
        self.requests.append(request)
        return self._pool.submit(self._draw, request)

    def close(self) -> None:
        self.hold.set()
        self._pool.shutdown()

    def _draw(self, request: RenderRequest) -> list[RenderedImage]:
        self.hold.wait()
        if self.error is not None:
            raise self.error
        made = []
        for version in request.versions:
            image = scene_image(request.prompt, request.seed, version, size=self._size)
            stored = self._store.images.add(self._base, image, ImageKind.RENDER)
            made.append(RenderedImage(version, stored, withheld=version in self.withheld))
        return made


class FakeTrainer:
    """A trainer that is there and does nothing by itself."""

    @property
    def state(self) -> TrainerState:
        return TrainerState(running=True, pid=1, restarts=0)


VERDICT = GateVerdict(
    outcome=Verdict.BETTER, live_version=0, num_votes=96, num_prompts=60, agreement=71 / 96, live_agreement=0.5,
    difference=0.2, standard_error=0.05, low=0.12, high=0.28, wrong_share=0.2,
)  # fmt: skip
"""The gate's verdict on a published version."""


class Rounds:
    """Drives rounds by hand through the store, as the trainer would."""

    def __init__(self, store: Store, base: BaseModelRef) -> None:
        self._store, self._base = store, base
        token = store.lease.acquire(base, "test", lease_seconds=3600)
        assert token is not None
        self.token = token

    def start(self, *, steps: int = 80) -> int:
        votes = [(vote.vote_id, False) for vote in self._store.votes.training_votes(self._base)]
        state = self._store.rounds.start(
            self._base, None, trigger=Trigger.VOTES, seed=1, steps=steps, config={}, votes=votes,
            parent_version=self._store.adapters.live_version(self._base), token=self.token,
        )  # fmt: skip
        return state.id

    def step(self, round_id: int, step: int, *, steps: int = 80, health: Mapping[str, float] | None = None) -> None:
        share, loss = step / steps, 0.69 - 0.4 * step / steps
        self._store.rounds.record(
            round_id,
            RoundProgress(step, loss, 1.4 * share, 0.5 + 0.4 * share, 12 * (1 - share), health=health or {}),
            token=self.token,
        )

    def publish(self, round_id: int, *, proven: bool = True, reason: str | None = None) -> int:
        version = self._store.adapters.next_version(self._base)
        folder = Path(self._store.adapters.root(self._base)) / f"{version:05d}-test"
        folder.mkdir()
        (folder / "pytorch_lora_weights.safetensors").write_bytes(b"weights of version %d" % version)
        votes: Sequence[int] = [vote_id for vote_id, _ in self._store.rounds.votes(round_id)]
        adapter = NewAdapter(
            parent=self._store.adapters.live_version(self._base), folder_name=folder.name, sha256="0" * 64,
            proven=proven, metrics={"held_out_accuracy": 0.81, "margin": 1.4, **VERDICT.to_metrics()}, vote_ids=votes,
        )  # fmt: skip
        return self._store.rounds.publish(round_id, adapter, token=self.token, reason=reason).version
