"""Callbacks of a training, and the policy that they are given: the model as it is being trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from diffusers import DiffusionPipeline
from PIL import Image

from dmpo_app.diffusion.base_models import resolve_sampling
from dmpo_app.diffusion.families.registry import FAMILIES
from dmpo_app.diffusion.loaded_pipeline import LoadedPipeline
from dmpo_app.diffusion.loading import load_encoders
from dmpo_app.domain.image import Sampling
from dmpo_app.errors import BadInputError
from dmpo_app.settings import Settings
from dmpo_app.training.data.encoded_pairs import EncodingCounts
from dmpo_app.training.loop.steps import StepDone
from dmpo_app.training.loop.trainer import RoundTrainer
from dmpo_app.training.offline.dataset_run import TrainingCallback

if TYPE_CHECKING:
    from dmpo_app.api.dmpo_trainer import TrainingResult

_RENDER_BATCH = 4


class Policy:
    """The model while it is trained: what callbacks are given, to render images with it and to stop."""

    def __init__(self, settings: Settings, loaded: LoadedPipeline | None, resolution: int | None) -> None:
        self._settings = settings
        self._loaded = loaded
        self._resolution = resolution
        self._trainer: RoundTrainer | None = None
        self._pipeline: DiffusionPipeline | None = None

    @property
    def step(self) -> int:
        """Steps done so far."""
        return self._training.step

    @property
    def num_steps(self) -> int:
        """The steps of the whole training."""
        return self._training.num_steps

    def stop(self) -> None:
        """End the training after this step: it is evaluated, and the best adapter so far is saved."""
        self._training.finish_early()

    @torch.no_grad()
    def render(
        self, prompts: Sequence[str], *, seed: int = 0, num_steps: int | None = None, guidance: float | None = None
    ) -> list[Image.Image]:
        """Render an image of each prompt with the adapter as it is now; before the first step, the base model's.

        The i-th image has the noise of `seed + i`. Steps and guidance are the base model's usual ones unless given.
        The parts that training does without are loaded at the first call and stay in memory. Leaves the training
        alone: its random state is its own.
        """
        pipeline, sampling = self._get_pipeline(), self._sampling()
        images: list[Image.Image] = []
        with self._training.policy_weights():
            for start in range(0, len(prompts), _RENDER_BATCH):
                batch = list(prompts[start : start + _RENDER_BATCH])
                numbers = range(seed + start, seed + start + len(batch))
                images += pipeline(
                    prompt=batch,
                    num_inference_steps=sampling.num_steps if num_steps is None else num_steps,
                    guidance_scale=sampling.guidance if guidance is None else guidance,
                    generator=[torch.Generator().manual_seed(number) for number in numbers],
                    height=self._resolution,
                    width=self._resolution,
                ).images
        return images

    @property
    def _training(self) -> RoundTrainer:
        if self._trainer is None:
            raise BadInputError("the training has not begun or is over; a policy is for callbacks, while it is trained")
        return self._trainer

    def _get_pipeline(self) -> DiffusionPipeline:
        """The pipeline with the denoiser in training in it."""
        if self._pipeline is None:
            denoiser = self._training.denoiser
            if self._loaded is not None:
                self._pipeline = self._loaded.pipeline
            else:
                render = self._settings.render
                self._pipeline, _ = load_encoders(
                    self._settings.base_model, device=str(denoiser.device), dtype=render.dtype, resolution=None
                )
                setattr(self._pipeline, denoiser.family.component, denoiser.module)
                self._pipeline.set_progress_bar_config(disable=True)
        return self._pipeline

    def _sampling(self) -> Sampling:
        if self._loaded is None:
            return resolve_sampling(self._settings.base_model, self._settings.render)
        return next(one.default_sampling for one in FAMILIES.values() if one.name == self._loaded.family.name)


class Callback:
    """Base class of callbacks; every method does nothing. An exception ends the training, after a checkpoint."""

    def on_encoded(self, counts: EncodingCounts) -> None:
        """Called after each batch of pairs that is encoded, with the counts so far."""

    def on_start(self, policy: Policy) -> None:
        """Called before the first step, or the first one of a training that goes on."""

    def on_step(self, step: StepDone, policy: Policy) -> None:
        """Called after each step."""

    def on_evaluation(self, step: StepDone, policy: Policy) -> None:
        """Called after `on_step` for a step after which the held-out pairs were evaluated (`step.evaluation`)."""

    def on_checkpoint(self, step: int, policy: Policy) -> None:
        """Called after a checkpoint was written."""

    def on_end(self, result: TrainingResult) -> None:
        """Called with the result, once the adapter is saved."""


class Dispatcher(TrainingCallback):
    """Tells the callbacks of what the training does; also a context manager, after which the policy is gone."""

    def __init__(self, callbacks: Sequence[Callback], policy: Policy) -> None:
        self._callbacks = callbacks
        self._policy = policy
        self._is_leaving = False

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._policy._trainer = self._policy._pipeline = None

    def leave(self) -> None:
        """End the training with a checkpoint before its next step."""
        self._is_leaving = True

    def should_stop(self) -> bool:
        return self._is_leaving

    def on_encoded(self, counts: EncodingCounts, limit: int | None) -> None:  # noqa: ARG002 - the base class's
        for callback in self._callbacks:
            callback.on_encoded(counts)

    def on_start(self, trainer: RoundTrainer) -> None:
        self._policy._trainer = trainer
        for callback in self._callbacks:
            callback.on_start(self._policy)

    def on_checkpoint(self, step: int) -> None:
        for callback in self._callbacks:
            callback.on_checkpoint(step, self._policy)

    def on_step_done(self, step: StepDone) -> None:
        for callback in self._callbacks:
            callback.on_step(step, self._policy)
            if step.evaluation is not None:
                callback.on_evaluation(step, self._policy)
