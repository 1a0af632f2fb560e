"""Training of the attribute classifier (`classifiers.AttributeNetwork`) on renders."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from dmpo_app.pocket.classifiers import (
    HEADS,
    INPUT_SIZE,
    MEASURES,
    AttributeClassifier,
    AttributeNetwork,
    AttributePredictions,
    to_network_input,
)
from dmpo_app.pocket.scenes import Scene
from examples.pocket_model.progress import learning_rate, set_learning_rate
from examples.pocket_model.renders import Renders, generate_scenes

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClassifierPlan:
    """Length and strength of the training."""

    steps: int = 2500
    batch: int = 64
    peak_rate: float = 2e-3
    test_files: int = 1  # of a thousand renders, kept for the test
    seed: int = 3


def train_classifier(paths: Sequence[Path], out: Path, *, scenes_seed: int, plan: ClassifierPlan) -> dict[str, float]:
    """Train on the renders in `paths`, save to `out`; returns the accuracies on the last `test_files` files."""
    torch.manual_seed(plan.seed)
    generator = torch.Generator().manual_seed(plan.seed)
    scenes = [scene for number in range(len(paths)) for scene in generate_scenes(scenes_seed, number)]
    images = _downscale_images(Renders(paths))
    targets, measures = _targets(scenes)
    num_train = len(scenes) - plan.test_files * (len(scenes) // len(paths))
    network = AttributeNetwork()
    optimizer = torch.optim.AdamW(network.parameters(), lr=plan.peak_rate, weight_decay=1e-2)
    for step in range(plan.steps):
        set_learning_rate(optimizer, learning_rate(step, plan.steps, plan.peak_rate, 100))
        indices = torch.randint(num_train, (plan.batch,), generator=generator)
        pixels = augment_pixels(images[indices].float() / 255, generator)
        logits, measured = network(pixels)
        loss = functional.mse_loss(measured, measures[indices])
        for name, target in targets.items():
            loss = loss + functional.cross_entropy(logits[name], target[indices], label_smoothing=0.02)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % 200 == 0:
            logger.info(f"classifier: step {step + 1}/{plan.steps}  loss {float(loss.detach()):.4f}")
    classifier = AttributeClassifier(network)
    classifier.save(out)
    test = images[num_train:].permute(0, 2, 3, 1).numpy()
    return accuracies(AttributeClassifier.load(out).predict(test), scenes[num_train:])


def accuracies(reading: AttributePredictions, scenes: Sequence[Scene]) -> dict[str, float]:
    """Accuracy of each class, and the mean absolute error of each measure."""
    result = {
        name: float(np.mean([str(getattr(scene, name)) for scene in scenes] == getattr(reading, name).astype(str)))
        for name in HEADS
    }
    for name in MEASURES:
        truth = np.array([getattr(scene, name) for scene in scenes])
        result[f"{name} (mean error)"] = float(np.abs(truth - getattr(reading, name)).mean())
    return result


def augment_pixels(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Augment pixels (B, 3, 64, 64) by a random loss of detail, shifts of colour, and noise."""
    count = len(pixels)
    lots = torch.rand((3, count, 1, 1, 1), generator=generator)
    coarse = functional.interpolate(functional.avg_pool2d(pixels, 2), size=(INPUT_SIZE, INPUT_SIZE), mode="bilinear")
    pixels = torch.lerp(pixels, coarse, lots[0] * (lots[1] < 0.6))
    gain = 1 + 0.06 * torch.randn((count, 3, 1, 1), generator=generator)
    patches = torch.randn((count, 3, 8, 8), generator=generator)
    patches = functional.interpolate(patches, size=(INPUT_SIZE, INPUT_SIZE), mode="bilinear")
    grain = torch.randn(pixels.shape, generator=generator)
    return (pixels * gain + lots[2] * (0.03 * patches + 0.05 * grain)).clamp(0, 1)


def _downscale_images(renders: Renders) -> Tensor:
    """Downscale all images to uint8 (N, 3, 64, 64)."""
    parts = []
    for start in range(0, len(renders), 500):
        block = renders.take(range(start, min(start + 500, len(renders))))
        parts.append((to_network_input(block) * 255).round().byte())
    return torch.cat(parts)


def _targets(scenes: Sequence[Scene]) -> tuple[dict[str, Tensor], Tensor]:
    classes = {
        name: torch.tensor([values.index(str(getattr(scene, name))) for scene in scenes])
        for name, values in HEADS.items()
    }
    return classes, torch.tensor([[getattr(scene, name) for name in MEASURES] for scene in scenes])
