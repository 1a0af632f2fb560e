from collections.abc import Callable

from dmpo_app.diffusion.adapter_files import AdapterWeights
from dmpo_app.domain.lineage import ImageKind, NewImage, Provenance
from dmpo_app.rendering.pool import NUM_PROMPTS, SEEDS, ContactSheetPlanner, SheetPlan
from tests.rendering.rendering_studio import HELD_OUT_PROMPTS, RenderingStudio

MakeAdapter = Callable[[int], AdapterWeights]


def store_row(studio: RenderingStudio, plan: SheetPlan, seeds: tuple[int, ...] | None = None) -> None:
    for seed in plan.seeds if seeds is None else seeds:
        provenance = Provenance(plan.prompt, seed, "ddim", 1, 1.0, plan.version, 1.0, 2, 1, "cpu", "float32")
        image = NewImage(f"{plan} {seed}".encode(), 8, 8, provenance)
        studio.store.images.add(studio.base, image, ImageKind.CONTACT_SHEET)


def make_all(studio: RenderingStudio, planner: ContactSheetPlanner, live_version: int) -> list[SheetPlan]:
    made = []
    while (plan := planner.next_row(live_version)) is not None:
        store_row(studio, plan)
        planner.mark_done(plan)
        made.append(plan)
    return made


def test_the_base_model_gets_a_row_for_a_few_held_out_prompts_spread_over_the_list(studio: RenderingStudio) -> None:
    made = make_all(studio, ContactSheetPlanner(studio.store, studio.base), 0)
    assert [plan.version for plan in made] == [0] * NUM_PROMPTS
    prompts = [plan.prompt for plan in made]
    assert prompts == [HELD_OUT_PROMPTS[index] for index in (0, 1, 3, 4)]
    assert {plan.seeds for plan in made} == {SEEDS}


def test_every_version_gets_the_same_rows_the_live_one_first(studio: RenderingStudio, adapter: MakeAdapter) -> None:
    for seed in (1, 2):
        studio.publish(adapter(seed))
    made = make_all(studio, ContactSheetPlanner(studio.store, studio.base), 2)
    rows = {version: [plan.prompt for plan in made if plan.version == version] for version in (0, 1, 2)}
    assert rows[0] == rows[1] == rows[2]
    assert list(dict.fromkeys(plan.version for plan in made)) == [2, 0, 1]


def test_a_restart_makes_only_what_is_missing(studio: RenderingStudio, adapter: MakeAdapter) -> None:
    made = make_all(studio, ContactSheetPlanner(studio.store, studio.base), 0)
    assert make_all(studio, ContactSheetPlanner(studio.store, studio.base), 0) == []
    studio.publish(adapter(1))
    again = make_all(studio, ContactSheetPlanner(studio.store, studio.base), 1)
    assert [(plan.version, plan.prompt) for plan in again] == [(1, plan.prompt) for plan in made]


def test_a_row_that_was_interrupted_is_made_again(studio: RenderingStudio) -> None:
    first = ContactSheetPlanner(studio.store, studio.base).next_row(0)
    assert first is not None
    store_row(studio, first, SEEDS[:1])
    assert ContactSheetPlanner(studio.store, studio.base).next_row(0) == first


def test_the_prompts_stay_when_others_are_added_later(studio: RenderingStudio) -> None:
    made = make_all(studio, ContactSheetPlanner(studio.store, studio.base), 0)
    studio.store.prompts.ensure([f"another prompt {number}" for number in range(20)], held_out=True)
    assert make_all(studio, ContactSheetPlanner(studio.store, studio.base), 0) == []
    assert len(made) == NUM_PROMPTS


def test_a_version_that_cannot_be_loaded_does_not_hold_up_the_others(
    studio: RenderingStudio, adapter: MakeAdapter
) -> None:
    studio.publish(adapter(1))
    planner = ContactSheetPlanner(studio.store, studio.base)
    planner.skip_version(1)
    assert {plan.version for plan in make_all(studio, planner, 1)} == {0}
