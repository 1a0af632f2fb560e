"""The little world: what is drawn by lot, what is drawn in pixels, and what prompts say about it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dmpo_app.pocket.language import add_filler_words, describe, parse, phrase, sample_constraints, vocabulary
from dmpo_app.pocket.scenes import COLOURS, SETTINGS, SUBJECTS, SceneConstraints, is_held_out, sample_scene
from examples.pocket_model.prompts import write_prompts
from examples.pocket_model.render import render
from examples.pocket_model.tokenizer import MAX_TOKENS, build_tokenizer

PROMPTS = Path(__file__).parents[2] / "data" / "prompts"


def shipped(name: str) -> list[str]:
    return (PROMPTS / name).read_text(encoding="utf-8").splitlines()


def combinations(prompts: list[str]) -> set[tuple[str | None, str | None, str | None]]:
    return {(wish.subject, wish.colour, wish.setting) for wish in map(parse, prompts)}


def test_the_same_scene_gives_the_same_pixels() -> None:
    scene = sample_scene(np.random.default_rng(3))
    first, second = render(scene), render(scene)
    assert first.shape == (128, 128, 3)
    assert first.dtype == np.uint8
    assert (first == second).all()


def test_another_arrangement_gives_other_pixels() -> None:
    scene = sample_scene(np.random.default_rng(3))
    assert (render(scene) != render(replace(scene, arrangement=scene.arrangement + 1))).any()


@pytest.mark.parametrize("subject", SUBJECTS)
def test_every_subject_is_drawn_in_every_setting(subject: str) -> None:
    generator = np.random.default_rng(5)
    for setting in SETTINGS:
        scene = sample_scene(generator, SceneConstraints(subject=subject, setting=setting))
        image = render(scene, size=64)
        assert image.shape == (64, 64, 3)
        assert image.std() > 10


def test_the_same_seed_gives_the_same_scenes_and_prompts() -> None:
    def story(seed: int) -> list[str]:
        generator = np.random.default_rng(seed)
        return [describe(sample_scene(generator), generator) for _ in range(20)]

    assert story(1) == story(1)
    assert story(1) != story(2)


def test_a_prompt_parses_back_to_what_it_names() -> None:
    generator = np.random.default_rng(0)
    for _ in range(1000):
        wish = sample_constraints(sample_scene(generator), generator)
        prompt = phrase(wish, generator)
        assert parse(prompt) == wish, prompt


def test_words_that_mean_nothing_change_nothing_named() -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        prompt = describe(sample_scene(generator), generator)
        named, filled = parse(prompt), parse(add_filler_words(prompt, generator))
        # Random letters can spell "a"; everything but the number is safe from them.
        assert replace(filled, numbers=named.numbers) == named, prompt


def test_a_wish_is_fulfilled_and_the_rest_varies() -> None:
    generator = np.random.default_rng(0)
    scenes = [sample_scene(generator, SceneConstraints(subject="cat", size="large", numbers=(2, 3))) for _ in range(60)]
    assert {scene.subject for scene in scenes} == {"cat"}
    assert min(scene.size for scene in scenes) >= 1.08
    assert {scene.number for scene in scenes} == {2, 3}
    assert {scene.colour for scene in scenes} == set(COLOURS)
    assert {scene.setting for scene in scenes} == set(SETTINGS)
    assert np.std([scene.place for scene in scenes]) > 0.1


def test_no_training_caption_names_a_held_out_combination() -> None:
    generator = np.random.default_rng(0)
    for _ in range(1000):
        wish = parse(describe(sample_scene(generator), generator))
        assert not is_held_out(wish.subject, wish.colour, wish.setting)


def test_the_prompt_files_share_no_combination() -> None:
    train, held_out = shipped("train.txt"), shipped("held-out.txt")
    assert len(set(train)) == len(train) >= 300
    assert len(set(held_out)) == len(held_out) >= 100
    assert not combinations(train) & combinations(held_out)


@pytest.mark.parametrize("name", ["train.txt", "held-out.txt"])
def test_every_shipped_prompt_parses_and_leaves_something_open(name: str) -> None:
    wishes = [parse(prompt) for prompt in shipped(name)]
    assert all(wish.subject and wish.setting for wish in wishes)
    without_colour = sum(wish.colour is None for wish in wishes) / len(wishes)
    assert 0.25 < without_colour < 0.55
    open_attributes = [
        sum(value is None for value in (wish.colour, wish.time, wish.weather, wish.size, wish.place)) for wish in wishes
    ]
    assert np.mean(np.array(open_attributes) >= 2) > 0.9


def test_the_shipped_prompt_files_are_what_the_code_writes(tmp_path: Path) -> None:
    write_prompts(tmp_path)
    for name in ("train.txt", "held-out.txt"):
        assert (tmp_path / name).read_text(encoding="utf-8").splitlines() == shipped(name)


def test_every_word_of_the_grammar_is_one_token_and_the_longest_prompt_fits() -> None:
    tokenizer = build_tokenizer()
    for word in vocabulary():
        assert len(tokenizer(word).input_ids) == 3, word  # start, the word, end
    generator = np.random.default_rng(0)
    lengths = [len(tokenizer(describe(sample_scene(generator), generator)).input_ids) for _ in range(500)]
    assert max(lengths) <= MAX_TOKENS


def test_an_unknown_word_falls_apart_into_known_pieces() -> None:
    tokenizer = build_tokenizer()
    pieces = tokenizer.tokenize("a red zebra")
    assert pieces[:2] == ["a</w>", "red</w>"]
    assert "".join(pieces[2:]) == "zebra</w>"
    assert tokenizer.unk_token not in pieces
