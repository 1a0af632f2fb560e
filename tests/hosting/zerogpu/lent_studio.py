"""A small real studio whose GPU is the stand-in's forked process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dmpo_app.domain.lineage import RoundState
from dmpo_app.hosting.zerogpu.gpu_calls import GpuWorker, gpu_seconds
from dmpo_app.hosting.zerogpu.start import ZeroGpuStudio, assemble
from dmpo_app.settings import HostingSettings, PoolSettings, RenderSettings, RoundSettings, Settings
from tests.hosting.zerogpu.stand_in.spaces import Lender
from tests.model_fixtures import NUM_THREADS
from tests.training.training_studio import FAST, TrainingStudio

MakeLent = Callable[..., "Lent"]


@dataclass
class Lent:
    studio: TrainingStudio
    gpu: Lender
    settings: Settings
    lent: ZeroGpuStudio

    @classmethod
    def make(
        cls, studio: TrainingStudio, *, slice_seconds: float = 45.0, round_settings: RoundSettings = FAST, **gpu: Any
    ) -> Lent:
        settings = Settings(
            home=studio.home,
            base_model=str(studio.source),
            min_votes=8,
            render=RenderSettings(num_steps=2, device="cpu", dtype="float32"),
            pool=PoolSettings(size=4),
            round=round_settings,
            hosting=HostingSettings(slice_seconds=slice_seconds, checkpoint_seconds=10),
        )
        lender = Lender(**gpu)
        worker = GpuWorker.load(studio.base, settings, num_threads=NUM_THREADS)
        work = lender(duration=gpu_seconds)(worker.work)
        return cls(studio, lender, settings, assemble(studio.store, studio.base, settings, work))

    def advance(self, seconds: float = 45.0) -> RoundState:
        """One slice of the round that is due or under way; how it then stands."""
        state = self.lent.trainer.next_round()
        assert state is not None
        return list(self.lent.trainer.train_slice(state, seconds))[-1]

    @property
    def live(self) -> int:
        return self.studio.store.adapters.live_version(self.studio.base)

    def checkpoint(self, round_id: int) -> Path:
        return self.studio.home / "rounds" / str(round_id) / "checkpoint.safetensors"
