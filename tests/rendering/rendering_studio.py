"""A home with a tiny base model and random adapters to publish, for the tests of the renderer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dmpo_app.diffusion.adapter_files import AdapterWeights, write_adapter
from dmpo_app.diffusion.base_models import detect_family, fingerprint
from dmpo_app.domain.lineage import AdapterRef, BaseModelRef, NewAdapter, RoundState, Trigger
from dmpo_app.settings import JudgingSettings, PoolSettings, RenderSettings, Settings
from dmpo_app.store import Store
from tests.store.store_data import copy_empty_home

TRAIN_PROMPTS = ("a red fox", "a blue whale", "a green frog")
HELD_OUT_PROMPTS = ("a pink crane", "a black cat", "a white owl", "a brown bear", "a gold fish", "a grey wolf")


@dataclass
class RenderingStudio:
    store: Store
    base: BaseModelRef
    settings: Settings

    @classmethod
    def open(
        cls,
        home: Path,
        source: Path,
        *,
        pool_size: int = 4,
        queue_size: int = 8,
        num_duels: int = 0,
        effect_prompts: int = 0,
    ) -> RenderingStudio:
        store = Store.open(copy_empty_home(home))
        base = store.models.register(str(source), detect_family(str(source)), fingerprint(str(source)))
        store.prompts.ensure(TRAIN_PROMPTS, held_out=False)
        store.prompts.ensure(HELD_OUT_PROMPTS, held_out=True)
        settings = Settings(
            home=home,
            base_model=str(source),
            render=RenderSettings(num_steps=2, device="cpu", dtype="float32", queue_size=queue_size),
            pool=PoolSettings(size=pool_size),
            judging=JudgingSettings(duels_ready=num_duels, effect_prompts=effect_prompts),
        )
        return cls(store, base, settings)

    def start_round(self) -> tuple[RoundState, int]:
        """A running round and the fencing token of its trainer."""
        token = self.store.lease.acquire(self.base, "test", lease_seconds=60)
        assert token is not None
        started = self.store.rounds.start(
            self.base,
            None,
            trigger=Trigger.REQUEST,
            seed=0,
            steps=1,
            config={},
            votes=[],
            parent_version=0,
            token=token,
        )
        return started, token

    def publish(
        self,
        weights: AdapterWeights,
        manifest: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        vote_ids: Sequence[int] = (),
        parent: int = 0,
    ) -> AdapterRef:
        """Publish as a round does: staged on disk, then recorded and made live."""
        started, token = self.start_round()
        root, version = self.store.adapters.root(self.base), self.store.adapters.next_version(self.base)
        staged = write_adapter(root, version, weights.tensors, weights.spec, manifest or {})
        adapter = NewAdapter(
            parent, staged.folder_name, staged.sha256, proven=True, metrics=metrics or {}, vote_ids=vote_ids
        )
        published = self.store.rounds.publish(started.id, adapter, token=token)
        self.store.lease.release(self.base, token)
        return published

    def damage(self, adapter: AdapterRef) -> None:
        """Flip one bit of a published adapter's weights."""
        path = adapter.folder / "pytorch_lora_weights.safetensors"
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(bytes(data))
