"""A small real studio for the training tests: a home with a store, a tiny base model, pairs and votes."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from dmpo_app.diffusion.base_models import detect_family, fingerprint
from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.diffusion.tensor_files import dump_conditioning, dump_latents
from dmpo_app.domain.lineage import BaseModelRef, NewImage, NewPair, PairSource, Provenance, Trigger
from dmpo_app.domain.vote import AssignmentRules, Choice
from dmpo_app.settings import RoundSettings
from dmpo_app.store import Store
from dmpo_app.training.loop import trainer
from dmpo_app.training.loop.step import train_step
from dmpo_app.training.monitoring.early_stopping import StepResult
from dmpo_app.training.rounds.round_plan import start_round
from dmpo_app.training.rounds.round_runner import RoundRunner, SliceOutcome
from tests.store.store_data import copy_empty_home
from tests.tiny_pipeline import IMAGE_SIZE, LATENT_SHAPE, MAX_TOKENS

EMBED_WIDTH = 16
FAST = RoundSettings(
    num_steps=6, batch_pairs=4, evaluate_every=2, rank=2, slots_per_pair=8, beta=500.0, health_images=0
)


@dataclass
class TrainingStudio:
    """`votes` are cast on fresh pairs; image a is the one with the larger mean in its first latent channel."""

    home: Path
    source: Path
    store: Store
    base: BaseModelRef
    latent_shape: tuple[int, int, int] = LATENT_SHAPE
    conditioning: Mapping[str, tuple[int, ...]] = field(
        default_factory=lambda: {"prompt_embeds": (MAX_TOKENS, EMBED_WIDTH)}
    )
    num_pairs: int = field(default=0)

    @classmethod
    def open(cls, home: Path, source: Path) -> TrainingStudio:
        store = Store.open(copy_empty_home(home))
        base = store.models.register(str(source), detect_family(str(source)), fingerprint(str(source)))
        return cls(home, source, store, base)

    def add_pairs(self, count: int, *, num_prompts: int | None = None, version: int = 0) -> None:
        """Pairs of random latents; image a is shifted up in the first channel, so that there is something to learn."""
        pairs = []
        for number in range(self.num_pairs, self.num_pairs + count):
            generator = torch.Generator().manual_seed(number)
            prompt = f"prompt {number % (num_prompts or 10**9)}"
            own = torch.Generator().manual_seed(hash_of(prompt))
            embeds = {name: torch.randn(shape, generator=own) for name, shape in self.conditioning.items()}
            latents = [torch.randn(self.latent_shape, generator=generator) for _ in range(2)]
            latents[0][0] += 1
            images = [_image(prompt, 2 * number + side, latents[side], version) for side in range(2)]
            pairs.append(NewPair(prompt, images[0], images[1], dump_conditioning(embeds), PairSource.POOL))
        self.store.pairs.add_many(self.base, pairs)
        self.num_pairs += count

    def add_sets(self, count: int, size: int) -> None:
        """Sets of three or four random latents, the first channel of each image shifted further up than the next's."""
        sets = []
        for number in range(self.num_pairs, self.num_pairs + count):
            generator = torch.Generator().manual_seed(1000 + number)
            prompt = f"prompt {number}"
            own = torch.Generator().manual_seed(hash_of(prompt))
            embeds = {name: torch.randn(shape, generator=own) for name, shape in self.conditioning.items()}
            images = []
            for place in range(size):
                latents = torch.randn(self.latent_shape, generator=generator)
                latents[0] += size - 1 - place
                images.append(_image(prompt, 1000 + 4 * number + place, latents, 0))
            a, b, *more = images
            sets.append(NewPair(prompt, a, b, dump_conditioning(embeds), PairSource.POOL, tuple(more)))
        self.store.pairs.add_many(self.base, sets)
        self.num_pairs += count

    def rank(self, count: int, size: int, ranking: str = "abcd", *, handle: str = "tester") -> None:
        """Somebody ranks `count` fresh sets, images by letter and best first."""
        annotator = self.store.annotators.ensure(handle)
        issued = self.store.assignments.issue(
            self.base,
            annotator.id,
            count,
            rng=random.Random(0),
            lifetime=timedelta(hours=1),
            rules=AssignmentRules(num_images=size),
        ).result()
        if len(issued) < count:
            raise AssertionError(f"only {len(issued)} of {count} sets were left to rank")
        for shown in issued:
            made = self.store.pairs.get(shown.pair_id)
            images = [image.id for image in (made.image_a, made.image_b, *made.more)]
            places = [shown.left_image_id, shown.right_image_id, *shown.more_image_ids]
            order = [places.index(images["abcd".index(letter)]) for letter in ranking[:size]]
            self.store.votes.record_ranking(shown.id, annotator.id, order, 500)

    def vote(self, count: int, choose: Callable[[bool], Choice] | None = None) -> list[int]:
        """One annotator votes on `count` fresh pairs, for image a unless `choose(a_on_left)` says otherwise."""
        choose = choose or (lambda a_on_left: Choice.LEFT if a_on_left else Choice.RIGHT)
        annotator = self.store.annotators.ensure("tester")
        taken: list[int] = []
        rng = random.Random(0)
        while len(taken) < count:
            issued = self.store.assignments.issue(
                self.base, annotator.id, min(10, count - len(taken)), rng=rng, lifetime=timedelta(hours=1)
            ).result()
            if not issued:
                raise AssertionError(f"only {len(taken)} of {count} pairs were left to vote on")
            for assignment in issued:
                choice = choose(assignment.a_on_left)
                taken.append(self.store.votes.record(assignment.id, annotator.id, choice, 500).vote_id)
        return taken

    def start(self, *, settings: RoundSettings = FAST, token: int | None = None) -> tuple[int, int]:
        """A started round and the token that may write to it: (round id, token)."""
        token = token or self.store.lease.acquire(self.base, "tests", lease_seconds=60)
        assert token is not None
        current = self.store.rounds.current(self.base) or self.store.rounds.request(self.base, Trigger.REQUEST)
        state = start_round(
            self.store,
            self.base,
            current.id,
            trigger=Trigger.REQUEST,
            settings=settings,
            environment={},
            token=token,
        )
        return state.id, token

    def run(
        self,
        denoiser: Denoiser,
        round_id: int,
        token: int,
        *,
        slices: Sequence[float] = (600.0,),
        is_held: bool = False,
    ) -> SliceOutcome:
        """Run one slice after another, each in a runner of its own, as a restarted trainer would."""
        outcome = SliceOutcome.MORE
        for seconds in slices:
            state = self.store.rounds.get(round_id)
            runner = RoundRunner(self.store, self.base, denoiser, state, token=token, is_held=is_held)
            outcome = runner.run_slice(seconds)
            runner.close()
        return outcome


