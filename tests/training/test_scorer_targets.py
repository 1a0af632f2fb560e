"""Scorers beside the votes: what is scored, what it asks of the pairs, and a round that uses it."""

import math
from collections.abc import Callable

import pytest

from dmpo_app.domain.lineage import RoundStatus
from dmpo_app.errors import LeaseLostError, RoundFailedError
from dmpo_app.scoring.registry import build_scorer
from dmpo_app.settings import ScorerSettings, ScoringSettings
from dmpo_app.training.data.dataset import is_held_out
from dmpo_app.training.rounds.round_plan import load_plan, start_round
from dmpo_app.training.rounds.scheduler import Tick
from dmpo_app.training.rounds.scorer_targets import AutomaticPlan, compute_evidence, score_for_round
from tests.training.scheduler_fixtures import MIN_VOTES, MakeScheduler
from tests.training.training_studio import FAST, TrainingStudio

BRIGHT = ScoringSettings(scorers=(ScorerSettings(name="brightness", temperature=0.1),), unjudged_pairs=100)


def score(
    studio: TrainingStudio, settings: ScoringSettings, heartbeat: Callable[[], None] = lambda: None
) -> AutomaticPlan:
    votes = studio.store.votes.training_votes(studio.base)
    plan = score_for_round(
        studio.store, studio.base, settings, votes, may_train_on=lambda _: True, device="cpu", heartbeat=heartbeat
    )
    assert plan is not None
    return plan


def test_every_image_is_scored_once_and_its_pairs_probability_follows(studio: TrainingStudio) -> None:
    studio.add_pairs(4)
    studio.vote(2)
    plan = score(studio, BRIGHT)
    assert len(plan.unjudged) == 2
    judged = [vote.pair_id for vote in studio.store.votes.training_votes(studio.base)]
    evidence = compute_evidence(studio.store, studio.base, plan, judged)
    assert sorted(evidence.targets) == sorted([*judged, *plan.unjudged])
    for pair in studio.store.pairs.for_training(studio.base, ids=judged):
        scores = studio.store.scores.get(plan.scorers[0].identity, [pair.image_a, pair.image_b])
        difference = (scores[pair.image_a] - scores[pair.image_b]) / 0.1
        assert evidence.targets[pair.id] == pytest.approx(1 / (1 + math.exp(-difference)))


def test_what_is_scored_already_is_not_scored_again(studio: TrainingStudio, monkeypatch: pytest.MonkeyPatch) -> None:
    from dmpo_app.scoring.registry import PixelScorer

    seen: list[int] = []
    original = PixelScorer.score

    def counting(self: PixelScorer, images: list[object], prompts: list[str]) -> object:
        seen.append(len(images))
        return original(self, images, prompts)  # type: ignore[arg-type]

    monkeypatch.setattr(PixelScorer, "score", counting)
    studio.add_pairs(3)
    studio.vote(3)
    score(studio, BRIGHT)
    studio.add_pairs(1)
    studio.vote(1)
    score(studio, BRIGHT)
    assert seen == [6, 2]


def test_a_pair_with_a_damaged_image_is_left_to_its_votes_and_the_round_goes_on(studio: TrainingStudio) -> None:
    studio.add_pairs(5)
    studio.vote(3)
    judged = [vote.pair_id for vote in studio.store.votes.training_votes(studio.base)]
    unjudged = next(number for number in range(1, 6) if number not in judged)
    for pair_id, side in ((judged[0], "png_a"), (unjudged, "png_b")):
        [files] = studio.store.pairs.for_training(studio.base, ids=[pair_id])
        studio.store.files.image_path(getattr(files, side)).unlink()
    plan = score(studio, BRIGHT)
    assert set(plan.unscored) == {judged[0], unjudged}
    assert unjudged not in plan.unjudged
    evidence = compute_evidence(studio.store, studio.base, AutomaticPlan.from_config(plan.to_config()), judged)
    assert sorted(evidence.targets) == sorted([*judged[1:], *plan.unjudged])
    assert {one.pair_id for one in studio.store.damage.list(studio.base)} == {judged[0], unjudged}


