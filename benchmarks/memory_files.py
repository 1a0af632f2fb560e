"""Pairs whose tensors are in memory instead of a store: for benchmarks that train without a database."""

from collections.abc import Sequence

import torch

from dmpo_app.domain.lineage import NewPair
from dmpo_app.objective import soft_target
from dmpo_app.training.data.dataset import PairDataset, PairFiles, PairTensors


class MemoryPairs:
    """A pair's id is its place among `pairs`; that and a letter name its tensors."""

    def __init__(self, pairs: Sequence[NewPair]) -> None:
        self._pairs = pairs
        self._tensors = PairTensors(self)

    def dataset(
        self, ids: Sequence[int], wins_a: Sequence[float], *, alpha: float, num_votes: Sequence[float] | None = None
    ) -> PairDataset:
        """A dataset of the pairs of these ids with one vote each: 1 for image a, 0 for b, 0.5 a tie.

        With `num_votes` each has so many (weighted) votes, of which `wins_a` were for image a.
        """
        counts = torch.ones(len(ids)) if num_votes is None else torch.tensor(num_votes)
        return PairDataset(
            pair_ids=tuple(ids),
            prompts=tuple(self._pairs[index].prompt for index in ids),
            files=tuple(PairFiles(f"{index}a", f"{index}b", f"{index}p") for index in ids),
            targets=soft_target(torch.tensor(wins_a), counts, alpha=alpha),
            weights=counts,
            vote_shares=torch.tensor(wins_a) / counts,
            tensors=self._tensors,
        )

    def read_latents(self, sha256: str) -> bytes:
        pair = self._pairs[int(sha256[:-1])]
        latents = (pair.image_a if sha256.endswith("a") else pair.image_b).latents
        if latents is None:
            raise RuntimeError(f"pair {sha256[:-1]} came without latents")
        return latents

    def read_embeds(self, sha256: str) -> bytes:
        return self._pairs[int(sha256[:-1])].prompt_embeds
