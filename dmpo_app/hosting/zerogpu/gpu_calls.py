"""The GPU as the server borrows it: a job goes in, events come out, refusals and aborts are put in words.

`work` is `GpuWorker.work` as decorated by the `spaces` package (or by a stand-in in tests): calling it asks for a GPU
on the quota of the person whose event this is, forks a process and hands over what that yields.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import closing

from dmpo_app import errors
from dmpo_app.errors import GpuAborted, GpuRefused, StudioError
from dmpo_app.hosting.zerogpu.gpu_worker import Failed, GpuEvent, GpuJob

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
