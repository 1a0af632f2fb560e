"""Automatic scorers as evidence in a round: scoring the pairs' images, and the targets from the scores.

Scores are kept in the store, so an image is scored once by a scorer however many rounds use it. What a round uses is
fixed when it starts and stands in its record: which scorers with which weights, and which pairs without votes.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
from PIL import Image

from dmpo_app.domain.lineage import BaseModelRef, TrainingPair, TrainingVote
from dmpo_app.errors import BadInputError, DamagedFileError, RoundFailedError, SetupError
from dmpo_app.objective import score_target
from dmpo_app.scoring.registry import Scorer, build_scorer
from dmpo_app.settings import ScorerSettings, ScoringSettings
from dmpo_app.store import Store
from dmpo_app.training.data.dataset import AutomaticEvidence

_BATCH = 32


@dataclass(frozen=True, slots=True)
class RoundScorer:
    """A scorer of a round: `identity` names its weights, `temperature` is tau, `weight` its share among scorers."""

    identity: str
    temperature: float
    weight: float


@dataclass(frozen=True, slots=True)
class AutomaticPlan:
    """The scorers of a round; `unjudged` are ids of pairs without votes that it learns from too.

    `unscored`: ids of pairs with a damaged image, on which the votes alone have a say.
    """

    human_share: float
    scorers: tuple[RoundScorer, ...]
    unjudged: tuple[int, ...]
    unscored: tuple[int, ...] = ()

    def to_config(self) -> dict[str, Any]:
        """Serialize for the round's record."""
        return asdict(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Inverse of `to_config`, also after JSON."""
        scorers = tuple(RoundScorer(**scorer) for scorer in config["scorers"])
        return cls(config["human_share"], scorers, tuple(config["unjudged"]), tuple(config.get("unscored", ())))


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
    """Score the images that the store has no score of yet; None when the settings name no scorer.

    `may_train_on` says of a prompt whether its pairs without votes may be learnt from. `heartbeat` is called between
    batches and may raise. One scorer at a time is in memory, and none afterwards. Raises RoundFailedError when a scorer
    cannot be had.
    """
    if not settings.scorers:
        return None
    voted_pair_ids = sorted({vote.pair_id for vote in votes})
    unjudged = [
        pair
        for pair in store.pairs.for_training(base, unjudged=settings.unjudged_pairs)
        if may_train_on(pair.prompt) and pair.id not in set(voted_pair_ids)
    ]
    pairs = store.pairs.for_training(base, ids=voted_pair_ids) + unjudged
    round_scorers, damaged_images = [], set[int]()
    for scorer_settings in settings.scorers:
        scorer = _build(scorer_settings, device, settings.batch_size)
        damaged_images |= _score_missing(store, scorer, pairs, heartbeat)
        round_scorers.append(
            RoundScorer(scorer.identity, scorer_settings.temperature or scorer.scale, scorer_settings.weight)
        )
    unscored = {pair.id for pair in pairs if not damaged_images.isdisjoint((pair.image_a, pair.image_b))}
    return AutomaticPlan(
        settings.human_share,
        tuple(round_scorers),
        tuple(pair.id for pair in unjudged if pair.id not in unscored),
        tuple(sorted(unscored)),
    )


def compute_evidence(
    store: Store, base: BaseModelRef, plan: AutomaticPlan, voted_pair_ids: Sequence[int]
) -> AutomaticEvidence:
    """Compute the scores' targets for the round's pairs: the weighted mean over scorers of sigmoid((r_a - r_b)/tau).

    `voted_pair_ids` are ids of the pairs with votes. Raises RoundFailedError when a score has gone missing.
    """
    unjudged = store.pairs.for_training(base, ids=plan.unjudged)
    scored_pair_ids = sorted(set(voted_pair_ids).difference(plan.unscored))
    pairs = store.pairs.for_training(base, ids=scored_pair_ids) + unjudged
    total, targets = sum(scorer.weight for scorer in plan.scorers), torch.zeros(len(pairs), dtype=torch.float64)
    for scorer in plan.scorers:
        scores = store.scores.get(scorer.identity, [image for pair in pairs for image in (pair.image_a, pair.image_b)])
        try:
            a = torch.tensor([scores[pair.image_a] for pair in pairs], dtype=torch.float64)
            b = torch.tensor([scores[pair.image_b] for pair in pairs], dtype=torch.float64)
        except KeyError as error:
            raise RoundFailedError(
                f"image {error} has lost its score by {scorer.identity}; start another round"
            ) from error
        targets += scorer.weight / total * score_target(a, b, temperature=scorer.temperature)
    by_pair = {pair.id: float(target) for pair, target in zip(pairs, targets, strict=True)}
    return AutomaticEvidence(plan.human_share, by_pair, unjudged)


def _build(scorer_settings: ScorerSettings, device: str, batch_size: int) -> Scorer:
    try:
        return build_scorer(scorer_settings.name, source=scorer_settings.source, device=device, batch_size=batch_size)
    except (BadInputError, SetupError) as error:
        raise RoundFailedError(f"the scorer {scorer_settings.name} cannot be used: {error}") from error


def _score_missing(
    store: Store, scorer: Scorer, pairs: Sequence[TrainingPair], heartbeat: Callable[[], None]
) -> set[int]:
    """Score images without a score; returns the ids of those that are damaged, which is recorded."""
    images = {
        image_id: (sha256, pair.prompt)
        for pair in pairs
        for image_id, sha256 in ((pair.image_a, pair.png_a), (pair.image_b, pair.png_b))
    }
    stored_scores = store.scores.get(scorer.identity, list(images))
    missing = [image_id for image_id in images if image_id not in stored_scores]
    damaged: set[int] = set()
    for start in range(0, len(missing), _BATCH):
        heartbeat()
        batch: dict[int, Image.Image] = {}
        for image_id in missing[start : start + _BATCH]:
            try:
                batch[image_id] = _load_image(store, images[image_id][0])
            except DamagedFileError as error:
                store.damage.record(error)
                damaged.add(image_id)
        if batch:
            scores = scorer.score(list(batch.values()), [images[image_id][1] for image_id in batch])
            store.scores.put(scorer.identity, dict(zip(batch, map(float, scores), strict=True)))
    return damaged


def _load_image(store: Store, sha256: str) -> Image.Image:
    with Image.open(io.BytesIO(store.files.read_image(sha256))) as image:
        return image.convert("RGB")
