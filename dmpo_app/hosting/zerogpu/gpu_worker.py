"""What runs in the process that has the GPU: one function, from a job to its events.

The process is forked from the server by whatever lends the GPU, is kept for some later calls, and is killed without a
word when its time is over. So it touches no database, keeps nothing that matters, and believes nothing that it finds in
its memory but the base model's weights.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from diffusers import DiffusionPipeline

from dmpo_app.diffusion import lora
from dmpo_app.diffusion.base_models import locate, sampling_of
from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.diffusion.families.registry import family_named
from dmpo_app.diffusion.live_model import LiveModel
from dmpo_app.diffusion.loading import load_pipeline
from dmpo_app.diffusion.lora import LoraSpec
from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.errors import StudioError
from dmpo_app.hosting.zerogpu.render_job import Rendered, RenderJob, render_job
from dmpo_app.hosting.zerogpu.train_job import (
    Calibrated,
    CalibrationJob,
    SliceEnded,
    SliceJob,
    Trained,
    calibrate,
    run_slice,
)
from dmpo_app.settings import Settings
from dmpo_app.training.data.empty_prompt import EmptyPrompt


@dataclass(frozen=True, slots=True)
class Failed:
    """The job's last event when it could not be done: `kind` is the error's class, `message` is fit for people.

    Errors travel as values: what lends the GPU would keep no more of them than the name of their class.
    """

    kind: str
    message: str


GpuJob = RenderJob | CalibrationJob | SliceJob
GpuEvent = Rendered | Calibrated | Trained | SliceEnded | Failed

_START_SECONDS = 15.0
"""For moving the base model's weights to the GPU, and for the end of a step or picture that is under way."""


def gpu_seconds(job: GpuJob) -> float:
    """How long a job is to have the GPU at most: 60 s for the longest slice."""
    return job.seconds + _START_SECONDS


class GpuWorker:
    """The base model, loaded where ZeroGPU wants it: in the server, before it serves, on a device that is not there.

    `work` is only ever called in a process that was lent a GPU.
    """

    def __init__(
        self, pipeline: DiffusionPipeline, base: BaseModelRef, settings: Settings, *, num_threads: int
    ) -> None:
        self._pipeline = pipeline
        self._base = base
        self._settings = settings
        self._num_threads = num_threads
        self._family = family_named(base.family)

    @classmethod
    def load(cls, base: BaseModelRef, settings: Settings, *, num_threads: int) -> GpuWorker:
        """Load the whole pipeline. Raises SetupProblem and its kind."""
        render = settings.render
        pipeline = load_pipeline(base.source, device=render.device, dtype=render.dtype, quantize=render.quantize)
        return cls(pipeline, base, settings, num_threads=num_threads)

    def work(self, job: GpuJob) -> Generator[GpuEvent, None, None]:
        """Do a job; what goes wrong is its last event, Failed."""
        _be_a_process_of_its_own(self._num_threads)
        try:
            yield from self._work(job)
        except StudioError as error:
            yield Failed(type(error).__name__, str(error))
        except Exception as error:  # noqa: BLE001 - whoever waits gets an answer, the log the rest
            traceback.print_exc()
            yield Failed("", f"{type(error).__name__}: {error}")

    def _work(self, job: GpuJob) -> Iterator[GpuEvent]:
        if isinstance(job, RenderJob):
            with self._model() as model:
                yield from render_job(job, model)
        elif isinstance(job, CalibrationJob):
            yield calibrate(job, self._denoiser())
        else:
            yield from run_slice(job, self._denoiser())

    @contextmanager
    def _model(self) -> Iterator[LiveModel]:
        """The base model with room for an adapter; without one again afterwards."""
        self._forget()
        usual = sampling_of(self._base.source, self._settings.render)
        spec = LoraSpec.of(self._settings.round, self._family)
        try:
            yield LiveModel(self._pipeline, self._family, self._settings.render, usual, spec)
        finally:
            self._forget()

    def _denoiser(self) -> Denoiser:
        self._forget()
        source, render = self._base.source, self._settings.render
        empty_prompt = EmptyPrompt.of_home(
            self._settings.home, source, self._base.fingerprint, device=render.device, dtype=render.dtype
        )
        scheduler = self._family.process.load_scheduler(locate(source))
        module = getattr(self._pipeline, self._family.component)
        return Denoiser(module, scheduler, self._family, render.quantize, empty_prompt)

    def _forget(self) -> None:
        lora.detach(getattr(self._pipeline, self._family.component))


def _be_a_process_of_its_own(num_threads: int) -> None:
    """Nothing is shared with the server's threads, which do not exist here: their locks would be held for ever."""
    torch.set_num_threads(num_threads)  # of this thread: another one than in the call before
    torch.backends.cudnn.deterministic = True  # the same request gives the same bytes
    torch.backends.cudnn.benchmark = False
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, force=True)
