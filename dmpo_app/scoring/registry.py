"""The protocol of a scorer, the registry of those there are, building one by name, and scorers by a measure of pixels.

Nothing heavy is imported before one is built.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from dmpo_app.errors import BadInputError, ModelUnavailableError, StudioError
from dmpo_app.scoring import measures, weights

ScoreBatch = Callable[[Sequence[PIL.Image.Image], Sequence[str]], NDArray[np.float32]]


class Scorer(Protocol):
    """Scorer of images, each for its prompt; the same image and prompt get the same score in any batch, up to rounding.

    `name` is the one in the registry. `identity` is part of a cache's key: it changes with the weights and with the
    code that computes the score. `scale` is the usual tau of sigmoid((r_a - r_b) / tau): a difference of this size is
    about one unit of log odds that a is preferred; each scorer says where its number comes from.
    """

    @property
    def name(self) -> str: ...

    @property
    def identity(self) -> str: ...

    @property
    def scale(self) -> float: ...

    def score(self, images: Sequence[PIL.Image.Image], prompts: Sequence[str]) -> NDArray[np.float32]:
        """Score images, (B,), finite, higher is better.

        Images may differ in size and mode; prompts that are too long are cut.

        Raises BadInputError unless there are as many prompts as images, StudioError when a score is not finite.
        """
        ...


_PIXELS = {
    "warmth": "red over blue",
    "brightness": "mean lightness",
    "contrast": "spread of lightness over the image",
    "saturation": "strength of colours",
    "sharpness": "fine detail and hard edges",
}


@dataclass(frozen=True, slots=True)
class ScorerInfo:
    """Description of a scorer, as `dmpo scorers` lists it.

    `default_source` is a hub id, or None where nothing is downloaded or the authors publish a pickle file only: then
    `conversion` is the command that makes the file the user names.
    """

    name: str
    description: str
    weights_from: str
    licence: str
    default_source: str | None = None
    conversion: str | None = None


SCORERS: dict[str, ScorerInfo] = {
    info.name: info
    for info in (
        ScorerInfo(
            "pickscore",
            "which image people would pick for the prompt (CLIP-H, Pick-a-Pic)",
            "yuvalkirstain/PickScore_v1 on the hub",
            "MIT (repository); the model card names none",
            "yuvalkirstain/PickScore_v1",
        ),
        ScorerInfo(
            "clip",
            "how well image and prompt belong together (any CLIPModel)",
            "openai/clip-vit-large-patch14 on the hub, or any CLIPModel",
            "MIT (OpenAI's); its model card advises against deployment",
            "openai/clip-vit-large-patch14",
        ),
        ScorerInfo(
            "hpsv2",
            "which image people would prefer for the prompt (CLIP-H, HPSv2.1)",
            "HPS_v2.1_compressed.pt of xswu/HPSv2, converted",
            "Apache-2.0",
            conversion=weights.HPSV2,
        ),
        ScorerInfo(
            "aesthetic",
            "how beautiful people would rate the image, 1 to 10; ignores the prompt (CLIP-L, LAION)",
            "sac+logos+ava1-l14-linearMSE.pth of improved-aesthetic-predictor, converted; CLIP-L from the hub",
            "Apache-2.0 (head), MIT (CLIP)",
            conversion=weights.AESTHETIC,
        ),
        ScorerInfo(
            "imagereward",
            "how people would rate the image for the prompt (BLIP-L)",
            "ImageReward.pt of THUDM/ImageReward, converted",
            "Apache-2.0; BLIP is BSD-3-Clause",
            conversion=weights.IMAGEREWARD,
        ),
        ScorerInfo(
            "pocket-fidelity",
            "whether an image of the pocket world shows what the prompt names",
            "ships with the studio",
            "Apache-2.0",
        ),
        *(
            ScorerInfo(name, f"{what}; from pixels, ignores the prompt", "none", "Apache-2.0")
            for name, what in _PIXELS.items()
        ),
    )
}


def build_scorer(name: str, *, source: str | None, device: str, batch_size: int) -> Scorer:
    """Build the scorer of that name on `device` (auto, cuda, mps, cpu), for `batch_size` images at a time.

    `source` is a file, a folder or a hub id with its weights; None takes the usual one where there is one. Raises
    BadInputError for a name or number that cannot be, ModelUnavailableError for weights that are missing or of another
    kind, SetupError for a device that cannot be used.
    """
    info = SCORERS.get(name)
    if info is None:
        raise BadInputError(f"there is no scorer named {name!r}; there are {', '.join(SCORERS)}")
    if batch_size < 1:
        raise BadInputError(f"the batch size of a scorer is at least 1, not {batch_size}")
    if name in _PIXELS:
        return _build_pixel_scorer(name, source)
    if name == "pocket-fidelity":
        from dmpo_app.scoring.pocket_fidelity import build_pocket_fidelity

        return build_pocket_fidelity(source, device, batch_size)
    weights_source = source or info.default_source
    if weights_source is None:
        raise ModelUnavailableError(
            f"{name} needs its weights as a safetensors file: {info.weights_from}. Convert it once where you trust it, "
            f"then name the file as the scorer's source: {info.conversion}"
        )
    return _builder(name)(weights_source, device, batch_size)


def _build_pixel_scorer(name: str, source: str | None) -> Scorer:
    if source is not None:
        raise BadInputError(f"{name} is computed from pixels and takes no weights; leave out the source {source!r}")
    return PixelScorer(name)


def _builder(name: str) -> Callable[[str, str, int], Scorer]:
    if name == "aesthetic":
        from dmpo_app.scoring.clip import build_aesthetic

        return build_aesthetic
    if name == "imagereward":
        from dmpo_app.scoring.image_reward import build_imagereward

        return build_imagereward
    from dmpo_app.scoring.clip import build_clip, build_hpsv2, build_pickscore

    return {"clip": build_clip, "pickscore": build_pickscore, "hpsv2": build_hpsv2}[name]


def score_in_batches(
    name: str, score_batch: ScoreBatch, images: Sequence[PIL.Image.Image], prompts: Sequence[str], batch_size: int
) -> NDArray[np.float32]:
    """Score images with `score_batch`, at most `batch_size` at a time: (B,) float32; (0,) for no images.

    Raises BadInputError for inputs that do not belong together, StudioError for a score that is not finite.
    """
    _check_inputs(images, prompts)
    parts = [
        score_batch(images[start : start + batch_size], prompts[start : start + batch_size])
        for start in range(0, len(images), batch_size)
    ]
    scores = np.concatenate(parts, dtype=np.float32) if parts else np.zeros(0, np.float32)
    if scores.shape != (len(images),):
        raise StudioError(f"{name} gave scores of shape {scores.shape}, expected ({len(images)},)")
    if not np.isfinite(scores).all():
        which = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise StudioError(
            f"{name} gave image {which} ({prompts[which]!r}) the score {scores[which]}; are its weights damaged?"
        )
    return scores


def _check_inputs(images: Sequence[PIL.Image.Image], prompts: Sequence[str]) -> None:
    if isinstance(prompts, str):
        raise BadInputError("prompts must be a sequence with one prompt for each image, not a single string")
    if len(images) != len(prompts):
        raise BadInputError(f"there are {len(images)} images and {len(prompts)} prompts; each image needs its prompt")
    for index, image in enumerate(images):
        if 0 in image.size:
            raise BadInputError(f"image {index} is {image.size[0]} x {image.size[1]} pixels; there is nothing to score")


_CODE_VERSION = 1
_MEASURES: dict[str, Callable[[measures.Images], measures.Scores]] = {
    "warmth": measures.warmth,
    "brightness": measures.brightness,
    "contrast": measures.contrast,
    "saturation": measures.saturation,
    "sharpness": measures.sharpness,
}
# The median difference between the two images of a pair, over the pairs that ship with the pocket model: of an
# ordinary pair the better one is then preferred at 73 %.
_SCALES = {"warmth": 0.07, "brightness": 0.06, "contrast": 0.02, "saturation": 0.03, "sharpness": 0.003}


@dataclass(frozen=True, slots=True)
class PixelScorer:
    """Scorer by one of the measures in `measures`, whatever the prompt says."""

    name: str

    @property
    def identity(self) -> str:
        return f"{self.name}/{_CODE_VERSION}"

    @property
    def scale(self) -> float:
        return _SCALES[self.name]

    def score(self, images: Sequence[PIL.Image.Image], prompts: Sequence[str]) -> NDArray[np.float32]:
        """Score images; see `Scorer.score`. Each image is measured at its own size."""
        return score_in_batches(self.name, lambda batch, _: self._measure(batch), images, prompts, batch_size=1)

    def _measure(self, images: Sequence[PIL.Image.Image]) -> NDArray[np.float32]:
        pixels = np.stack([np.asarray(image.convert("RGB")) for image in images])
        return _MEASURES[self.name](pixels).astype(np.float32)
