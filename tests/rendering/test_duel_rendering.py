"""Duels as they are rendered: planned for the versions compared now, made alike, and dropped when they say nothing."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dmpo_app.diffusion.adapter_files import AdapterWeights
from dmpo_app.diffusion.live_model import LiveModel
from dmpo_app.domain.vote import AssignmentRules, Choice
from dmpo_app.rendering.duel_planner import DuelPlan, DuelPlanner
from dmpo_app.rendering.engine import Engine
from dmpo_app.rendering.pool import NUM_PROMPTS, SEEDS
from dmpo_app.rendering.render_thread import BackgroundWork
from dmpo_app.store import utc_now
from tests.rendering.rendering_studio import HELD_OUT_PROMPTS, TRAIN_PROMPTS, RenderingStudio
from tests.rendering.test_engine import never
from tests.store.store_data import HOUR, new_pair

MakeAdapter = Callable[[int], AdapterWeights]
NUM_DUELS = 3


@pytest.fixture
def studio(tmp_path: Path, tiny_model: Path) -> Iterator[RenderingStudio]:
    studio = RenderingStudio.open(tmp_path / "home", tiny_model, num_duels=NUM_DUELS)
    yield studio
    studio.store.close()


@pytest.fixture
def engine(studio: RenderingStudio) -> Engine:
    return Engine.load(studio.store, studio.base, studio.settings)


def planner(studio: RenderingStudio) -> DuelPlanner:
    return DuelPlanner(studio.store, studio.base, studio.settings.judging, rng=random.Random(0))


def work(studio: RenderingStudio, engine: Engine) -> BackgroundWork:
    return BackgroundWork(engine, studio.store, studio.base, studio.settings, rng=random.Random(0), now=utc_now)


def duels_of(studio: RenderingStudio, *versions: int) -> int:
    one, other = versions
    return studio.store.duels.count_ready(studio.base, one, other)


def test_nothing_is_planned_without_a_version(studio: RenderingStudio) -> None:
    assert planner(studio).next_duel() is None


def test_duels_take_every_prompt_that_neither_version_was_trained_on_and_either_order(
    studio: RenderingStudio, adapter: MakeAdapter
) -> None:
    studio.publish(adapter(1))
    assert len(planner(studio).next_duels(100)) == NUM_DUELS
    many = DuelPlanner(
        studio.store,
        studio.base,
        studio.settings.judging.model_copy(update={"duels_ready": 90}),
        rng=random.Random(0),
    ).next_duels(100)
    assert Counter(plan.prompt for plan in many) == dict.fromkeys((*TRAIN_PROMPTS, *HELD_OUT_PROMPTS), 10)
    orders = Counter(plan.versions for plan in many)
    assert set(orders) == {(0, 1), (1, 0)}
    assert min(orders.values()) >= 30
    assert len({plan.seed for plan in many}) == len(many)


def test_the_comparison_that_lacks_the_most_duels_comes_first(
    studio: RenderingStudio, engine: Engine, adapter: MakeAdapter
) -> None:
    for seed in (1, 2):
        studio.publish(adapter(seed))
    plans = planner(studio)
    made: list[frozenset[int]] = []
    while (plan := plans.next_duel()) is not None:
        made.append(frozenset(plan.versions))
        assert engine.make_duel(plan, never)
    assert Counter(made) == {frozenset({2, 1}): NUM_DUELS, frozenset({2, 0}): NUM_DUELS}
    assert made[0] != made[1]


@pytest.mark.parametrize("versions", [(0, 1), (2, 1)])
def test_the_images_of_a_duel_differ_by_the_version_alone(
    studio: RenderingStudio, engine: Engine, adapter: MakeAdapter, versions: tuple[int, int]
) -> None:
    for seed in (1, 2):
        studio.publish(adapter(seed))
    engine.sync_live_version()
    assert engine.make_duel(DuelPlan(HELD_OUT_PROMPTS[0], 7, versions), never)
    (duel,) = studio.store.duels.list(studio.base)
    assert (duel.version_a, duel.version_b) == versions
    made_a, made_b = duel.image_a.provenance, duel.image_b.provenance
    different = {name for name in made_a.__dataclass_fields__ if getattr(made_a, name) != getattr(made_b, name)}
    assert different - {"strength"} == {"adapter_version"}, "the base model's is recorded as 0"
    assert duel.image_a.sha256 != duel.image_b.sha256
    assert duel.image_a.latents_sha256 is None
    assert engine.live_version == 2


def test_a_duel_with_an_image_that_the_safety_checker_flagged_is_dropped_and_its_prompt_left_alone_in_the_end(
    studio: RenderingStudio, engine: Engine, adapter: MakeAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio.publish(adapter(1))
    flag_everything(monkeypatch)
    plans, plan = planner(studio), DuelPlan("a red fox", 7, (1, 0))
    for _ in range(3):
        assert not engine.make_duel(plan, never)
        plans.record_refusal(plan)
    assert studio.store.duels.list(studio.base) == []
    planned = {one.prompt for _ in range(20) for one in plans.next_duels(NUM_DUELS)}
    assert planned == {*TRAIN_PROMPTS, *HELD_OUT_PROMPTS} - {"a red fox"}


def test_a_duel_whose_prompt_a_version_was_trained_on_meanwhile_is_dropped(
    studio: RenderingStudio, engine: Engine, adapter: MakeAdapter
) -> None:
    studio.store.pairs.add(studio.base, new_pair(prompt="a red fox"))
    anna = studio.store.annotators.ensure("anna")
    (shown,) = studio.store.assignments.issue(
        studio.base, anna.id, 1, rng=random.Random(0), lifetime=HOUR, rules=AssignmentRules()
    ).result()
    vote = studio.store.votes.record(shown.id, anna.id, Choice.LEFT, 10)
    studio.publish(adapter(1), vote_ids=[vote.vote_id])
    assert not engine.make_duel(DuelPlan("a red fox", 7, (1, 0)), never)
    planned = {one.prompt for _ in range(20) for one in planner(studio).next_duels(NUM_DUELS)}
    assert "a red fox" not in planned


def test_duels_come_after_the_contact_sheet_rest_while_a_round_trains_and_are_made_again_when_they_are_taken(
    studio: RenderingStudio, engine: Engine, adapter: MakeAdapter
) -> None:
    studio.damage(studio.publish(adapter(1)))
    studio.publish(adapter(2))
    started, token = studio.start_round()
    engine.sync_live_version()
    assert engine.shares_cpu
    background = work(studio, engine)
    while background.step(never):
        pass
    assert len(studio.store.images.contact_sheet(studio.base)) == 2 * NUM_PROMPTS * len(SEEDS)
    assert studio.store.duels.list(studio.base) == []
    studio.store.rounds.refuse(started.id, "done", token=token)
    while background.step(never):
        pass
    assert (duels_of(studio, 2, 0), duels_of(studio, 2, 1)) == (NUM_DUELS, 0), "version 1 cannot be loaded"
    anna = studio.store.annotators.ensure("anna")
    taken = studio.store.assignments.issue(
        studio.base, anna.id, 2, rng=random.Random(0), lifetime=HOUR, rules=AssignmentRules(duels_only=True)
    ).result()
    assert len(taken) == 2
    while background.step(never):
        pass
    assert len(studio.store.duels.list(studio.base)) == NUM_DUELS + 2


def flag_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model whose safety checker flags every image."""
    render = LiveModel.render

    def flagged(model: LiveModel, *args: object, **options: object) -> list[object]:
        return [replace(sample, flagged=True) for sample in render(model, *args, **options)]  # type: ignore[arg-type]

    monkeypatch.setattr(LiveModel, "render", flagged)
