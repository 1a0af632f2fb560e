"""Measures of effects: each moves in the direction of its words, whatever the size of the image."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dmpo_app.pocket.scenes import SceneConstraints, sample_scene
from dmpo_app.scoring.effect_measures import PixelEffects, image_distance, variety
from dmpo_app.scoring.model_effects import ModelEffects, PocketAttributes
from examples.pocket_model.render import render

Pixels = NDArray[np.float64]


def draw_pixels(seed: int = 0, size: int = 32) -> Pixels:
    return np.random.default_rng(seed).uniform(60, 190, size=(size, size, 3))


def to_image(pixels: Pixels) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def towards_grey(pixels: Pixels) -> Pixels:
    return np.asarray(pixels.mean(-1, keepdims=True) + 0.5 * (pixels - pixels.mean(-1, keepdims=True)))


CHANGES: list[tuple[str, str, Callable[[Pixels], Pixels]]] = [
    ("brightness", "darker", lambda pixels: 0.7 * pixels),
    ("contrast", "higher in contrast", lambda pixels: pixels.mean() + 1.5 * (pixels - pixels.mean())),
    ("saturation", "less saturated", towards_grey),
    ("warmth", "warmer", lambda pixels: pixels * np.array([1.2, 1.0, 0.8])),
    ("greenness", "greener", lambda pixels: pixels * np.array([0.9, 1.2, 0.9])),
    ("sharpness", "softer", lambda pixels: (pixels + np.roll(pixels, 1, 0) + np.roll(pixels, 1, 1)) / 3),
    ("shadows", "with more in deep shadow", lambda pixels: pixels - 80),
    ("symmetry", "more symmetric", lambda pixels: pixels / 2 + pixels[:, ::-1] / 2),
]


@pytest.mark.parametrize(("name", "words", "change"), CHANGES, ids=[name for name, _, _ in CHANGES])
def test_a_measure_of_pixels_moves_as_its_words_say(name: str, words: str, change: Callable[[Pixels], Pixels]) -> None:
    scorer = PixelEffects()
    column = [measure.name for measure in scorer.measures].index(name)
    before, after = scorer.score([to_image(draw_pixels()), to_image(change(draw_pixels()))], ["", ""])[:, column]
    measure = scorer.measures[column]
    assert words == (measure.more if after > before else measure.less)


def test_a_subject_is_measured_by_its_size_and_place() -> None:
    def scene(left: int, width: int) -> Image.Image:
        pixels = np.full((64, 64, 3), 80.0)
        pixels[30:50, left : left + width] = (220, 60, 60)
        return to_image(pixels)

    scores = PixelEffects().score([scene(10, 10), scene(10, 20), scene(40, 10)], [""] * 3)
    size, place = (
        [measure.name for measure in PixelEffects.measures].index(name) for name in ("subject_size", "subject_place")
    )
    assert scores[1, size] > scores[0, size]
    assert scores[2, place] < scores[0, place]


def test_large_images_are_measured_as_small_ones_of_the_same_content() -> None:
    small = to_image(draw_pixels(size=8).repeat(32, 0).repeat(32, 1))
    large = small.resize((1024, 1024), Image.Resampling.NEAREST)
    of_small, of_large = PixelEffects().score([small, large], ["", ""])
    np.testing.assert_allclose(of_small, of_large, atol=1e-3)


def test_the_distance_of_images_is_a_share_of_the_range() -> None:
    black, white = Image.new("RGB", (8, 8)), Image.new("RGB", (8, 8), "white")
    assert image_distance(black, white) == 1.0
    assert image_distance(white, white) == 0.0
    np.testing.assert_allclose(variety([black, white, white]), [1.0, 0.5, 0.5])


def test_the_pocket_classifier_tells_night_from_day_and_one_subject_from_three() -> None:
    rng = np.random.default_rng(0)
    day = [sample_scene(rng, SceneConstraints(setting="meadow", time="day", numbers=(1,))) for _ in range(4)]
    night = [replace(scene, time="night") for scene in day]
    many = [sample_scene(rng, SceneConstraints(setting="meadow", time="day", numbers=(3,))) for _ in range(4)]
    scorer = PocketAttributes.load("cpu")
    names = [measure.name for measure in scorer.measures]
    assert len(names) == len(scorer.identities) == len(set(scorer.identities))
    scores = scorer.score([Image.fromarray(render(one, size=64)) for one in (*day, *night, *many)], ["a meadow"] * 12)
    by_kind = dict(zip(names, scores.reshape(3, 4, -1).mean(1).T, strict=True))
    assert by_kind["time_night"][1] > by_kind["time_night"][0] + 0.5
    assert by_kind["subject_number"][2] > by_kind["subject_number"][0] + 1


def test_a_scorer_of_the_registry_is_loaded_again_after_it_was_released() -> None:
    scorer = ModelEffects.load("pocket-fidelity", None, "cpu", 4)
    image = to_image(draw_pixels(size=64))
    score = scorer.score([image], ["a red fox"])
    scorer.release()
    np.testing.assert_array_equal(scorer.score([image], ["a red fox"]), score)
    assert scorer.measures[0].more == "higher by pocket-fidelity"
