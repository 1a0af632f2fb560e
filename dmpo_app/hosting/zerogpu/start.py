"""The start on ZeroGPU: `spaces` first, then the base model in this very thread, then everything else."""

from __future__ import annotations

import os
import random
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.settings import Settings
from dmpo_app.store import Store
from dmpo_app.store.store import utc_now

if TYPE_CHECKING:
    from dmpo_app.hosting.zerogpu.gpu_calls import Work
    from dmpo_app.hosting.zerogpu.image_rendering import LentPictures
    from dmpo_app.hosting.zerogpu.lending import Lending
    from dmpo_app.hosting.zerogpu.round_slices import LentRounds


@dataclass(frozen=True, slots=True)
class LentStudio:
    """What stands in for the render thread and the trainer process, and what people lend their minutes to."""

    pictures: LentPictures
    rounds: LentRounds
    lending: Lending


def start(store: Store, base: BaseModelRef, settings: Settings) -> LentStudio:
    """Load the base model where ZeroGPU finds it. To be called in the main thread, before the page is served.

    `spaces` puts an imaginary GPU into torch for the thread that imports it; the weights that are placed there until
    the page is served are what a process with a real GPU is given. Raises SetupProblem and its kind.
    """
    import spaces  # before torch is used: that is how it finds out whether it came too late

    from dmpo_app.hosting.zerogpu.gpu_worker import GpuWorker, gpu_seconds

    worker = GpuWorker.load(base, settings, num_threads=os.cpu_count() or 1)
    return assemble(store, base, settings, spaces.GPU(duration=gpu_seconds)(worker.work))


def assemble(store: Store, base: BaseModelRef, settings: Settings, work: Work) -> LentStudio:
    """The studio on a GPU that `work` borrows."""
    from dmpo_app.hosting.zerogpu.gpu_calls import BorrowedGpu
    from dmpo_app.hosting.zerogpu.image_rendering import LentPictures
    from dmpo_app.hosting.zerogpu.lending import Lending
    from dmpo_app.hosting.zerogpu.round_slices import LentRounds

    gpu = BorrowedGpu(work)
    pictures = LentPictures(store, base, settings, gpu, rng=random.Random(), now=utc_now)
    rounds = LentRounds(store, base, settings, gpu, owner=f"serve@{socket.gethostname()}", now=utc_now)
    return LentStudio(pictures, rounds, Lending(pictures, rounds, seconds=settings.hosting.slice_seconds))
