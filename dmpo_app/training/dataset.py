"""The votes as tensors: one row a pair, with the probability its voters ask for, split by prompt.

Shapes:  N pairs;  P prompts, each once;  C H W latent channels, height, width.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from dmpo_app.diffusion.families.protocol import Conditioning
from dmpo_app.diffusion.tensor_files import load_conditioning, load_latents
from dmpo_app.domain import Outcome, TrainingVote
from dmpo_app.errors import RoundFailed
from dmpo_app.objective import soft_target
from dmpo_app.training.slots import keyed_seed

_WINS_OF_A = {Outcome.A: 1.0, Outcome.B: 0.0, Outcome.TIE: 0.5}


class TensorFiles(Protocol):
    """Where the bytes named by a vote's hashes are; the store's files fit."""

    def read_latents(self, sha256: str) -> bytes: ...

    def read_embeds(self, sha256: str) -> bytes: ...


@dataclass(frozen=True, slots=True)
class PairDataset:
    """Judged pairs. Latents are float32, in the scaled space that the denoiser works in.

    `targets` is q, the probability asked for that image a wins, and `weights` the number of votes behind it. Encoded
    prompts stand here once each, in the dtype they were stored in and wherever they are: with a T5 encoder one takes
    megabytes. `prompt_rows` says which one belongs to a pair.
    """

    pair_ids: tuple[int, ...]
    prompts: tuple[str, ...]
    latents_a: Tensor  # (N, C, H, W)
    latents_b: Tensor  # (N, C, H, W)
    conditioning: Conditioning  # tensors of (P, ...)
    prompt_rows: tuple[int, ...]  # (N,)
    targets: Tensor  # (N,)
    weights: Tensor  # (N,)

    def __len__(self) -> int:
        return len(self.pair_ids)

    def to(self, device: torch.device) -> PairDataset:
        """The same pairs on `device`; the encoded prompts stay where they are."""
        names = ("latents_a", "latents_b", "targets", "weights")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})

    def conditioning_of(self, pairs: Sequence[int]) -> Conditioning:
        """The encoded prompts of some pairs (indices into this dataset), tensors of (len(pairs), ...), beside the
        latents."""
        rows = torch.tensor([self.prompt_rows[pair] for pair in pairs])
        return {name: tensor[rows].to(self.latents_a.device) for name, tensor in self.conditioning.items()}

    @property
    def num_votes(self) -> int:
        return int(self.weights.sum())


def is_held_out(prompt: str, *, share: float, seed: int) -> bool:
    """Whether the votes on this prompt judge rounds instead of training them.

    Decided by the prompt's text and the lineage's seed alone, so a prompt stays on its side as votes come in: what a
    later version is judged by, no earlier version has been trained on. Over many prompts a `share` is held out.
    """
    return keyed_seed(seed, "held out", prompt) < share * 2**63


def split_votes(votes: Sequence[TrainingVote], *, share: float, seed: int) -> list[tuple[int, bool]]:
    """(vote id, held out) of every vote, in order. When all would be held out, all are trained on instead."""
    sides = [(vote.vote_id, is_held_out(vote.prompt, share=share, seed=seed)) for vote in votes]
    if all(held_out for _, held_out in sides):
        return [(vote_id, False) for vote_id, _ in sides]
    return sides


def build_dataset(votes: Iterable[TrainingVote], files: TensorFiles, *, alpha: float) -> PairDataset:
    """Gather votes by pair, in the order of the pairs' ids, and read their tensors.

    Raises RoundFailed when there is none or their tensors do not fit together, StudioError when a file is damaged.
    """
    votes_of_pair: dict[int, list[TrainingVote]] = defaultdict(list)
    for vote in votes:
        votes_of_pair[vote.pair_id].append(vote)
    if not votes_of_pair:
        raise RoundFailed("there is no vote to train on; a round needs at least one left, right or tie")
    groups = [votes_of_pair[pair_id] for pair_id in sorted(votes_of_pair)]
    firsts = [group[0] for group in groups]
    rows = {sha: row for row, sha in enumerate(dict.fromkeys(vote.prompt_embeds for vote in firsts))}
    wins = torch.tensor([sum(_WINS_OF_A[vote.outcome] for vote in group) for group in groups])
    counts = torch.tensor([float(len(group)) for group in groups])
    return PairDataset(
        pair_ids=tuple(vote.pair_id for vote in firsts),
        prompts=tuple(vote.prompt for vote in firsts),
        latents_a=_stack([load_latents(files.read_latents(v.latents_a)).float() for v in firsts], "latents"),
        latents_b=_stack([load_latents(files.read_latents(v.latents_b)).float() for v in firsts], "latents"),
        conditioning=stack_conditioning([load_conditioning(files.read_embeds(sha)) for sha in rows]),
        prompt_rows=tuple(rows[vote.prompt_embeds] for vote in firsts),
        targets=soft_target(wins, counts, alpha=alpha),
        weights=counts,
    )


def votes_among(votes: Iterable[TrainingVote], vote_ids: Collection[int]) -> list[TrainingVote]:
    """Those of `votes` whose id is wanted."""
    wanted = set(vote_ids)
    return [vote for vote in votes if vote.vote_id in wanted]


def stack_conditioning(prompts: Sequence[Conditioning]) -> Conditioning:
    """One tensor of (P, ...) for each name. Raises RoundFailed when the prompts' tensors do not fit together."""
    names = {tuple(sorted(prompt)) for prompt in prompts}
    if len(names) > 1:
        raise RoundFailed(f"the votes' encoded prompts hold different tensors {sorted(names)}; was the model changed?")
    stacked: dict[str, Tensor] = {}
    for name in sorted(prompts[0]):
        tensors = [prompt[name] for prompt in prompts]
        same = len({tensor.dtype for tensor in tensors}) == 1  # not after a change of DMPO_RENDER__DTYPE
        stacked[name] = _stack(tensors if same else [tensor.float() for tensor in tensors], "encoded prompts")
    return stacked


def _stack(tensors: Sequence[Tensor], what: str) -> Tensor:
    shapes = {tuple(tensor.shape) for tensor in tensors}
    if len(shapes) > 1:
        raise RoundFailed(f"the votes' {what} have different shapes {sorted(shapes)}; was the resolution changed?")
    return torch.stack(list(tensors))
