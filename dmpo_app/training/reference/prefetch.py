"""Prefetching of reference errors while the trainer has nothing else to do, so that a round finds them in the cache.

A third of a step's time is the base model's pass; people need minutes for the votes of a round, the trainer seconds
for their references.
"""

import time
from collections.abc import Callable

from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.domain.image import BaseModelRef
from dmpo_app.domain.vote import Question
from dmpo_app.settings import RoundSettings
from dmpo_app.store import Store
from dmpo_app.training.data.dataset import build_dataset
from dmpo_app.training.data.training_examples import Example
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
