"""Running jobs on ZeroGPU: a job goes in, events come out, refusals and aborts are put in words.

`work` is `GpuWorker.work` as decorated by the `spaces` package (or by a stand-in in tests): calling it asks for a GPU
on the quota of the person whose event this is, forks a process and hands over what that yields.
"""

import logging
import sys
import traceback
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Self

import torch
from diffusers import DiffusionPipeline

from dmpo_app import errors
from dmpo_app.diffusion import lora
from dmpo_app.diffusion.base_models import locate, resolve_sampling
from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.diffusion.families.registry import get_family
from dmpo_app.diffusion.live_model import LiveModel
from dmpo_app.diffusion.loading import load_pipeline
from dmpo_app.diffusion.lora import LoraSpec
from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.errors import DamagedFileError, GpuAbortedError, GpuRefusedError, StudioError
from dmpo_app.hosting.zerogpu import train_job
from dmpo_app.hosting.zerogpu.render_job import RenderJob, RenderResult, render_job
from dmpo_app.settings import Settings
from dmpo_app.training.data.encoding import EmptyPrompt

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class JobFailed:
    """The last event of a job that failed: `kind` is the error's class, `message` is fit for people.

    Errors travel as values: `spaces` would keep no more of them than the name of their class.
    """

    kind: str
    message: str
    damaged_path: str = ""
    """The file below the home that was found damaged, where that is what failed."""


GpuJob = RenderJob | train_job.CalibrationJob | train_job.SliceJob
GpuEvent = RenderResult | train_job.CalibrationResult | train_job.StepsTrained | train_job.SliceEnded | JobFailed

_START_SECONDS = 15.0
"""For moving the base model's weights to the GPU, and for the end of a step or image that is under way."""


def gpu_seconds(job: GpuJob) -> float:
    """The GPU time of a job in seconds, at most: 60 s for the longest slice."""
    return job.seconds + _START_SECONDS


class GpuWorker:
    """Worker that holds the base model, loaded in the server before it serves, on a device that is not there.

    `work` is only ever called in a process that has a GPU.
    """

    def __init__(
        self, pipeline: DiffusionPipeline, base: BaseModelRef, settings: Settings, *, num_threads: int
    ) -> None:
        self._pipeline = pipeline
        self._base = base
        self._settings = settings
        self._num_threads = num_threads
        self._family = get_family(base.family)

    @classmethod
    def load(cls, base: BaseModelRef, settings: Settings, *, num_threads: int) -> Self:
        """Load the whole pipeline. Raises SetupError and its kind."""
        render = settings.render
        pipeline = load_pipeline(base.source, device=render.device, dtype=render.dtype, quantize=render.quantize)
        return cls(pipeline, base, settings, num_threads=num_threads)

    def work(self, job: GpuJob) -> Generator[GpuEvent, None, None]:
        """Run a job and yield its events; an error becomes its last event, JobFailed."""
        _configure_forked_process(self._num_threads)
        try:
            yield from self._work(job)
        except StudioError as error:
            damaged_path = error.path if isinstance(error, DamagedFileError) else ""
            yield JobFailed(type(error).__name__, str(error), damaged_path)
        except Exception as error:  # noqa: BLE001 - whoever waits gets an answer, the log the rest
            traceback.print_exc()
            yield JobFailed("", f"{type(error).__name__}: {error}")

    def _work(self, job: GpuJob) -> Iterator[GpuEvent]:
        if isinstance(job, RenderJob):
            with self._model() as model:
                yield from render_job(job, model)
        elif isinstance(job, train_job.CalibrationJob):
            yield train_job.calibrate(job, self._denoiser())
        else:
            yield from train_job.run_slice(job, self._denoiser())

    @contextmanager
    def _model(self) -> Iterator[LiveModel]:
        """The live model on the base model, with room for an adapter that is removed again afterwards."""
        self._detach_adapter()
        usual = resolve_sampling(self._base.source, self._settings.render)
        spec = LoraSpec.from_settings(self._settings.round, self._family)
        try:
            yield LiveModel(self._pipeline, self._family, self._settings.render, usual, spec)
        finally:
            self._detach_adapter()

    def _denoiser(self) -> Denoiser:
        self._detach_adapter()
        source, render = self._base.source, self._settings.render
        empty_prompt = EmptyPrompt.from_home(
            self._settings.home, source, self._base.fingerprint, device=render.device, dtype=render.dtype
        )
        scheduler = self._family.process.load_scheduler(locate(source))
        module = getattr(self._pipeline, self._family.component)
        return Denoiser(module, scheduler, self._family, render.quantize, empty_prompt)

    def _detach_adapter(self) -> None:
        lora.detach(getattr(self._pipeline, self._family.component))


def _configure_forked_process(num_threads: int) -> None:
    """Configure torch and logging of a forked process; the locks of the server's threads would be held for ever."""
    torch.set_num_threads(num_threads)  # of this thread: another one than in the call before
    torch.backends.cudnn.deterministic = True  # the same request gives the same bytes
    torch.backends.cudnn.benchmark = False
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, force=True)


Events = Generator[GpuEvent, None, None]
GpuFunction = Callable[[GpuJob], Events]

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


class GpuJobRunner:
    """Runner of ZeroGPU jobs, any number at a time; each in the thread, and in the event, of the person who asks."""

    def __init__(self, work: GpuFunction) -> None:
        self._work = work

    def run(self, job: GpuJob) -> Events:
        """Run a job and yield its events as they come.

        Raises GpuRefusedError when there is no GPU to be had, GpuAbortedError when the process ended before the job
        did, and what the job itself raised. Closing the iterator ends the job.
        """
        try:
            with closing(self._work(job)) as events:
                for event in events:
                    if isinstance(event, JobFailed):
                        raise _error_from_event(event)
                    yield event
        except StudioError:
            raise
        except Exception as error:
            raise error_from_spaces(error) from error


def error_from_spaces(error: Exception) -> StudioError:
    """Translate an error of `spaces`, which differ by their titles alone, into one that says what to do."""
    title = str(getattr(error, "title", "")).lower()
    message = str(getattr(error, "message", "") or error).strip()
    message = message if message.endswith((".", "!", "?")) else f"{message}."
    if "aborted" in message.lower():
        return GpuAbortedError(_ABORTED)
    if "illegal duration" in title:
        return GpuRefusedError(_TOO_LONG.format(said=message.rstrip(".")))
    if "quota exceeded" in title and "gpu limit" in message.lower():
        return GpuRefusedError(_ANONYMOUS.format(said=message))
    if "quota exceeded" in title or "credits exceeded" in title:
        return GpuRefusedError(_QUOTA.format(said=message))
    if "queue timeout" in title or "client error" in title:
        return GpuRefusedError(_NO_GPU.format(said=message))
    _log.error("ZeroGPU failed: %s: %s", title or type(error).__name__, message)
    return GpuAbortedError(
        f"The GPU could not be used ({message.rstrip('.')}); the Space's log says more. Nothing was changed."
    )


def _error_from_event(event: JobFailed) -> StudioError:
    """Rebuild the error that the job raised, with its class; one that is not a StudioError becomes a plain one."""
    if event.damaged_path:
        return DamagedFileError(event.message, path=event.damaged_path)
    kind = getattr(errors, event.kind, None)
    if isinstance(kind, type) and issubclass(kind, StudioError):
        return kind(event.message)
    return StudioError(event.message)
