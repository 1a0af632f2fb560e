import random
from collections.abc import Callable
from datetime import timedelta

import pytest

from dmpo_app.diffusion.adapter_files import AdapterWeights
from dmpo_app.domain.lineage import NewImage, NewPair, PairSource, Provenance
from dmpo_app.rendering.pool import LOW_POOL_SIZE, PoolPlanner
from dmpo_app.settings import PoolSettings
from dmpo_app.store import Store
from tests.rendering.rendering_studio import TRAIN_PROMPTS, RenderingStudio

MakeAdapter = Callable[[int], AdapterWeights]


def planner(studio: RenderingStudio, *, size: int = 10, shares_cpu: bool = True) -> PoolPlanner:
    return PoolPlanner(studio.store, studio.base, PoolSettings(size=size), rng=random.Random(0), shares_cpu=shares_cpu)


def add_pairs(studio: RenderingStudio, count: int, *, version: int = 0, prompt: str = "a red fox") -> None:
    start = studio.store.pairs.count(studio.base)
    images = [
        [
            NewImage(
                png=f"{number} {side}".encode(),
                width=8,
                height=8,
                provenance=Provenance(prompt, number, "ddim", 1, 1.0, version, 1.0, 2, 1, "cpu", "float32"),
                latents=f"latents {number} {side}".encode(),
            )
            for side in "ab"
        ]
        for number in range(start, start + count)
    ]
    studio.store.pairs.add_many(
        studio.base, [NewPair(prompt, a, b, prompt.encode(), PairSource.POOL) for a, b in images]
    )


def test_an_empty_pool_asks_for_a_pair_of_two_seeds(studio: RenderingStudio) -> None:
    pool = planner(studio)
    plan = pool.next_pair(0)
    assert pool.is_low()
    assert plan is not None
    assert plan.prompt in TRAIN_PROMPTS
    assert plan.seeds[0] != plan.seeds[1]
    assert plan != pool.next_pair(0)


def test_a_full_pool_asks_for_nothing(studio: RenderingStudio) -> None:
    add_pairs(studio, 10)
    assert planner(studio).next_pair(0) is None
    assert not planner(studio).is_low()


def test_prompts_are_covered_evenly(studio: RenderingStudio) -> None:
    add_pairs(studio, 2, prompt=TRAIN_PROMPTS[0])
    add_pairs(studio, 1, prompt=TRAIN_PROMPTS[1])
    pool = planner(studio)
    plans = [pool.next_pair(0) for _ in range(5)]
    assert {plan.prompt for plan in plans if plan} == {TRAIN_PROMPTS[2]}


def test_pairs_that_are_out_for_an_answer_are_replaced(studio: RenderingStudio) -> None:
    add_pairs(studio, 10)
    annotator = studio.store.annotators.ensure("ann")
    studio.store.assignments.issue(
        studio.base, annotator.id, 3, rng=random.Random(0), lifetime=timedelta(minutes=5)
    ).result()
    assert planner(studio).next_pair(0) is not None


def test_a_new_version_gets_half_a_pool_of_its_own_on_top_of_old_pairs(
    studio: RenderingStudio, adapter: MakeAdapter
) -> None:
    studio.publish(adapter(1))
    add_pairs(studio, 10, version=0)
    assert planner(studio).next_pair(1) is not None
    add_pairs(studio, 4, version=1)
    assert planner(studio).next_pair(1) is not None
    add_pairs(studio, 1, version=1)
    assert planner(studio).next_pair(1) is None
    assert planner(studio).next_pair(0) is None


def test_the_pool_rests_while_a_round_trains_on_the_cpu_unless_it_runs_dry(studio: RenderingStudio) -> None:
    add_pairs(studio, LOW_POOL_SIZE)
    assert planner(studio).next_pair(0) is not None
    studio.start_round()
    assert planner(studio).next_pair(0) is None
    assert planner(studio, shares_cpu=False).next_pair(0) is not None


def test_a_dry_pool_is_filled_even_while_a_round_trains(studio: RenderingStudio) -> None:
    studio.start_round()
    add_pairs(studio, LOW_POOL_SIZE - 1)
    assert planner(studio).is_low()
    assert planner(studio).next_pair(0) is not None


def test_a_small_pool_is_not_low_when_it_is_full(studio: RenderingStudio) -> None:
    add_pairs(studio, 2)
    assert not planner(studio, size=2).is_low()
    assert planner(studio, size=2).next_pair(0) is None


def test_a_pool_of_none_is_never_low_and_never_filled(studio: RenderingStudio) -> None:
    pool = planner(studio, size=0)
    assert not pool.is_low()
    assert pool.next_pair(0) is None


def test_a_prompt_that_was_refused_three_times_is_left_alone(studio: RenderingStudio) -> None:
    pool = planner(studio)
    for _ in range(3 * len(TRAIN_PROMPTS)):
        plan = pool.next_pair(0)
        assert plan is not None
        pool.record_refusal(plan)
    assert pool.next_pair(0) is None


def test_without_training_prompts_there_is_nothing_to_make(
    tmp_path_factory: pytest.TempPathFactory, studio: RenderingStudio
) -> None:
    with Store.open(tmp_path_factory.mktemp("empty")) as store:
        base = store.models.register("x", "stable_diffusion", "f" * 64)
        store.prompts.ensure(["held out"], held_out=True)
        assert planner(RenderingStudio(store, base, studio.settings)).next_pair(0) is None


def test_pairs_are_made_of_prompts_with_the_wished_tags_that_are_not_retired(studio: RenderingStudio) -> None:
    fox, whale, frog = (prompt.id for prompt in studio.store.prompts.list(held_out=False))
    studio.store.prompt_catalog.tag([fox, whale], ["land-and-sea"], by="test")
    studio.store.prompt_catalog.retire([fox, frog], by="test")
    settings = PoolSettings(size=10, tags=("Land and sea",))
    pool = PoolPlanner(studio.store, studio.base, settings, rng=random.Random(0), shares_cpu=True)
    assert {plan.prompt for plan in (pool.next_pair(0) for _ in range(5)) if plan} == {"a blue whale"}
    studio.store.prompt_catalog.retire([whale], by="test")
    assert pool.next_pair(0) is None
