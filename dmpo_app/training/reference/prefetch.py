"""Prefetching while the trainer has nothing else to do: reference errors, and margins on pairs without votes.

A third of a step's time is the base model's pass; people need minutes for the votes of a round, the trainer seconds
for their references. By the live policy's margins, assignments can prefer the pairs that it is least sure of
(`labeling.strategy = uncertainty`).
"""

import time
from collections.abc import Callable

import torch

from dmpo_app.diffusion.adapter_files import AdapterWeights, read_adapter
from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.diffusion.lora import attach, detach, load_state_in_place
from dmpo_app.domain.lineage import BASE_VERSION, BaseModelRef
from dmpo_app.domain.vote import Question
from dmpo_app.settings import RoundSettings
from dmpo_app.store import Store
from dmpo_app.training.data.dataset import AutomaticEvidence, build_dataset
from dmpo_app.training.data.training_examples import Example, evaluation_slots
from dmpo_app.training.reference.denoising_errors import PairErrors
from dmpo_app.training.reference.reference_cache import ReferenceCache, numerics_key, reference_folder

_SAVE_SECONDS = 10.0


class ReferencePrefetcher:
    """Prefetcher of the reference errors for the votes so far on a question, a batch at a time.

    Expects the denoiser without an adapter.
    """

    def __init__(
        self,
        store: Store,
        base: BaseModelRef,
        denoiser: Denoiser,
        settings: RoundSettings,
        *,
        question: Question = Question.OVERALL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._base = base
        self._denoiser = denoiser
        self._settings = settings
        self._question = question
        self._clock = clock
        self._last_vote_id = 0
        self._missing: list[Example] = []
        self._cache = ReferenceCache()
        self._key = ""
        self._unsaved_since: float | None = None

    def fill(self) -> bool:
        """Compute one batch of missing references; False when there is nothing to do. Raises StorageFullError."""
        if self._settings.compile:
            return False  # a round's references go through its own graph
        if not self._missing and not self._find_missing_references():
            self.save()
            return False
        size = self._settings.batch_pairs
        examples, self._missing = self._missing[:size], self._missing[size:]
        self._errors.compute_references(examples, batch_pairs=size)
        if self._unsaved_since is None:
            self._unsaved_since = self._clock()
        elif self._clock() - self._unsaved_since > _SAVE_SECONDS:
            self.save()
        return True

    def save(self) -> None:
        """Save the new errors to the cache that rounds read. Raises StorageFullError."""
        if self._unsaved_since is not None:
            self._cache.save(reference_folder(self._store.home), self._key)
            self._unsaved_since = None

    def _find_missing_references(self) -> bool:
        """Find missing references for new votes; True when there are any."""
        votes = self._store.votes.training_votes(self._base, question=self._question)
        last = votes[-1].vote_id if votes else 0
        if last <= self._last_vote_id:
            return False
        self._last_vote_id = last
        dataset = build_dataset(
            votes,
            self._store.files,
            alpha=self._settings.alpha,
            learn_whole_rankings=self._settings.learns_whole_rankings,
        )
        self._key = numerics_key(
            self._denoiser,
            dataset,
            self._settings,
            base_fingerprint=self._base.fingerprint,
            micro_pairs=self._settings.batch_pairs,
        )
        self._cache = ReferenceCache.load(reference_folder(self._store.home), self._key)
        self._errors = PairErrors.from_settings(self._denoiser, dataset, self._cache, self._settings)
        self._missing = self._errors.missing_references()
        return bool(self._missing)


class MarginPrefetcher:
    """Fills the margins of pairs without votes under the live version, a batch at a time.

    Expects the denoiser without an adapter, and leaves it so.
    """

    def __init__(self, store: Store, base: BaseModelRef, denoiser: Denoiser, settings: RoundSettings) -> None:
        self._store = store
        self._base = base
        self._denoiser = denoiser
        self._settings = settings

    def fill(self) -> bool:
        """Compute one batch; False when there is nothing to do. The base model prefers nothing: all its margins are 0.

        Raises AdapterError, StorageFullError.
        """
        version = self._store.adapters.live_version(self._base)
        if version == BASE_VERSION:
            return False
        pair_ids = self._store.pair_margins.list_missing(self._base, version, limit=self._settings.batch_pairs)
        pairs = self._store.pairs.for_training(self._base, ids=pair_ids)
        if not pairs:
            return False
        evidence = AutomaticEvidence(unjudged=tuple(pairs))
        dataset = build_dataset([], self._store.files, alpha=self._settings.alpha, automatic=evidence)
        errors = PairErrors.from_settings(self._denoiser, dataset, ReferenceCache(), self._settings)
        adapter_ref = self._store.adapters.get(self._base, version)
        adapter = read_adapter(adapter_ref.folder, adapter_ref.sha256)
        margins = policy_margins(self._denoiser, errors, adapter, self._settings)
        self._store.pair_margins.put(version, dict(zip(dataset.pair_ids, margins, strict=True)))
        return True


def policy_margins(
    denoiser: Denoiser, errors: PairErrors, adapter: AdapterWeights, settings: RoundSettings
) -> list[float]:
    """The margin u at beta = 1 of each pair under an adapter, averaged over the slots of evaluations.

    The denoiser comes without an adapter, and is left so. Reference errors that are missing are computed.
    """
    slots = evaluation_slots(settings.slots_per_pair)
    pairs, size = range(len(errors.dataset)), settings.batch_pairs
    batches = [
        [Example(pair, slot) for pair in pairs[start : start + size]] for slot in slots for start in pairs[::size]
    ]
    errors.compute_references([example for batch in batches for example in batch], batch_pairs=size)
    parameters = attach(denoiser.module, adapter.spec, seed=0)
    try:
        load_state_in_place(parameters, adapter.tensors)
        with torch.no_grad():
            margins = torch.cat([errors.terms(batch).margin(1.0) for batch in batches])
    finally:
        detach(denoiser.module)
    return [float(margin) for margin in margins.reshape(len(slots), -1).mean(0)]
