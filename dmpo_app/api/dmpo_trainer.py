"""The trainer for notebooks and scripts: `DMPOTrainer`, its result, its callbacks and the policy given to them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from PIL import Image

from dmpo_app.api.config import DMPOConfig, python_words
from dmpo_app.api.preferences import load_preferences
from dmpo_app.diffusion.base_models import detect_family, resolve_sampling
from dmpo_app.diffusion.families.registry import FAMILIES
from dmpo_app.diffusion.loaded_pipeline import LoadedPipeline
from dmpo_app.diffusion.loading import load_encoders
from dmpo_app.domain.lineage import Sampling
from dmpo_app.errors import BadInputError
from dmpo_app.objective import load_objective
from dmpo_app.settings import POCKET_MODEL, Settings
from dmpo_app.training.data.encoding import EncodingCounts
from dmpo_app.training.loop.steps import StepDone
from dmpo_app.training.loop.trainer import RoundTrainer
from dmpo_app.training.offline.dataset_run import TrainingCallback
from dmpo_app.training.offline.dataset_training import TrainingOutcome, TrainingRequest, TrainingSteps, dataset_steps

_RENDER_BATCH = 4


@dataclass(frozen=True, slots=True)
class HeldOutEvaluation:
    """Evaluation of the saved adapter on the held-out pairs.

    `voted_probability` is the mean probability of the chosen side, which chose the step; the base model's is 0.5.
    `loss` is DMPO's, whatever was minimised, and `base_loss` the base model's; `accuracy` the share of pairs whose
    margin points to the chosen image, `margin` the mean of u towards it; `num_pairs` there are.
    """

    voted_probability: float
    loss: float
    base_loss: float
    accuracy: float
    margin: float
    num_pairs: int


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """Result of a training.

    `adapter_path` is the adapter's folder, for `pipe.load_lora_weights`; `step` the one it is from. `evaluation` is
    None without held-out pairs. `warning` says that a limit ended the training, or that held-out pairs judge the
    adapter to be worse than the base model. `counts` are of the rows that were read.
    """

    adapter_path: Path
    step: int
    metrics: Mapping[str, float]
    evaluation: HeldOutEvaluation | None
    warning: str | None
    counts: EncodingCounts


class DMPOTrainer:
    """Trainer of a LoRA adapter on preferences, with DMPO or another objective.

        trainer = DMPOTrainer("pocket", pairs, DMPOConfig(num_steps=80, output_dir="out"), callbacks=[...])
        result = trainer.train()

    The model is a hub id, a folder, "pocket" for the model that ships, or a loaded pipeline, whose denoiser is trained
    in place and is the base model again afterwards. `pairs` is all that `load_preferences` takes.

    Raises BadInputError or SetupError: no pairs, an unknown objective or option, a folder that exists, no such model.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | DiffusionPipeline,
        pairs: Any,
        config: DMPOConfig | None = None,
        *,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.config = config or DMPOConfig()
        self.callbacks = tuple(callbacks)
        self.pairs = load_preferences(pairs)
        self._result: TrainingResult | None = None
        self._is_begun = False
        with python_words():
            self._loaded = None if isinstance(model, str | os.PathLike) else LoadedPipeline(model)
            load_objective(self.config.objective, dict(self.config.objective_options))
            source = self._loaded.source if self._loaded else _source_of_model(model)
            self._settings = self.config.to_settings(source)
            self._check_output()

    @property
    def result(self) -> TrainingResult:
        """The result of the training. Raises BadInputError before its end."""
        if self._result is None:
            raise BadInputError("the training has no result yet; train() or the end of steps() gives it")
        return self._result

    def train(self) -> TrainingResult:
        """Encode the pairs, train to the end, save the adapter. Called again, it goes on where it was interrupted.

        Raises BadInputError when there is nothing to learn from, SetupError, RoundFailedError when training diverges,
        StorageFullError, and whatever a callback raises.
        """
        for _ in self.steps():
            pass
        return self.result

    def steps(self) -> Iterator[StepDone]:
        """Train step by step: each step is yielded when it is done and the callbacks have been told of it.

        Leaving the loop early writes a checkpoint, and `steps()` or `train()` goes on from there. After the last step
        there is a `result`. Raises like `train`.
        """
        if not self._is_begun:
            with python_words():
                self._check_output()
        self._is_begun = True
        policy = Policy(self._settings, self._loaded, self.config.resolution)
        watcher = Dispatcher(self.callbacks, policy)
        request = TrainingRequest(
            output=Path(self.config.output_dir).expanduser().resolve(),
            limit=self.config.max_pairs,
            resolution=self.config.resolution,
            encode_batch=self.config.encode_batch,
            loaded=self._loaded,
        )
        lent = nullcontext() if self._loaded is None else self._loaded.lent()
        with python_words(), lent, watcher:
            training = dataset_steps(self.pairs.source, self.pairs.reader, self._settings, request, watcher)
            while True:
                try:
                    step = next(training)
                except StopIteration as end:
                    self._finish(end.value)
                    return
                try:
                    watcher.on_step_done(step)
                    yield step
                except BaseException:  # the loop was left, or a callback failed
                    watcher.leave()
                    self._finish(_run_to_end(training))
                    raise

    def _finish(self, outcome: TrainingOutcome) -> None:
        if outcome.folder is not None:
            self._result = _to_result(outcome.folder, outcome)
            for callback in self.callbacks:
                callback.on_end(self._result)

    def _check_output(self) -> None:
        """Raise BadInputError for an output folder that is in use by something else."""
        output = Path(self.config.output_dir).expanduser()
        if output.exists() and not output.is_dir():
            raise BadInputError(f"output_dir {output} is a file; choose another")
        if not output.is_dir() or not any(output.iterdir()):
            return
        if not self.config.resume:
            raise BadInputError(
                f"output_dir {output} exists already; choose another, or set resume=True to go on with a training in it"
            )
        if not (output / "work").is_dir():
            raise BadInputError(f"output_dir {output} holds no training to resume; choose a new one")


def _run_to_end(training: TrainingSteps) -> TrainingOutcome:
    while True:
        try:
            next(training)
        except StopIteration as end:
            outcome: TrainingOutcome = end.value
            return outcome


def _source_of_model(model: Any) -> str:
    source = str(POCKET_MODEL) if model == "pocket" else os.fspath(model)
    detect_family(source)
    return source


def _to_result(folder: Path, outcome: TrainingOutcome) -> TrainingResult:
    metrics = outcome.metrics
    evaluation = None
    if "held_out_loss" in metrics:
        evaluation = HeldOutEvaluation(
            voted_probability=metrics["held_out_probability"],
            loss=metrics["held_out_loss"],
            base_loss=metrics["base_held_out_loss"],
            accuracy=metrics["held_out_accuracy"],
            margin=metrics["held_out_margin"],
            num_pairs=int(metrics["held_out_pairs"]),
        )
    return TrainingResult(folder, int(metrics["step"]), metrics, evaluation, outcome.warning, outcome.counts)


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