def test_several_scorers_are_weighed(studio: TrainingStudio) -> None:
    studio.add_pairs(1)
    studio.vote(1)
    settings = ScoringSettings(
        scorers=(ScorerSettings(name="brightness", weight=3.0), ScorerSettings(name="warmth", weight=1.0))
    )
    plan = score(studio, settings)
    assert [scorer.temperature for scorer in plan.scorers] == [
        build_scorer(name, source=None, device="cpu", batch_size=1).scale for name in ("brightness", "warmth")
    ]
    (pair_id,) = [vote.pair_id for vote in studio.store.votes.training_votes(studio.base)]
    alone = [
        compute_evidence(studio.store, studio.base, AutomaticPlan(0.5, (scorer,), ()), [pair_id]).targets[pair_id]
        for scorer in plan.scorers
    ]
    both = compute_evidence(studio.store, studio.base, plan, [pair_id]).targets[pair_id]
    assert both == pytest.approx(0.75 * alone[0] + 0.25 * alone[1])


def test_a_round_learns_from_votes_and_scores_and_records_which(
    studio: TrainingStudio, make_scheduler: MakeScheduler
) -> None:
    studio.add_pairs(20)
    studio.vote(MIN_VOTES)
    scheduler = make_scheduler(scoring=BRIGHT)
    assert scheduler.tick() is Tick.TRAINED
    state = studio.store.rounds.get(1)
    assert state.status is RoundStatus.PUBLISHED
    recorded = AutomaticPlan.from_config(state.config["automatic"])
    assert recorded.scorers[0].identity.startswith("brightness/")
    unjudged = studio.store.pairs.for_training(studio.base, unjudged=100)
    allowed = [pair.id for pair in unjudged if not is_held_out(pair.prompt, share=FAST.held_out_share, seed=FAST.seed)]
    assert list(recorded.unjudged) == allowed
    plan = load_plan(studio.store, studio.base, state)
    assert set(recorded.unjudged) < set(plan.train.pair_ids)
    assert plan.held_out is None or not set(recorded.unjudged) & set(plan.held_out.pair_ids)


def test_a_scorer_that_cannot_be_had_fails_the_round_and_says_why(
    studio: TrainingStudio, make_scheduler: MakeScheduler
) -> None:
    studio.add_pairs(10)
    studio.vote(MIN_VOTES)
    scheduler = make_scheduler(scoring=ScoringSettings(scorers=(ScorerSettings(name="hpsv2"),)))
    assert scheduler.tick() is Tick.FAILED
    reason = studio.store.rounds.get(1).reason
    assert reason is not None
    assert "hpsv2 cannot be used" in reason


def test_scoring_keeps_the_lease_and_ends_where_it_is_lost(studio: TrainingStudio) -> None:
    studio.add_pairs(2)
    studio.vote(2)

    def lost() -> None:
        raise LeaseLostError("another trainer")

    with pytest.raises(LeaseLostError):
        score(studio, BRIGHT, heartbeat=lost)


def test_a_round_whose_scores_are_gone_says_so(studio: TrainingStudio) -> None:
    studio.add_pairs(4)
    studio.vote(4)
    token = studio.store.lease.acquire(studio.base, "tests", lease_seconds=60)
    assert token is not None
    plan = AutomaticPlan(0.5, (score(studio, BRIGHT).scorers[0],), ())
    unknown = AutomaticPlan(0.5, (type(plan.scorers[0])("nobody/1/0", 1.0, 1.0),), ())
    studio.start(token=token)
    state = start_round(
        studio.store,
        studio.base,
        1,
        trigger=studio.store.rounds.get(1).trigger,
        settings=FAST,
        environment={},
        token=token,
        automatic=unknown,
    )
    assert "automatic" not in state.config  # the first start has fixed what the round uses
    with pytest.raises(RoundFailedError, match="nobody/1/0"):
        compute_evidence(studio.store, studio.base, unknown, [1])
