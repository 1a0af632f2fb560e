"""The dataset of a round: pairs with soft targets from votes and scorers, split by prompt.

Shapes:  N pairs of the data set;  B pairs of a batch;  C H W latent channels, height, width.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from dmpo_app.diffusion.families.protocol import Conditioning
from dmpo_app.diffusion.tensor_files import load_conditioning, load_latents
from dmpo_app.domain.lineage import TrainingPair, TrainingVote
from dmpo_app.domain.vote import Outcome
from dmpo_app.errors import RoundFailedError
from dmpo_app.objective import graded_win, mixed_target, soft_target
from dmpo_app.training.data import training_examples

CACHE_BYTES = 512 << 20


class TensorFiles(Protocol):
    """Protocol of files by content hash; the store's files implement it."""

    def read_latents(self, sha256: str) -> bytes: ...

    def read_embeds(self, sha256: str) -> bytes: ...


class RoundFiles(Protocol):
    """Protocol of a home's files; a store implements it, and so does a process without a database."""

    @property
    def home(self) -> Path: ...

    @property
    def files(self) -> TensorFiles: ...


@dataclass(frozen=True, slots=True)
class PairFiles:
    """The hashes of a pair's files."""

    latents_a: str
    latents_b: str
    prompt_embeds: str


class PairTensors:
    """Reader of tensor files with an LRU cache of up to `cache_bytes`.

    Everything stays in the dtype it was stored in, on the CPU; what comes out is on `device`. Raises RoundFailedError
    when the tensors of one batch do not fit together, DamagedFileError when a file is damaged or gone.
    """

    def __init__(self, files: TensorFiles, *, cache_bytes: int = CACHE_BYTES) -> None:
        self._files = files
        self._cache: OrderedDict[str, Conditioning] = OrderedDict()
        self._free_bytes = cache_bytes

    def latents(self, pairs: Sequence[PairFiles], device: torch.device) -> tuple[Tensor, Tensor]:
        """Read the latents of images a and b, float32 (B, C, H, W), in the scaled space that the denoiser works in."""
        a, b = (
            _stack([self._latents(sha256).float() for sha256 in side], "latents")
            for side in ([pair.latents_a for pair in pairs], [pair.latents_b for pair in pairs])
        )
        if a.shape != b.shape:
            raise _shape_mismatch("latents", {tuple(a.shape[1:]), tuple(b.shape[1:])})
        return a.to(device), b.to(device)

    def conditioning(self, prompts: Sequence[PairFiles | Conditioning], device: torch.device) -> Conditioning:
        """Read the encoded prompts of pairs, beside those that are loaded already; tensors of (B, ...)."""
        encoded_prompts = [
            self._conditioning(prompt.prompt_embeds) if isinstance(prompt, PairFiles) else prompt for prompt in prompts
        ]
        return {name: tensor.to(device) for name, tensor in stack_conditioning(encoded_prompts).items()}

    def _latents(self, sha256: str) -> Tensor:
        return self._get_or_load(sha256, lambda: {"latents": load_latents(self._files.read_latents(sha256))})["latents"]

    def _conditioning(self, sha256: str) -> Conditioning:
        return self._get_or_load(sha256, lambda: load_conditioning(self._files.read_embeds(sha256)))

    def _get_or_load(self, sha256: str, load: Callable[[], Conditioning]) -> Conditioning:
        tensors = self._cache.get(sha256)
        if tensors is None:
            tensors = self._cache[sha256] = load()
            self._free_bytes -= _num_bytes(tensors)
            while self._free_bytes < 0 and len(self._cache) > 1:
                self._free_bytes += _num_bytes(self._cache.popitem(last=False)[1])
        self._cache.move_to_end(sha256)
        return tensors


def stack_conditioning(prompts: Sequence[Conditioning]) -> Conditioning:
    """Stack prompts into one tensor of (B, ...) for each name.

    Raises RoundFailedError when they do not fit together.
    """
    names = {tuple(sorted(prompt)) for prompt in prompts}
    if len(names) > 1:
        raise RoundFailedError(
            f"the votes' encoded prompts hold different tensors {sorted(names)}; was the model changed?"
        )
    stacked: dict[str, Tensor] = {}
    for name in sorted(prompts[0]):
        tensors = [prompt[name] for prompt in prompts]
        same = len({tensor.dtype for tensor in tensors}) == 1  # not after a change of DMPO_RENDER__DTYPE
        stacked[name] = _stack(tensors if same else [tensor.float() for tensor in tensors], "encoded prompts")
    return stacked


