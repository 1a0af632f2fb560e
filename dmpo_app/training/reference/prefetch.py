"""Prefetching of reference errors while the trainer has nothing else to do, so that a round finds them in the cache.

A third of a step's time is the base model's pass; people need minutes for the votes of a round, the trainer seconds
for their references.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import torch

from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.diffusion.lora import LoraSpec
from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.domain.round import TrainingVote
from dmpo_app.domain.vote import Question
from dmpo_app.settings import RoundSettings
from dmpo_app.store import Store
from dmpo_app.training.data.dataset import PairDataset, TensorFiles, build_dataset
from dmpo_app.training.data.slots import Example
from dmpo_app.training.reference.calibration import MAX_PAIRS, calibrate_betas
from dmpo_app.training.reference.denoising_errors import PairErrors
from dmpo_app.training.reference.reference_cache import ReferenceCache, cache_key

_SAVE_SECONDS = 10.0


def reference_folder(home: Path) -> Path:
    """The folder of the reference errors in a home."""
    return home / "references"


def numerics_key(
    denoiser: Denoiser,
    dataset: PairDataset,
    settings: RoundSettings,
    *,
    base_fingerprint: str,
    micro_pairs: int,
    compiled_with: LoraSpec | None = None,
) -> str:
    """Compute the cache key of reference errors from all that decides their values to the last bit.

    `compiled_with` is the adapter that a compiled denoiser has, None for an ordinary one.
    """
    device = denoiser.device
    cpu = torch.device("cpu")
    conditioning = {name: list(tensor.shape[1:]) for name, tensor in dataset.conditioning([0], cpu).items()}
    # Only where they are not as usual, so that what was computed before there was a choice is still found.
    non_default: dict[str, str | float | list[float]] = {}
    if settings.timestep_sampling != "uniform":
        non_default["timesteps"] = settings.timestep_sampling
        non_default["timestep_density"] = [settings.timestep_mean, settings.timestep_scale]
    if settings.error_weighting != "none":
        non_default["error_weighting"] = settings.error_weighting
    if settings.caption_dropout > 0:
        non_default["caption_dropout"] = settings.caption_dropout
    if compiled_with is not None:
        non_default["compiled"] = compiled_with.to_metadata()
    return cache_key(
        **non_default,
        base_model=base_fingerprint,
        latents=list(dataset.latents([0], cpu)[0].shape[1:]),
        **conditioning,
        micro_pairs=micro_pairs,
        slots=settings.slots_per_pair,
        slot_seed=settings.seed,
        dtype=f"torch.{denoiser.precision}",
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        cpu=torch.backends.cpu.get_cpu_capability(),
        num_threads=torch.get_num_threads(),
        torch=torch.__version__,
    )


class RoundFiles(Protocol):
    """Protocol of a home's files; a store implements it, and so does a process without a database."""

    @property
    def home(self) -> Path: ...

    @property
    def files(self) -> TensorFiles: ...


def calibrate_settings(
    store: RoundFiles, base: BaseModelRef, denoiser: Denoiser, settings: RoundSettings, votes: Sequence[TrainingVote]
) -> RoundSettings:
    """Calibrate the betas that are not set for a round on `votes`. Raises RoundFailedError, StorageFullError.

    Expects the denoiser without an adapter. The errors computed for it are cached for the round.
    """
    dataset = build_dataset(_votes_on_first_pairs(votes), store.files, alpha=settings.alpha)
    key = numerics_key(denoiser, dataset, settings, base_fingerprint=base.fingerprint, micro_pairs=settings.batch_pairs)
    cache = ReferenceCache.load(reference_folder(store.home), key)
    num_cached = len(cache)
    errors = PairErrors.from_settings(denoiser, dataset, cache, settings)
    calibrated = calibrate_betas(settings, errors)
    if len(cache) > num_cached:
        cache.save(reference_folder(store.home), key)
    return calibrated


def _votes_on_first_pairs(votes: Sequence[TrainingVote]) -> list[TrainingVote]:
    first_pair_ids = set(sorted({vote.pair_id for vote in votes})[:MAX_PAIRS])
    return [vote for vote in votes if vote.pair_id in first_pair_ids]


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
