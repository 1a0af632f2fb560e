"""Automatic scorers as evidence in a round: scoring the pairs' images, and what the scores ask of each pair.

Scores are kept in the store, so an image is scored once by a scorer however many rounds use it. What a round uses is
fixed when it starts and stands in its record: which scorers with which weights, and which unjudged pairs.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from PIL import Image

from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.domain.round import TrainingPair, TrainingVote
from dmpo_app.errors import BadInput, RoundFailed, SetupProblem
from dmpo_app.objective import score_target
from dmpo_app.scoring.protocol import Scorer
from dmpo_app.scoring.registry import build_scorer
from dmpo_app.settings import ScorerSettings, ScoringSettings
from dmpo_app.store import Store
from dmpo_app.training.data.dataset import AutomaticEvidence

_BATCH = 32


@dataclass(frozen=True, slots=True)
class UsedScorer:
    """A scorer in a round: `identity` names its weights, `temperature` is tau, `weight` its share among scorers."""

    identity: str
    temperature: float
    weight: float


@dataclass(frozen=True, slots=True)
class AutomaticPlan:
    """What a round takes from scorers; `unjudged` are ids of pairs without votes that it learns from too."""

    human_share: float
    scorers: tuple[UsedScorer, ...]
    unjudged: tuple[int, ...]

    def to_config(self) -> dict[str, Any]:
        """For the round's record."""
        return asdict(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> AutomaticPlan:
        """Inverse of `to_config`, also after JSON."""
        scorers = tuple(UsedScorer(**scorer) for scorer in config["scorers"])
        return cls(config["human_share"], scorers, tuple(config["unjudged"]))


def score_for_round(
    store: Store,
    base: BaseModelRef,
    settings: ScoringSettings,
    votes: Sequence[TrainingVote],
    *,
    may_train_on: Callable[[str], bool],
    device: str,
    heartbeat: Callable[[], None],
) -> AutomaticPlan | None:
    """Score what the store has no score of yet; None when no scorer is wanted.

    `may_train_on` says of a prompt whether its unjudged pairs may be learnt from. `heartbeat` is called between
    batches and may raise. One scorer at a time is in memory, and none afterwards. Raises RoundFailed when a scorer
    cannot be had.
    """
    if not settings.scorers:
        return None
    judged = sorted({vote.pair_id for vote in votes})
    unjudged = [
        pair
        for pair in store.pairs.for_training(base, unjudged=settings.unjudged_pairs)
        if may_train_on(pair.prompt) and pair.id not in set(judged)
    ]
    pairs = store.pairs.for_training(base, ids=judged) + unjudged
    used = []
    for wanted in settings.scorers:
        scorer = _build(wanted, device, settings.batch_size)
        _score_missing(store, scorer, pairs, heartbeat)
        used.append(UsedScorer(scorer.identity, wanted.temperature or scorer.scale, wanted.weight))
    return AutomaticPlan(settings.human_share, tuple(used), tuple(pair.id for pair in unjudged))


def evidence_of(store: Store, base: BaseModelRef, plan: AutomaticPlan, judged: Sequence[int]) -> AutomaticEvidence:
    """The scores of the round's pairs as probabilities: the weighted mean over its scorers of sigmoid((r_a - r_b)/tau).

    `judged` are ids of the pairs with votes. Raises RoundFailed when a score has gone missing.
    """
    unjudged = store.pairs.for_training(base, ids=plan.unjudged)
    pairs = store.pairs.for_training(base, ids=sorted(judged)) + unjudged
    total, targets = sum(scorer.weight for scorer in plan.scorers), torch.zeros(len(pairs), dtype=torch.float64)
    for scorer in plan.scorers:
        scores = store.scores.of_images(
            scorer.identity, [image for pair in pairs for image in (pair.image_a, pair.image_b)]
        )
        try:
            a = torch.tensor([scores[pair.image_a] for pair in pairs], dtype=torch.float64)
            b = torch.tensor([scores[pair.image_b] for pair in pairs], dtype=torch.float64)
        except KeyError as error:
            raise RoundFailed(f"image {error} has lost its score by {scorer.identity}; start another round") from error
        targets += scorer.weight / total * score_target(a, b, temperature=scorer.temperature)
    by_pair = {pair.id: float(target) for pair, target in zip(pairs, targets, strict=True)}
    return AutomaticEvidence(plan.human_share, by_pair, unjudged)


def _build(wanted: ScorerSettings, device: str, batch_size: int) -> Scorer:
    try:
        return build_scorer(wanted.name, source=wanted.source, device=device, batch_size=batch_size)
    except (BadInput, SetupProblem) as error:
        raise RoundFailed(f"the scorer {wanted.name} cannot be used: {error}") from error


def _score_missing(store: Store, scorer: Scorer, pairs: Sequence[TrainingPair], heartbeat: Callable[[], None]) -> None:
    images = {
        image_id: (sha256, pair.prompt)
        for pair in pairs
        for image_id, sha256 in ((pair.image_a, pair.png_a), (pair.image_b, pair.png_b))
    }
    known = store.scores.of_images(scorer.identity, list(images))
    missing = [image_id for image_id in images if image_id not in known]
    for start in range(0, len(missing), _BATCH):
        heartbeat()
        batch = missing[start : start + _BATCH]
        pictures = [_picture(store, images[image_id][0]) for image_id in batch]
        scores = scorer.score(pictures, [images[image_id][1] for image_id in batch])
        store.scores.put(scorer.identity, dict(zip(batch, map(float, scores), strict=True)))


def _picture(store: Store, sha256: str) -> Image.Image:
    with Image.open(io.BytesIO(store.files.read_image(sha256))) as image:
        return image.convert("RGB")
