"""The model in data/pocket and the classifier in data/classifiers: they load, they are small, they do their work."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from dmpo_app.pocket.classifiers import AttributeClassifier
from dmpo_app.pocket.language import parse
from dmpo_app.pocket.scenes import sample_scene
from examples.pocket_model.parallel import single_threaded_operators
from examples.pocket_model.render import render

DATA = Path(__file__).parents[2] / "data"
MODEL, CLASSIFIER = DATA / "pocket", DATA / "classifiers" / "attributes.safetensors"
PROMPTS = (
    "a red cat in the snow",
    "a blue house on the beach",
    "a green tree in the desert",
    "a mushroom in the forest",
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Two threads in one operator stall for seconds when another program has a core; one thread does not."""
    with single_threaded_operators():
        yield


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    loaded = StableDiffusionPipeline.from_pretrained(MODEL, torch_dtype=torch.float32, local_files_only=True)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def test_the_model_is_safetensors_only_and_at_most_16_megabytes() -> None:
    files = [file for file in MODEL.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 16e6
    assert {file.suffix for file in files} == {".json", ".safetensors"}
    assert CLASSIFIER.stat().st_size <= 1.5e6


def test_the_model_has_the_parts_of_stable_diffusion(pipeline: StableDiffusionPipeline) -> None:
    assert type(pipeline.text_encoder).__name__ == "CLIPTextModel"
    assert type(pipeline.tokenizer).__name__.startswith("CLIPTokenizer")
    assert type(pipeline.unet).__name__ == "UNet2DConditionModel"
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    assert pipeline.safety_checker is None
    assert pipeline.tokenizer.tokenize("a red cat") == ["a</w>", "red</w>", "cat</w>"]


def test_it_draws_the_subject_and_the_setting_it_is_asked_for(pipeline: StableDiffusionPipeline) -> None:
    generators = [torch.Generator().manual_seed(seed) for seed in range(len(PROMPTS))]
    images = pipeline(
        list(PROMPTS), num_inference_steps=12, guidance_scale=3.0, generator=generators, output_type="np"
    ).images
    reading = AttributeClassifier.load(CLASSIFIER).predict((images * 255).round().astype(np.uint8))
    right = [
        reading.subject[i] == parse(prompt).subject and reading.setting[i] == parse(prompt).setting
        for i, prompt in enumerate(PROMPTS)
    ]
    assert sum(right) >= len(right) - 1, list(zip(PROMPTS, reading.subject, reading.setting, strict=True))


def test_the_same_seed_draws_the_same_image(pipeline: StableDiffusionPipeline) -> None:
    def draw() -> np.ndarray:
        generator = torch.Generator().manual_seed(5)
        return np.asarray(pipeline("a cat", num_inference_steps=2, generator=generator, output_type="np").images)

    assert (draw() == draw()).all()


def test_the_classifier_reads_unseen_renders() -> None:
    generator = np.random.default_rng(99)
    scenes = [sample_scene(generator) for _ in range(150)]
    reading = AttributeClassifier.load(CLASSIFIER).predict(np.stack([render(scene) for scene in scenes]))
    for name, share in (("subject", 0.97), ("setting", 0.97), ("colour", 0.95), ("time", 0.97)):
        right = np.mean([getattr(scene, name) for scene in scenes] == getattr(reading, name))
        assert right >= share, (name, right)
    assert np.abs(reading.place - np.array([scene.place for scene in scenes])).mean() < 0.1
