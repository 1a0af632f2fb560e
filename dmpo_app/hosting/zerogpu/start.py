"""Startup on ZeroGPU: `spaces` first, then the base model in this very thread, then everything else."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dmpo_app.domain.lineage import BaseModelRef, RenderedImage, RenderRequest, RoundState, RoundStatus
from dmpo_app.settings import Settings
from dmpo_app.settings.resources import available_cores, torch_threads
from dmpo_app.store import Store
from dmpo_app.store.store import utc_now

if TYPE_CHECKING:
    from dmpo_app.hosting.zerogpu.gpu_calls import GpuFunction
    from dmpo_app.hosting.zerogpu.image_rendering import ZeroGpuRenderer
    from dmpo_app.hosting.zerogpu.round_slices import ZeroGpuTrainer


_NOTHING = (
    "There is nothing to do for a GPU just now: enough pairs are waiting, and too few new votes are in for a round. "
    "Votes help most. Your minute was not used."
)


class GpuMinuteScheduler:
    """Scheduler of GPU minutes: first a pool that has run dry, then the round that is due, then pairs and the sheet."""

    def __init__(self, renderer: ZeroGpuRenderer, trainer: ZeroGpuTrainer, *, seconds: float) -> None:
        self._renderer = renderer
        self._trainer = trainer
        self._seconds = seconds

    def run_minute(self) -> Iterator[str]:
        state = None if self._renderer.is_low else self._trainer.next_round()
        yield from self._render_images() if state is None else self._train(state)

    def render(self, request: RenderRequest) -> list[RenderedImage]:
        return self._renderer.render(request)

    def _train(self, state: RoundState) -> Iterator[str]:
        yield f"Asking for a GPU to train round {state.id}…"
        now = state
        for now in self._trainer.train_slice(state, self._seconds):
            yield f"Round {now.id}: step {now.step} of {now.steps}."
        yield _describe_outcome(now)

    def _render_images(self) -> Iterator[str]:
        yield "Asking for a GPU to make images…"
        count = 0
        for count in self._renderer.fill(self._seconds):
            yield f"{count} images made."
        yield f"Thank you: {count} images were made for everybody." if count else _NOTHING


def _describe_outcome(state: RoundState) -> str:
    if state.status is RoundStatus.PUBLISHED:
        return f"Thank you: round {state.id} is finished, and version {state.adapter_version} is published."
    if state.status is RoundStatus.REFUSED:
        return f"Thank you: round {state.id} is finished. What it learned was not taken: {state.reason}"
    return f"Thank you: round {state.id} is at step {state.step} of {state.steps}; the next minute goes on from there."


@dataclass(frozen=True, slots=True)
class ZeroGpuStudio:
    """The parts of a studio on ZeroGPU: renderer and trainer without processes of their own, and the GPU minutes."""

    renderer: ZeroGpuRenderer
    trainer: ZeroGpuTrainer
    gpu_minutes: GpuMinuteScheduler


def start(store: Store, base: BaseModelRef, settings: Settings) -> ZeroGpuStudio:
    """Load the base model where ZeroGPU finds it. To be called in the main thread, before the page is served.

    `spaces` puts an imaginary GPU into torch for the thread that imports it; the weights that are placed there until
    the page is served are what a process with a real GPU is given. Raises SetupError and its kind.
    """
    import spaces  # before torch is used: that is how it finds out whether it came too late

    from dmpo_app.hosting.zerogpu.gpu_calls import GpuWorker, gpu_seconds

    worker = GpuWorker.load(base, settings, num_threads=torch_threads(available_cores()))
    return assemble(store, base, settings, spaces.GPU(duration=gpu_seconds)(worker.work))


def assemble(store: Store, base: BaseModelRef, settings: Settings, work: GpuFunction) -> ZeroGpuStudio:
    """Assemble the studio on the GPUs that calls of `work` get."""
    from dmpo_app.hosting.zerogpu.gpu_calls import GpuJobRunner
    from dmpo_app.hosting.zerogpu.image_rendering import ZeroGpuRenderer
    from dmpo_app.hosting.zerogpu.round_slices import ZeroGpuTrainer
    from dmpo_app.objective import load_objective

    load_objective(settings.round.objective, settings.round.objective_options)  # raises if there is none such
    gpu = GpuJobRunner(work)
    renderer = ZeroGpuRenderer(store, base, settings, gpu, rng=random.Random(), now=utc_now)
    trainer = ZeroGpuTrainer(store, base, settings, gpu, owner=f"serve@{socket.gethostname()}", now=utc_now)
    return ZeroGpuStudio(
        renderer, trainer, GpuMinuteScheduler(renderer, trainer, seconds=settings.hosting.slice_seconds)
    )
