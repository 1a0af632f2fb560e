"""Steps of the project's own training, in turns: `benchmarks.step_speed` starts this.

    python -m benchmarks.step_ours --turn ARGUMENTS --model FOLDER [--targets wide] [--dtype float32] [--batch 8]

A turn makes the same steps three ways: `hit`, every reference error in the cache; `miss`, none of them; `forward`,
only the base model's forward pass over the same batches, without gradients. The step is `training.loop.step.train_step`
on the draws of `training.data.training_examples`, which is what a round calls. This file is the only one of the
benchmark that knows the project's training and diffusion code.
"""

import argparse
import gc
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.memory_files import MemoryPairs
from benchmarks.step_turns import TurnArguments, Turns, clocks, peak_bytes, seconds_a_step
from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.diffusion.fused_lora import fuse, reference_mode
from dmpo_app.diffusion.loading import load_denoiser
from dmpo_app.diffusion.lora import LoraSpec, attach
from dmpo_app.diffusion.tensor_files import dump_conditioning, dump_latents
from dmpo_app.domain.lineage import NewImage, NewPair, PairSource, Provenance
from dmpo_app.exchange.importing.starter_pairs import read_starter_pairs
from dmpo_app.objective import get_objective
from dmpo_app.settings import POCKET_MODEL, RoundSettings, Settings
from dmpo_app.training.data.dataset import PairDataset
from dmpo_app.training.data.training_examples import Example, examples_for_step
from dmpo_app.training.loop.optimizers import make_optimizer
from dmpo_app.training.loop.step import PreferenceLoss, train_step
from dmpo_app.training.reference.denoising_errors import PairErrors
from dmpo_app.training.reference.reference_cache import ReferenceCache

NUM_PAIRS = 48
_RANDOM_TOKENS = 77


class OurSteps:
    """An adapter in training on one dataset; step `index` draws the same pairs and slots at every call."""

    def __init__(self, denoiser: Denoiser, data: PairDataset, settings: RoundSettings) -> None:
        self._denoiser = denoiser
        self._data = data
        self._settings = settings
        self._micro_pairs = settings.batch_pairs
        self._known = ReferenceCache()
        self._parameters = attach(denoiser.module, LoraSpec.from_settings(settings, denoiser.family), seed=0)
        fuse(denoiser.module)
        self._optimizer = make_optimizer(self._parameters, learning_rate=settings.learning_rate)
        beta = settings.beta or 500.0
        self._loss = PreferenceLoss(get_objective(settings.objective, {}), beta=beta, margin_beta=beta, options={})

    @property
    def micro_pairs(self) -> int:
        """Pairs that go through the denoiser at once."""
        return self._micro_pairs

    def hit(self, index: int) -> None:
        """A step whose references are known, if it was made before."""
        self._step(index, self._known)

    def miss(self, index: int) -> None:
        """A step that computes all of its references."""
        self._step(index, ReferenceCache())

    def forward(self, index: int) -> None:
        """The base model's pass over the step's images, nothing else."""
        draws = self._draws(index)
        with torch.inference_mode(), reference_mode(self._denoiser.module):
            for start in range(0, len(draws), self._micro_pairs):
                pairs = [draw.pair for draw in draws[start : start + self._micro_pairs]] * 2
                latents = self._data.latents(pairs, self._denoiser.device)[0]
                timesteps = torch.full((len(pairs),), 500, device=latents.device)
                self._denoiser.predict(latents, timesteps, self._data.conditioning(pairs, latents.device))

    def fit(self) -> None:
        """Halve the pieces a batch goes through in until they fit into the memory, as a round does."""
        while True:
            try:
                return self.miss(0)
            except torch.OutOfMemoryError:
                if self._micro_pairs == 1:
                    raise
            self._denoiser.module.zero_grad(set_to_none=True)
            gc.collect()
            torch.cuda.empty_cache()
            self._micro_pairs //= 2

    def _step(self, index: int, cache: ReferenceCache) -> None:
        settings = self._settings
        errors = PairErrors(
            self._denoiser, self._data, cache, num_slots=settings.slots_per_pair, slot_seed=settings.seed
        )
        train_step(
            errors,
            self._draws(index),
            self._parameters,
            self._optimizer,
            self._loss,
            max_grad_norm=settings.max_grad_norm,
            micro_pairs=self._micro_pairs,
        )

    def _draws(self, index: int) -> list[Example]:
        settings = self._settings
        return examples_for_step(
            index,
            num_pairs=len(self._data),
            batch_pairs=settings.batch_pairs,
            num_slots=settings.slots_per_pair,
            seed=settings.seed,
        )


def starter_dataset(count: int, settings: RoundSettings) -> PairDataset:
    """The first of the shipped pairs; image a wins."""
    return _dataset(list(read_starter_pairs(Settings().pool.starter_pairs).pairs[:count]), settings)


def random_dataset(denoiser: Denoiser, count: int, size: int, settings: RoundSettings) -> PairDataset:
    """Noise in the shapes the denoiser takes; `size` is the latents' height and width. The time is the same."""
    config = denoiser.module.config
    generator = torch.Generator().manual_seed(0)
    shapes: dict[str, tuple[int, ...]] = {"prompt_embeds": (_RANDOM_TOKENS, config.cross_attention_dim)}
    if config.addition_embed_type == "text_time":  # SDXL: the pooled embedding is what the time ids leave of the input
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        shapes["pooled_prompt_embeds"] = (pooled,)
    embeds = dump_conditioning({name: torch.randn(shape, generator=generator) for name, shape in shapes.items()})

    def image() -> NewImage:
        latents = torch.randn((config.in_channels, size, size), generator=generator)
        provenance = Provenance("noise", 0, "ddim", 1, 1.0, 0, 1.0, 1, 1, "cpu", "float32")
        return NewImage(b"", 8 * size, 8 * size, provenance, dump_latents(latents))

    return _dataset([NewPair("noise", image(), image(), embeds, PairSource.POOL) for _ in range(count)], settings)


def _dataset(pairs: list[NewPair], settings: RoundSettings) -> PairDataset:
    return MemoryPairs(pairs).dataset(range(len(pairs)), [1.0] * len(pairs), alpha=settings.alpha)


def timed(step: Callable[[int], None], count: int) -> list[float]:
    """Seconds a step of steps 0 to count - 1, by either clock."""
    started = clocks()
    for index in range(count):
        step(index)
    return seconds_a_step(started, count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turn", type=TurnArguments.parse, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--latent-size", type=int, required=True)
    parser.add_argument("--targets", choices=["attention", "wide"], required=True)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=0, help="0: torch's own choice")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    turns = Turns(arguments.turn)
    settings = RoundSettings(target_modules=arguments.targets, batch_pairs=arguments.batch)
    denoiser = load_denoiser(str(arguments.model), device=arguments.device, dtype=arguments.dtype)
    if arguments.model.resolve() == POCKET_MODEL.resolve():
        data = starter_dataset(NUM_PAIRS, settings)
    else:
        data = random_dataset(denoiser, NUM_PAIRS, arguments.latent_size, settings)
    ours = OurSteps(denoiser, data, settings)
    ours.fit()
    steps = arguments.turn.steps
    for index in range(max(steps, arguments.turn.warmup)):  # puts the references of every step to come in the cache
        ours.hit(index)
    turns.report({"micro_pairs": ours.micro_pairs})
    for _ in range(arguments.turn.turns):
        turns.wait()
        turns.report({kind: timed(getattr(ours, kind), steps) for kind in ("forward", "hit", "miss")})
    turns.report({"peak_bytes": peak_bytes()})


if __name__ == "__main__":
    main()