def weights_of(studio: TrainingStudio, version: int = 1) -> dict[str, torch.Tensor]:
    folder = studio.store.adapters.get(studio.base, version).folder
    weights: dict[str, torch.Tensor] = load_file(folder / "pytorch_lora_weights.safetensors")
    return weights


def twin_of(studio: TrainingStudio, tmp_path: Path) -> TrainingStudio:
    """Another home with the same pairs and votes."""
    twin = TrainingStudio.open(tmp_path / "twin", studio.source)
    twin.add_pairs(studio.num_pairs)
    twin.vote(studio.num_pairs)
    return twin


def assert_equal(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for key in ours:
        assert torch.equal(ours[key], theirs[key]), key


def hash_of(text: str) -> int:
    total: int = sum(ord(character) * 31**i for i, character in enumerate(text))
    return total % 2**31


def _image(prompt: str, seed: int, latents: torch.Tensor, version: int) -> NewImage:
    file = io.BytesIO()
    Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), (seed % 256, seed // 256 % 256, 0)).save(file, "PNG")
    provenance = Provenance(prompt, seed, "ddim", 2, 1.0, version, 1.0, 2, 1, "cpu", "float32")
    return NewImage(file.getvalue(), IMAGE_SIZE, IMAGE_SIZE, provenance, dump_latents(latents))


def only_single_pairs_fit(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let memory run out in every step of more than one pair at a time; the list fills with the sizes tried."""
    sizes: list[int] = []

    def unlucky(*arguments: Any, micro_pairs: int, **named: Any) -> StepResult:
        sizes.append(micro_pairs)
        if micro_pairs > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return train_step(*arguments, micro_pairs=micro_pairs, **named)

    monkeypatch.setattr(trainer, "train_step", unlucky)
    return sizes
