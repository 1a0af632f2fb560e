"""The live policy's margins on pairs that nobody has judged, computed while the trainer has nothing else to do.

What annotators are shown can then follow from what the policy is least sure of (`labeling.strategy = uncertainty`).
"""

from __future__ import annotations

import torch

from dmpo_app.diffusion.adapter_files import read_adapter
from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.diffusion.lora import attach, detach, load_state_in_place
from dmpo_app.domain import BASE_VERSION, BaseModelRef
from dmpo_app.settings import RoundSettings
from dmpo_app.store import Store
from dmpo_app.training.dataset import AutomaticEvidence, build_dataset
from dmpo_app.training.denoising import PairErrors
from dmpo_app.training.reference_cache import ReferenceCache
from dmpo_app.training.slots import Draw, evaluation_slots


class MarginFiller:
    """Fills the margins of unjudged pairs under the live version, a batch at a time. Expects the denoiser without an
    adapter, and leaves it so."""

    def __init__(self, store: Store, base: BaseModelRef, denoiser: Denoiser, settings: RoundSettings) -> None:
        self._store = store
        self._base = base
        self._denoiser = denoiser
        self._settings = settings

    def fill(self) -> bool:
        """One batch; False when there is nothing to do. The base model prefers nothing: all its margins are 0.

        Raises AdapterProblem, StorageFull.
        """
        version = self._store.adapters.live_version(self._base)
        if version == BASE_VERSION:
            return False
        pair_ids = self._store.pair_margins.missing(self._base, version, limit=self._settings.batch_pairs)
        pairs = self._store.pairs.for_training(self._base, ids=pair_ids)
        if not pairs:
            return False
        evidence = AutomaticEvidence(unjudged=tuple(pairs))
        dataset = build_dataset([], self._store.files, alpha=self._settings.alpha, automatic=evidence)
        errors = PairErrors.of(self._denoiser, dataset, ReferenceCache(), self._settings)
        margins = self._margins(errors, version)
        self._store.pair_margins.put(version, dict(zip(dataset.pair_ids, margins, strict=True)))
        return True

    def _margins(self, errors: PairErrors, version: int) -> list[float]:
        """u at beta = 1 of each pair, averaged over the slots that held-out votes are looked at in."""
        slots = evaluation_slots(self._settings.slots_per_pair)
        pairs = range(len(errors.dataset))
        draws = [Draw(pair, slot) for slot in slots for pair in pairs]
        errors.compute_references(draws, batch_pairs=len(pairs))
        published = self._store.adapters.get(self._base, version)
        adapter = read_adapter(published.folder, published.sha256)
        parameters = attach(self._denoiser.module, adapter.spec, seed=0)
        try:
            load_state_in_place(parameters, adapter.tensors)
            with torch.no_grad():
                by_slot = [errors.terms([Draw(pair, slot) for pair in pairs]).margin(1.0) for slot in slots]
        finally:
            detach(self._denoiser.module)
        return [float(margin) for margin in torch.stack(by_slot).mean(0)]
