"""Scorers that work as they are: measures of pixels, and the judge of the pocket world."""

import numpy as np
import PIL.Image
import pytest

from dmpo_app.labeling.tastes import TASTES
from dmpo_app.pocket.language import describe
from dmpo_app.pocket.scenes import SceneConstraints, sample_scene
from dmpo_app.scoring import measures
from dmpo_app.scoring.registry import Scorer, build_scorer
from examples.pocket_model.render import render

SIZE = 64
TASTE_OF = {
    "warmth": "warm",
    "brightness": "bright",
    "contrast": "contrast",
    "saturation": "vivid",
    "sharpness": "sharp",
}


def build(name: str) -> Scorer:
    return build_scorer(name, source=None, device="cpu", batch_size=8)


def wished_image(wish: SceneConstraints, seed: int = 0, size: int = SIZE) -> PIL.Image.Image:
    return PIL.Image.fromarray(render(sample_scene(np.random.default_rng(seed), wish), size=size))


@pytest.mark.parametrize(
    ("scorer", "taste"),
    [
        ("warmth", "warm"),
        ("brightness", "bright"),
        ("contrast", "contrast"),
        ("saturation", "vivid"),
        ("sharpness", "sharp"),
    ],
)
def test_a_measure_scores_as_the_taste_of_its_kind_does(scorer: str, taste: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 24, 40, 3), dtype=np.uint8)
    scores = build(scorer).score([PIL.Image.fromarray(image) for image in images], ["a cat"] * 3)
    np.testing.assert_array_equal(scores, TASTES[taste].scores(images).astype(np.float32))


@pytest.mark.parametrize("name", TASTE_OF)
def test_a_single_pixel_can_be_measured(name: str) -> None:
    assert np.isfinite(build(name).score([PIL.Image.new("RGB", (1, 1), "red")], [""])).all()


def test_sharpness_is_the_mean_step_across_and_down() -> None:
    stripes = np.zeros((1, 4, 4, 3), np.uint8)
    stripes[:, :, ::2] = 255
    assert measures.sharpness(stripes) == pytest.approx(1.0)
    assert measures.sharpness(stripes[:, :1]) == pytest.approx(1.0)


def test_an_image_of_what_was_asked_for_beats_images_of_something_else() -> None:
    asked = "a red boat at night on the beach"
    right = SceneConstraints(subject="boat", colour="red", setting="beach", time="night", numbers=(1,))
    wrong = [
        SceneConstraints(subject="cat", colour="red", setting="beach", time="night", numbers=(1,)),
        SceneConstraints(subject="boat", colour="white", setting="beach", time="night", numbers=(1,)),
        SceneConstraints(subject="boat", colour="red", setting="snow", time="night", numbers=(1,)),
        SceneConstraints(subject="boat", colour="red", setting="beach", time="day", numbers=(1,)),
        SceneConstraints(subject="boat", colour="red", setting="beach", time="night", numbers=(3,)),
    ]
    scorer = build("pocket-fidelity")
    kept, *others = scorer.score([wished_image(wish, seed=3) for wish in (right, *wrong)], [asked] * 6)
    assert kept <= 0
    assert all(kept - other > scorer.scale for other in others)


def test_images_drawn_for_their_prompts_beat_the_same_images_with_other_prompts() -> None:
    rng = np.random.default_rng(1)
    scenes = [sample_scene(rng) for _ in range(24)]
    images = [PIL.Image.fromarray(render(scene, size=SIZE)) for scene in scenes]
    prompts = [describe(scene, rng) for scene in scenes]
    scorer = build("pocket-fidelity")
    own, another = scorer.score(images, prompts), scorer.score(images, prompts[1:] + prompts[:1])
    assert (own > another).mean() > 0.9


def test_a_prompt_that_names_nothing_prefers_no_image() -> None:
    images = [wished_image(SceneConstraints(), seed) for seed in (0, 1)]
    np.testing.assert_array_equal(build("pocket-fidelity").score(images, ["something lovely"] * 2), [0, 0])


def test_a_number_left_open_allows_all_that_fit() -> None:
    """'boats' allows two and three, 'two boats' only two: of an image of three the first is at least as true."""
    three = wished_image(SceneConstraints(subject="boat", numbers=(3,)), seed=5)
    some, two = build("pocket-fidelity").score([three] * 2, ["boats", "two boats"])
    assert some > two


def test_of_a_wide_image_the_middle_is_judged() -> None:
    square = wished_image(SceneConstraints(subject="house", numbers=(1,)), size=64)
    wide = PIL.Image.new("RGB", (128, 64))
    wide.paste(square, (32, 0))
    alone, framed = build("pocket-fidelity").score([square, wide], ["a house"] * 2)
    assert alone == pytest.approx(framed)
