"""Material of the learning benchmark: pairs and yardstick images of the base model, made once and kept.

Shapes:  B images;  H W their height and width.
"""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from dmpo_app.diffusion.base_models import detect_family, fingerprint, resolve_sampling
from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.diffusion.families.registry import get_family
from dmpo_app.diffusion.live_model import LiveModel, Shot
from dmpo_app.diffusion.loading import load_denoiser
from dmpo_app.diffusion.lora import LoraSpec
from dmpo_app.diffusion.tensor_files import dump_conditioning
from dmpo_app.domain.lineage import BASE_VERSION, BaseModelRef, NewPair, PairSource
from dmpo_app.exchange.importing.starter_pairs import read_starter_pairs, write_starter_pairs
from dmpo_app.io.files import sha256_hex
from dmpo_app.rendering.engine import image_from_sample
from dmpo_app.server.wiring import read_prompts
from dmpo_app.settings import Settings
from dmpo_app.store import Store

Images = NDArray[np.uint8]
BATCH = 8
FIRST_SEED = 500_000
"""Seeds of the yardstick; pairs take theirs from below."""


class Lab:
    """One base model with the settings under test. `work` keeps what the base model makes from run to run."""

    def __init__(self, settings: Settings, work: Path) -> None:
        self.settings = settings
        self.source = settings.base_model
        self.fingerprint = fingerprint(self.source)
        self._work = work
        self._spec = LoraSpec.from_settings(settings.round, get_family(detect_family(self.source)))
        self.model = LiveModel.load(self.source, settings.render, self._spec)
        self.denoiser: Denoiser = load_denoiser(self.source, device=settings.render.device, dtype=settings.render.dtype)
        self.train_prompts = read_prompts(settings.pool.train_prompts)
        self.held_out_prompts = read_prompts(settings.pool.held_out_prompts)

    def register(self, store: Store) -> BaseModelRef:
        return store.models.register(self.source, detect_family(self.source), self.fingerprint)

    def base_pairs(self, count: int) -> list[NewPair]:
        """`count` pairs of the base model, the same at every call: training prompts in shuffled passes."""
        path = self._kept("pairs", count, ".zip")
        if not path.exists():
            rng = random.Random(1)
            prompts: list[str] = []
            while len(prompts) < count:
                prompts += rng.sample(self.train_prompts, min(count - len(prompts), len(self.train_prompts)))
            write_starter_pairs(path, self.fingerprint, self.render_pairs(prompts, BASE_VERSION, rng))
        return list(read_starter_pairs(path).pairs)

    def render_pairs(self, prompts: Sequence[str], version: int, rng: random.Random) -> list[NewPair]:
        """One pair a prompt, two random seeds, under the version the model holds."""
        shots = [Shot(prompt, rng.randrange(FIRST_SEED), version) for prompt in prompts for _ in range(2)]
        images = []
        for start in range(0, len(shots), BATCH):
            samples = self.model.render(shots[start : start + BATCH])
            images += [image_from_sample(sample, with_latents=True) for sample in samples]
        return [
            NewPair(
                prompt=prompt,
                image_a=images[2 * i],
                image_b=images[2 * i + 1],
                prompt_embeds=dump_conditioning(self.model.conditioning(prompt)),
                source=PairSource.POOL,
            )
            for i, prompt in enumerate(prompts)
        ]

    def yardstick_prompts(self, count: int) -> list[str]:
        """Held-out prompts in turn; the n-th image of a yardstick is of the n-th prompt here."""
        return [self.held_out_prompts[i % len(self.held_out_prompts)] for i in range(count)]

    def base_yardstick(self, count: int) -> Images:
        """The base model's images for the yardstick, uint8 (count, H, W, 3)."""
        return self.kept_images("yardstick", count, lambda: self.yardstick(count, BASE_VERSION))

    def kept_images(self, what: str, count: int, make: Callable[[], Images]) -> Images:
        """Images of the base model that are made once."""
        path = self._kept(what, count, ".npy")
        if not path.exists():
            np.save(path, make())
        images: Images = np.load(path)
        return images

    def yardstick(self, count: int, version: int) -> Images:
        """The n-th held-out prompt with seed FIRST_SEED + n, under the version the model holds."""
        shots = [Shot(prompt, FIRST_SEED + i, version) for i, prompt in enumerate(self.yardstick_prompts(count))]
        images = [
            np.asarray(sample.image.convert("RGB"))
            for start in range(0, len(shots), BATCH)
            for sample in self.model.render(shots[start : start + BATCH])
        ]
        return np.stack(images)

    def _kept(self, what: str, count: int, suffix: str) -> Path:
        """Another model, other render settings, other prompts or another number of threads: another file."""
        facts: list[object] = [self.fingerprint, self.settings.render.model_dump(mode="json"), self.train_prompts]
        facts.append(asdict(resolve_sampling(self.source, self.settings.render)))
        facts += [self.held_out_prompts, torch.get_num_threads(), BATCH]
        key = sha256_hex(json.dumps(facts).encode())[:12]
        self._work.mkdir(parents=True, exist_ok=True)
        return self._work / f"{what}-{count}-{key}{suffix}"


def pixels(png: bytes) -> Images:
    """A PNG file as uint8 (H, W, 3)."""
    with Image.open(BytesIO(png)) as image:
        return np.asarray(image.convert("RGB"))
