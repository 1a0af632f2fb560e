"""The LAION aesthetic predictor v2 (Schuhmann 2022, improved-aesthetic-predictor): a rating of 1 to 10.

The prompt plays no part. The unit vector of CLIP ViT-L/14's image embedding goes through the linear head
`sac+logos+ava1-l14-linearMSE`.

Shapes:  B images;  D the embedding's dimension, 768.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPModel

from dmpo_app.diffusion.placement import resolve_device
from dmpo_app.scoring import weights
from dmpo_app.scoring.clip import load_preprocess
from dmpo_app.scoring.network_loading import RewardHead, build_head, freeze, load_pretrained, read_tensors
from dmpo_app.scoring.preprocess import Preprocess, score_in_batches

_CODE_VERSION = 1
# The head was fitted to people's ratings by least squares, so it has no log odds of its own. In AVA, most of its data,
# one image's ratings spread by 1.4; two people's by 2, which is a logistic scale of 2 * sqrt(3) / pi = 1.1.
_SCALE = 1.0


@dataclass(frozen=True, slots=True)
class AestheticScorer:
    """Scorer by the predicted aesthetic rating; prompts do not matter."""

    identity: str
    tower: nn.Module
    projection: nn.Module
    head: RewardHead
    preprocess: Preprocess
    device: torch.device
    batch_size: int
    name: str = "aesthetic"
    scale: float = _SCALE

    def score(self, images: Sequence[PIL.Image.Image], prompts: Sequence[str]) -> NDArray[np.float32]:
        """Score images; see `Scorer.score`."""
        return score_in_batches(self.name, lambda batch, _: self._rate(batch), images, prompts, self.batch_size)

    @torch.inference_mode()
    def _rate(self, images: Sequence[PIL.Image.Image]) -> NDArray[np.float32]:
        pixels = torch.from_numpy(self.preprocess(images)).to(self.device)
        embeds: Tensor = self.projection(self.tower(pixel_values=pixels).pooler_output)
        return cast(NDArray[np.float32], self.head(functional.normalize(embeds, dim=-1)).cpu().numpy())


def build_aesthetic(source: str, device: str, batch_size: int) -> AestheticScorer:
    """Build the aesthetic scorer from the head's safetensors file, or a folder with it and with CLIP ViT-L/14.

    CLIP's files are config.json and model.safetensors. Without them beside the head, openai/clip-vit-large-patch14 is
    used. Raises ModelUnavailableError or SetupError.
    """
    torch_device = resolve_device(device)
    head_path = weights.find_weights_file(source, conversion=weights.AESTHETIC, besides=("model.safetensors",))
    clip_source = _clip_beside(head_path)
    folder = weights.find_model_folder(clip_source)
    clip = load_pretrained(CLIPModel, folder, clip_source)
    head = build_head(read_tensors(head_path), int(clip.config.projection_dim), source)
    preprocess, configs = load_preprocess(folder, int(clip.config.vision_config.image_size))
    files = [head_path, *weights.model_files(folder, clip_source), *configs]
    return AestheticScorer(
        identity=weights.identify("aesthetic", _CODE_VERSION, files),
        tower=freeze(clip.vision_model, torch_device),
        projection=freeze(clip.visual_projection, torch_device),
        head=freeze(head, torch_device),
        preprocess=preprocess,
        device=torch_device,
        batch_size=batch_size,
    )


def _clip_beside(head_path: Path) -> str:
    folder = head_path.parent
    return str(folder) if (folder / "config.json").is_file() else weights.OPENAI_CLIP_L