def _stack(tensors: Sequence[Tensor], tensor_kind: str) -> Tensor:
    shapes = {tuple(tensor.shape) for tensor in tensors}
    if len(shapes) > 1:
        raise _shape_mismatch(tensor_kind, shapes)
    return torch.stack(list(tensors))


def _shape_mismatch(tensor_kind: str, shapes: set[tuple[int, ...]]) -> RoundFailedError:
    return RoundFailedError(
        f"the votes' {tensor_kind} have different shapes {sorted(shapes)}; was the resolution changed?"
    )


def _num_bytes(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


_VotesOfPair = Mapping[int, Sequence[TrainingVote]]
_WINS_OF_A = {Outcome.A: 1.0, Outcome.B: 0.0, Outcome.TIE: 0.5}


@dataclass(frozen=True, slots=True)
class PairDataset:
    """Dataset of pairs. Their targets and weights are in memory, their tensors are read batch by batch.

    `targets` is q, the probability asked for that image a wins; `weights` what a pair counts, which is the weight of
    the votes behind it; `vote_shares` the share of these votes that are for image a, a tie one half, without alpha and
    without scorers; 0.5 where there are no votes. All float32 (N,) on the CPU. `pairs` below are indices into the data
    set. The weight of a ranking that is learnt from as a whole is with its first link, and 0 with the others.
    """

    pair_ids: tuple[int, ...]
    prompts: tuple[str, ...]
    files: Sequence[PairFiles]
    targets: Tensor
    weights: Tensor
    vote_shares: Tensor
    tensors: PairTensors
    rankings: training_examples.WholeRankings = field(default_factory=training_examples.WholeRankings)

    def __len__(self) -> int:
        return len(self.pair_ids)

    def latents(self, pairs: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
        """Read the latents of images a and b, float32 (B, C, H, W); raises like `PairTensors`."""
        return self.tensors.latents([self.files[pair] for pair in pairs], device)

    def conditioning(self, prompts: Sequence[int | Conditioning], device: torch.device) -> Conditioning:
        """Read the encoded prompts of pairs, or take others in their places; tensors of (B, ...)."""
        prompt_sources = [self.files[prompt] if isinstance(prompt, int) else prompt for prompt in prompts]
        return self.tensors.conditioning(prompt_sources, device)


@dataclass(frozen=True, slots=True)
class AutomaticEvidence:
    """The evidence of automatic scorers: `targets` by pair id, and pairs without votes to learn from too.

    `human_share` is the weight w of the votes where there are any; a pair without counts 1 - w.
    """

    human_share: float = 1.0
    targets: Mapping[int, float] = field(default_factory=dict)
    unjudged: Sequence[TrainingPair] = ()


def build_dataset(
    votes: Iterable[TrainingVote],
    files: TensorFiles,
    *,
    alpha: float,
    annotator_weight: Callable[[int], float] = lambda _: 1.0,
    automatic: AutomaticEvidence | None = None,
    learn_whole_rankings: bool = False,
) -> PairDataset:
    """Build the dataset of votes, grouped by pair, in the order of the pairs' ids. No tensor is read.

    A ranking is taken as the pairs of its images, whose targets are those of whole votes and whose weights add up to
    that of one; or, with `learn_whole_rankings`, as the pairs of neighbours that `build_whole_rankings` needs.
    Scorers have no say on a whole ranking.

    Args:
        alpha: softness of the targets, see `objective.soft_target`.
        annotator_weight: what a vote of an annotator (by id) counts, >= 0; 1 for everybody unless told otherwise.
        automatic: evidence of scorers, mixed in as `objective.mixed_target` says.

    Raises RoundFailedError when there is no pair at all.
    """
    evidence = automatic or AutomaticEvidence()
    votes_of_pair: dict[int, list[TrainingVote]] = defaultdict(list)
    for vote in training_examples.split_rankings(votes, only_neighbours=learn_whole_rankings):
        votes_of_pair[vote.pair_id].append(vote)
    pairs: dict[int, TrainingPair | TrainingVote] = {pair.id: pair for pair in evidence.unjudged}
    pairs |= {pair_id: group[0] for pair_id, group in votes_of_pair.items()}
    if not pairs:
        raise RoundFailedError("there is no vote to train on; a round needs at least one left, right or tie")
    ids = tuple(sorted(pairs))
    counts, wins = _count_votes(ids, votes_of_pair, annotator_weight)
    targets, weights = _targets(ids, wins, counts, evidence, alpha=alpha)
    weights *= _shares(ids, votes_of_pair, only_neighbours=learn_whole_rankings)
    rankings = training_examples.WholeRankings()
    if learn_whole_rankings:
        rankings = training_examples.build_whole_rankings(
            ids, votes_of_pair, alpha=alpha, annotator_weight=annotator_weight
        )
    return PairDataset(
        pair_ids=ids,
        prompts=tuple(pairs[pair_id].prompt for pair_id in ids),
        files=tuple(_pair_files(pairs[pair_id]) for pair_id in ids),
        targets=targets,
        weights=weights,
        vote_shares=torch.where(counts > 0, wins / counts.clamp(min=torch.finfo(counts.dtype).tiny), 0.5),
        tensors=PairTensors(files),
        rankings=rankings,
    )


def _count_votes(
    ids: Sequence[int], votes_of_pair: _VotesOfPair, annotator_weight: Callable[[int], float]
) -> tuple[Tensor, Tensor]:
    """Count the weighted votes on each pair, and those of them for image a."""
    weighted_votes = [
        [
            (annotator_weight(vote.annotator_id), graded_win(_WINS_OF_A[vote.outcome], vote.strength))
            for vote in votes_of_pair.get(pair_id, ())
        ]
        for pair_id in ids
    ]
    counts = torch.tensor([sum((weight for weight, _ in votes), 0.0) for votes in weighted_votes])
    wins = torch.tensor([sum((weight * win for weight, win in votes), 0.0) for votes in weighted_votes])
    return counts, wins


def _shares(ids: Sequence[int], votes_of_pair: _VotesOfPair, *, only_neighbours: bool) -> Tensor:
    """The factor of each pair's weight: all votes on a pair are rankings of one set, or none is."""
    first_votes = [next(iter(votes_of_pair.get(pair_id, ())), None) for pair_id in ids]
    return torch.tensor(
        [
            training_examples.vote_share_per_pair(vote, only_neighbours=only_neighbours) if vote else 1.0
            for vote in first_votes
        ]
    )


def _targets(
    ids: Sequence[int], wins: Tensor, counts: Tensor, evidence: AutomaticEvidence, *, alpha: float
) -> tuple[Tensor, Tensor]:
    human = soft_target(wins, counts, alpha=alpha)
    has_score = torch.tensor([pair_id in evidence.targets for pair_id in ids])
    automatic = torch.tensor([evidence.targets.get(pair_id, 0.5) for pair_id in ids])
    mixed = mixed_target(human, counts, automatic, human_share=evidence.human_share, alpha=alpha)
    weights = torch.where(counts > 0, counts, torch.tensor(1 - evidence.human_share))
    return torch.where(has_score, mixed, human), weights


def _pair_files(pair: TrainingPair | TrainingVote) -> PairFiles:
    return PairFiles(pair.latents_a, pair.latents_b, pair.prompt_embeds)


def is_held_out(prompt: str, *, share: float, seed: int) -> bool:
    """True for prompts whose votes evaluate rounds instead of training them.

    Decided by the prompt's text and the lineage's seed alone, so a prompt stays on its side as votes come in: what a
    later version is judged by, no earlier version has been trained on. Over many prompts a `share` is held out.
    """
    return training_examples.keyed_seed(seed, "held out", prompt) < share * 2**63


def split_votes(votes: Sequence[TrainingVote], *, share: float, seed: int) -> list[tuple[int, bool]]:
    """Split votes by prompt: (vote id, held out) of each, in order. When all would be held out, none is."""
    split = [(vote.vote_id, is_held_out(vote.prompt, share=share, seed=seed)) for vote in votes]
    if all(held_out for _, held_out in split):
        return [(vote_id, False) for vote_id, _ in split]
    return split


def filter_votes(votes: Iterable[TrainingVote], vote_ids: Collection[int]) -> list[TrainingVote]:
    """Select the votes with these ids."""
    vote_id_set = set(vote_ids)
    return [vote for vote in votes if vote.vote_id in vote_id_set]
