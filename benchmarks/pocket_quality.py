"""Does the pocket model draw what it is asked for, and does it leave open what it is not asked for?

    python -m benchmarks.pocket_quality [--model data/pocket] [--images 500] [--steps 20] [--guidance 3]

A classifier that was trained on renders only reads the images. The yardstick for variety is the renderer itself:
scenes drawn by lot for the same prompts.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray

from benchmarks.report import machine, print_table
from dmpo_app.pocket.classifiers import AttributeClassifier, AttributePredictions
from dmpo_app.pocket.language import parse
from dmpo_app.pocket.scenes import SceneConstraints, sample_scene
from examples.pocket_model.render import render

Images = NDArray[np.uint8]
MEASURES = ("size", "place", "warmth", "brightness")
OPEN_PROMPTS = ("a cat in a meadow", "a house on the beach", "a rocket in the desert", "a tree in the snow")
FIRST_SEED = 1_000_000  # no other part of the project uses seeds from here on


def sample(pipeline: StableDiffusionPipeline, prompts: Sequence[str], *, steps: int, guidance: float) -> Images:
    """One image a prompt, uint8 (B, H, W, 3); the n-th prompt gets seed FIRST_SEED + n."""
    batches = []
    for start in range(0, len(prompts), 20):
        part = list(prompts[start : start + 20])
        generators = [torch.Generator().manual_seed(FIRST_SEED + start + i) for i in range(len(part))]
        output = pipeline(
            part, num_inference_steps=steps, guidance_scale=guidance, generator=generators, output_type="np"
        )
        batches.append((np.asarray(output.images) * 255).round().astype(np.uint8))
    return np.concatenate(batches)


def right_shares(reading: AttributePredictions, wishes: Sequence[SceneConstraints]) -> list[tuple[str, str, str]]:
    """(attribute, share that is right, number judged) for each attribute that prompts name."""
    rows = []
    for name in ("subject", "colour", "setting", "time"):
        named = [(str(getattr(reading, name)[i]), getattr(wish, name)) for i, wish in enumerate(wishes)]
        judged = [seen == asked for seen, asked in named if asked is not None]
        rows.append((f"{name} right", f"{np.mean(judged):.1%}", f"{len(judged)} images"))
    counts = [int(reading.number[i]) in wish.numbers for i, wish in enumerate(wishes) if len(wish.numbers) < 3]
    rows.append(("number right", f"{np.mean(counts):.1%}", f"{len(counts)} images"))
    return rows


def pairwise_distance(images: Images) -> float:
    """Mean absolute difference of pixels (0 to 255) over all pairs."""
    small = images[:, ::4, ::4].astype(np.float32).reshape(len(images), -1)
    distances = [np.abs(small[i + 1 :] - small[i]).mean(axis=1) for i in range(len(small) - 1)]
    return float(np.concatenate(distances).mean())


def spreads(classifier: AttributeClassifier, groups: Sequence[Images]) -> dict[str, float]:
    """The difference between images of the same prompt, averaged over the prompts."""
    readings = [classifier.predict(images) for images in groups]
    result = {f"spread of {name}": float(np.mean([getattr(r, name).std() for r in readings])) for name in MEASURES}
    result["colours seen, of 8"] = float(np.mean([len(set(r.colour.tolist())) for r in readings]))
    result["times of day seen, of 3"] = float(np.mean([len(set(r.time.tolist())) for r in readings]))
    result["distance of pixels"] = float(np.mean([pairwise_distance(images) for images in groups]))
    return result


def variety_rows(
    pipeline: StableDiffusionPipeline, classifier: AttributeClassifier, *, each: int, steps: int, guidance: float
) -> list[tuple[str, str, str]]:
    """(measure, model, renderer) over prompts that leave colour, size, place and light open."""
    generator = np.random.default_rng(11)
    model = [sample(pipeline, [prompt] * each, steps=steps, guidance=guidance) for prompt in OPEN_PROMPTS]
    renders = [
        np.stack([render(sample_scene(generator, parse(prompt))) for _ in range(each)]) for prompt in OPEN_PROMPTS
    ]
    ours, yardstick = spreads(classifier, model), spreads(classifier, renders)
    return [(name, f"{ours[name]:.2f}", f"{yardstick[name]:.2f}") for name in ours]


def seconds_a_pair(pipeline: StableDiffusionPipeline, *, steps: int, guidance: float) -> float:
    """The median over five pairs of two images."""
    times = []
    for _ in range(6):
        started = time.perf_counter()
        sample(pipeline, ["a red cat in the snow"] * 2, steps=steps, guidance=guidance)
        times.append(time.perf_counter() - started)
    return float(np.median(times[1:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("data/pocket"))
    parser.add_argument("--prompts", type=Path, default=Path("data/prompts"))
    parser.add_argument("--classifier", type=Path, default=Path("data/classifiers/attributes.safetensors"))
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--threads", type=int, default=2, help="1 is far faster while other programs use the cores")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    steps, guidance = arguments.steps, arguments.guidance
    pipeline = StableDiffusionPipeline.from_pretrained(arguments.model, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    classifier = AttributeClassifier.load(arguments.classifier)
    files = [
        (arguments.prompts / name).read_text(encoding="utf-8").splitlines() for name in ("train.txt", "held-out.txt")
    ]
    print(f"{machine()}; {steps} steps, guidance {guidance:g}\n")
    for name, prompts in zip(("train.txt", "held-out.txt"), files, strict=True):
        chosen = [prompts[i % len(prompts)] for i in range(arguments.images // 2)]
        reading = classifier.predict(sample(pipeline, chosen, steps=steps, guidance=guidance))
        print_table(
            (f"fidelity, {name}", "share", "judged"), right_shares(reading, [parse(prompt) for prompt in chosen])
        )
    each = max(8, arguments.images // 10)
    print_table(
        ("variety of one prompt over seeds", "model", "renderer"),
        variety_rows(pipeline, classifier, each=each, steps=steps, guidance=guidance),
    )
    size = sum(file.stat().st_size for file in arguments.model.rglob("*") if file.is_file()) / 1e6
    cost = [
        (
            f"seconds a pair, threads: {arguments.threads}",
            f"{seconds_a_pair(pipeline, steps=steps, guidance=guidance):.2f}",
        )
    ]
    print_table(("cost", "value"), [*cost, ("folder, MB", f"{size:.1f}")])


if __name__ == "__main__":
    main()
