"""The GPU as the server borrows it: a job goes in, events come out, refusals and aborts are put in words.

`work` is `GpuWorker.work` as decorated by the `spaces` package (or by a stand-in in tests): calling it asks for a GPU
on the quota of the person whose event this is, forks a process and hands over what that yields.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

import torch
from diffusers import DiffusionPipeline

from dmpo_app import errors
from dmpo_app.diffusion import lora
from dmpo_app.diffusion.base_models import locate, sampling_of
from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.diffusion.families.registry import family_named
from dmpo_app.diffusion.live_model import LiveModel
from dmpo_app.diffusion.loading import load_pipeline
from dmpo_app.diffusion.lora import LoraSpec
from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.errors import GpuAborted, GpuRefused, StudioError
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
from dmpo_app.training.data.encoding import EmptyPrompt


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


Events = Generator[GpuEvent, None, None]
Work = Callable[[GpuJob], Events]

_QUOTA = (
    "There is no GPU time left for you just now: {said} Everybody has some minutes a day on ZeroGPU; people signed in "
    "to Hugging Face have more, and subscribers most. Nothing is lost: votes are taken all the same, and a round "
    "goes on where it was."
)
_ANONYMOUS = (
    "No GPU time could be asked for in your name: {said} Open the page on huggingface.co, signed in, and not the bare "
    "address of the Space; pages elsewhere do not say who asks."
)
_TOO_LONG = "More GPU time was asked for than one call may have ({said}). Set a smaller DMPO_HOSTING__SLICE_SECONDS."
_NO_GPU = "No GPU is free on ZeroGPU just now: {said} Try again in a minute."
_ABORTED = (
    "The GPU was taken away in the middle, as happens when its time is over or the page is closed. What had been saved "
    "stands, nothing else was changed; the next time goes on from there."
)
_log = logging.getLogger(__name__)


class BorrowedGpu:
    """Runs jobs on borrowed GPUs, any number at a time; each in the thread, and in the event, of whoever asks."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def run(self, job: GpuJob) -> Events:
        """The job's events as they come.

        Raises GpuRefused when there is no GPU to be had, GpuAborted when the process ended before the job did, and
        what the job itself raised. Closing the iterator ends the job.
        """
        try:
            with closing(self._work(job)) as events:
                for event in events:
                    if isinstance(event, Failed):
                        raise _error_of(event)
                    yield event
        except StudioError:
            raise
        except Exception as error:
            raise explained(error) from error


def explained(error: Exception) -> StudioError:
    """What `spaces` raises, in words. It tells its errors apart by their titles alone."""
    title = str(getattr(error, "title", "")).lower()
    said = str(getattr(error, "message", "") or error).strip()
    said = said if said.endswith((".", "!", "?")) else f"{said}."
    if "aborted" in said.lower():
        return GpuAborted(_ABORTED)
    if "illegal duration" in title:
        return GpuRefused(_TOO_LONG.format(said=said.rstrip(".")))
    if "quota exceeded" in title and "gpu limit" in said.lower():
        return GpuRefused(_ANONYMOUS.format(said=said))
    if "quota exceeded" in title or "credits exceeded" in title:
        return GpuRefused(_QUOTA.format(said=said))
    if "queue timeout" in title or "client error" in title:
        return GpuRefused(_NO_GPU.format(said=said))
    _log.error("what lends the GPU failed: %s: %s", title or type(error).__name__, said)
    return GpuAborted(
        f"The GPU could not be used ({said.rstrip('.')}); the Space's log says more. Nothing was changed."
    )


def _error_of(event: Failed) -> StudioError:
    """The error that the job raised, as the class it had; any other than ours as the plain one."""
    kind = getattr(errors, event.kind, None)
    if isinstance(kind, type) and issubclass(kind, StudioError):
        return kind(event.message)
    return StudioError(event.message)
