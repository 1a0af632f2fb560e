"""Scores from CLIP's two towers: CLIP score, PickScore, HPSv2.1; and from its image tower: the aesthetic predictor.

The first three are a multiple of cos(image, prompt), the cosine of the two towers' embeddings; they differ in weights:

    clip       100 cos; scale 100 / exp(logit_scale), CLIP's own contrastive log odds (Radford et al. 2021)
    pickscore  exp(logit_scale) cos; scale 1: it was trained as softmax over the scores of two images (Kirstain et al.
               2023, arXiv 2305.01569)
    hpsv2      cos; scale 1 / exp(logit_scale), trained as softmax over exp(logit_scale) cos (Wu et al. 2023, arXiv
               2306.09341)

The LAION aesthetic predictor v2 (Schuhmann 2022, improved-aesthetic-predictor) rates from 1 to 10; the prompt plays no
part. The unit vector of CLIP ViT-L/14's image embedding goes through the linear head `sac+logos+ava1-l14-linearMSE`.

Shapes:  B images;  D the towers' shared dimension (ViT-L/14: 768);  L the longest prompt in tokens, 77 for the
         published models.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import accelerate
import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from dmpo_app.diffusion.placement import resolve_device
from dmpo_app.errors import ModelUnavailableError
from dmpo_app.scoring import networks, weights
from dmpo_app.scoring.registry import score_in_batches

# open_clip's model_configs/ViT-H-14.json
VIT_H_14: dict[str, Any] = {
    "embed_dim": 1024,
    "vision_cfg": {"image_size": 224, "layers": 32, "width": 1280, "head_width": 80, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 1024, "heads": 16, "layers": 24},
}

_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_WHOLE = {
    "logit_scale": "logit_scale",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",  # the spelling is transformers'
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
}
_TRANSPOSED = {"text_projection": "text_projection.weight", "visual.proj": "visual_projection.weight"}
_TOWERS = {"visual.transformer.resblocks.": "vision_model", "transformer.resblocks.": "text_model"}
_RECOMPUTED = {"attn_mask"}  # the causal mask, a buffer that older checkpoints carry

_CODE_VERSION = 1
# The head was fitted to people's ratings by least squares, so it has no log odds of its own. In AVA, most of its data,
# one image's ratings spread by 1.4; two people's by 2, which is a logistic scale of 2 * sqrt(3) / pi = 1.1.
_AESTHETIC_SCALE = 1.0


class ClipTowers:
    """CLIP's image and text tower with their tokenizer and preprocessing."""

    def __init__(
        self, model: Any, tokenizer: CLIPTokenizer, preprocess: networks.Preprocess, device: torch.device
    ) -> None:
        self.logit_scale = float(model.logit_scale.detach().exp())
        self._model: Any = networks.freeze(model, device)
        self._tokenizer = tokenizer
        self._preprocess = preprocess
        self._device = device
        self._num_tokens = int(model.config.text_config.max_position_embeddings)

    def cosines(self, images: Sequence[PIL.Image.Image], prompts: Sequence[str]) -> NDArray[np.float32]:
        """The cosine similarity of each image and its prompt, (B,), in [-1, 1]."""
        with torch.inference_mode():
            cosines = (self._embed_images(images) * self._embed_prompts(prompts)).sum(-1)
        return cast(NDArray[np.float32], cosines.float().cpu().numpy())

    def _embed_images(self, images: Sequence[PIL.Image.Image]) -> Tensor:
        """Embed images as unit vectors (B, D)."""
        pixels = torch.from_numpy(self._preprocess(images)).to(self._device)
        embeds: Tensor = self._model.get_image_features(pixel_values=pixels).pooler_output
        return functional.normalize(embeds, dim=-1)

    def _embed_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Embed prompts as unit vectors (B, D). The two images of a pair share their prompt: each is embedded once."""
        distinct = list(dict.fromkeys(prompts))
        tokens = tokenize(self._tokenizer, distinct, self._num_tokens).to(self._device)
        embeds: Tensor = self._model.get_text_features(input_ids=tokens).pooler_output
        return functional.normalize(embeds, dim=-1)[[distinct.index(prompt) for prompt in prompts]]


@dataclass(frozen=True, slots=True)
class ClipScorer:
    """Scorer by `factor` times the cosine of image and prompt."""

    name: str
    identity: str
    scale: float
    factor: float
    towers: ClipTowers
    batch_size: int

    def score(self, images: Sequence[PIL.Image.Image], prompts: Sequence[str]) -> NDArray[np.float32]:
        """Score images for their prompts; see `Scorer.score`."""
        return score_in_batches(self.name, self._score_batch, images, prompts, self.batch_size)

    def _score_batch(self, images: Sequence[PIL.Image.Image], prompts: Sequence[str]) -> NDArray[np.float32]:
        return self.towers.cosines(images, prompts) * np.float32(self.factor)


def build_clip(source: str, device: str, batch_size: int) -> ClipScorer:
    """Build the CLIP score, 100 cos, of any CLIPModel folder or hub id. Raises ModelUnavailableError or SetupError."""
    towers, identity = _load_towers("clip", source, device, tokenizer_otherwise=None)
    return ClipScorer("clip", identity, 100.0 / towers.logit_scale, 100.0, towers, batch_size)


def build_pickscore(source: str, device: str, batch_size: int) -> ClipScorer:
    """Build PickScore, exp(logit_scale) cos, of its folder or hub id. Raises ModelUnavailableError or SetupError."""
    towers, identity = _load_towers("pickscore", source, device, tokenizer_otherwise=weights.LAION_CLIP_H)
    return ClipScorer("pickscore", identity, 1.0, towers.logit_scale, towers, batch_size)


def build_hpsv2(source: str, device: str, batch_size: int) -> ClipScorer:
    """Build HPSv2.1, cos, from a safetensors file in open_clip's layout. Raises ModelUnavailableError or SetupError.

    ViT-H-14 unless an `open_clip_config.json` beside the file says otherwise.
    """
    torch_device = resolve_device(device)
    path = weights.find_weights_file(source, conversion=weights.HPSV2)
    config = path.parent / "open_clip_config.json"
    settings = weights.read_json(config) if config.is_file() else VIT_H_14
    model = build_clip_model(networks.read_tensors(path), settings.get("model_cfg", settings), source)
    vocabulary = weights.clip_tokenizer_folder(path.parent, otherwise=weights.LAION_CLIP_H)
    preprocess = networks.Preprocess(int(model.config.vision_config.image_size))
    towers = ClipTowers(model, load_tokenizer(vocabulary, model.config.text_config), preprocess, torch_device)
    files = [*([config] if config.is_file() else []), path, *weights.tokenizer_files(vocabulary)]
    identity = weights.identify("hpsv2", _CODE_VERSION, files)
    return ClipScorer("hpsv2", identity, 1.0 / towers.logit_scale, 1.0, towers, batch_size)


def load_preprocess(folder: Path, size: int) -> tuple[networks.Preprocess, list[Path]]:
    """Load mean and deviation from `preprocessor_config.json`, else CLIP's own; return the files they are from too."""
    path = folder / "preprocessor_config.json"
    config = weights.read_json(path) if path.is_file() else {}
    mean, deviation = config.get("image_mean", networks.CLIP_MEAN), config.get("image_std", networks.CLIP_DEVIATION)
    return networks.Preprocess(size, tuple(mean), tuple(deviation)), [path] if path.is_file() else []


def tokenize(tokenizer: CLIPTokenizer, prompts: Sequence[str], num_tokens: int) -> Tensor:
    """Tokenize prompts, (len(prompts), num_tokens), cut and padded to one length, so that neighbours do not matter."""
    encoded = tokenizer(
        list(prompts), padding="max_length", truncation=True, max_length=num_tokens, return_tensors="pt"
    )
    return cast(Tensor, encoded["input_ids"])


def load_tokenizer(folder: Path, text_config: Any) -> CLIPTokenizer:
    """Load the tokenizer of a model.

    Raises ModelUnavailableError when its end mark is not the model's: every prompt would be read at its first token.
    """
    with networks.translate_load_errors(str(folder)):
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    end_token_id, vocab_size = text_config.eos_token_id, text_config.vocab_size
    # 2 stands in configurations of before transformers 4.31, which then looks for the highest token, as CLIP did.
    if (end_token_id != 2 and tokenizer.eos_token_id != end_token_id) or len(tokenizer) > vocab_size:
        raise ModelUnavailableError(
            f"the tokenizer in {folder} ends prompts with token {tokenizer.eos_token_id} of {len(tokenizer)}, "
            f"the model expects {end_token_id} of {vocab_size}; it belongs to another model"
        )
    return tokenizer


def _load_towers(name: str, source: str, device: str, *, tokenizer_otherwise: str | None) -> tuple[ClipTowers, str]:
    torch_device = resolve_device(device)
    folder = weights.find_model_folder(source)
    model = networks.load_pretrained(CLIPModel, folder, source)
    vocabulary = weights.clip_tokenizer_folder(folder, otherwise=tokenizer_otherwise)
    preprocess, configs = load_preprocess(folder, int(model.config.vision_config.image_size))
    towers = ClipTowers(model, load_tokenizer(vocabulary, model.config.text_config), preprocess, torch_device)
    files = [*weights.model_files(folder, source), *configs, *weights.tokenizer_files(vocabulary)]
    return towers, weights.identify(name, _CODE_VERSION, files)


@dataclass(frozen=True, slots=True)
class AestheticScorer:
    """Scorer by the predicted aesthetic rating; prompts do not matter."""

    identity: str
    tower: nn.Module
    projection: nn.Module
    head: networks.RewardHead
    preprocess: networks.Preprocess
    device: torch.device
    batch_size: int
    name: str = "aesthetic"
    scale: float = _AESTHETIC_SCALE

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
    clip = networks.load_pretrained(CLIPModel, folder, clip_source)
    head = networks.build_head(networks.read_tensors(head_path), int(clip.config.projection_dim), source)
    preprocess, configs = load_preprocess(folder, int(clip.config.vision_config.image_size))
    files = [head_path, *weights.model_files(folder, clip_source), *configs]
    return AestheticScorer(
        identity=weights.identify("aesthetic", _CODE_VERSION, files),
        tower=networks.freeze(clip.vision_model, torch_device),
        projection=networks.freeze(clip.visual_projection, torch_device),
        head=networks.freeze(head, torch_device),
        preprocess=preprocess,
        device=torch_device,
        batch_size=batch_size,
    )


def _clip_beside(head_path: Path) -> str:
    folder = head_path.parent
    return str(folder) if (folder / "config.json").is_file() else weights.OPENAI_CLIP_L


def build_clip_model(tensors: Mapping[str, Tensor], settings: Mapping[str, Any], source: str) -> CLIPModel:
    """Build the model from open_clip's tensors and `model_cfg`. Raises ModelUnavailableError when they do not fit."""
    with networks.translate_load_errors(source):
        config = _clip_config(settings)
        with accelerate.init_empty_weights():  # a billion random numbers would only be overwritten
            model = CLIPModel(config)
    networks.load_strict(model, rename_tensors(tensors, source), source)
    return model


def rename_tensors(tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Rename tensors to CLIPModel's names. Raises ModelUnavailableError for a name open_clip's CLIP does not have."""
    renamed: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if name in _RECOMPUTED:
            continue
        if name in _WHOLE:
            renamed[_WHOLE[name]] = value
        elif name in _TRANSPOSED:
            renamed[_TRANSPOSED[name]] = value.T.contiguous()
        else:
            renamed.update(_rename_in_block(name, value, source))
    return renamed


def _rename_in_block(name: str, value: Tensor, source: str) -> Iterable[tuple[str, Tensor]]:
    for prefix, tower in _TOWERS.items():
        if name.startswith(prefix):
            number, _, part = name.removeprefix(prefix).partition(".")
            layer = f"{tower}.encoder.layers.{number}"
            if part in {"attn.in_proj_weight", "attn.in_proj_bias"}:
                kind = part.removeprefix("attn.in_proj_")
                thirds = zip("qkv", value.chunk(3), strict=True)
                return [(f"{layer}.self_attn.{letter}_proj.{kind}", third.contiguous()) for letter, third in thirds]
            stem, _, kind = part.rpartition(".")
            if stem in _BLOCK:
                return [(f"{layer}.{_BLOCK[stem]}.{kind}", value)]
    raise ModelUnavailableError(
        f"{source} holds {name}, which open_clip's CLIP does not have; weights in open_clip's layout are needed "
        "(the state_dict of HPS_v2.1_compressed.pt, for example)"
    )


def _clip_config(settings: Mapping[str, Any]) -> CLIPConfig:
    vision, text = settings["vision_cfg"], settings["text_cfg"]
    activation = "quick_gelu" if settings.get("quick_gelu") else "gelu"
    return CLIPConfig(
        projection_dim=settings["embed_dim"],
        vision_config={
            "hidden_size": vision["width"],
            "intermediate_size": int(vision["width"] * vision.get("mlp_ratio", 4.0)),
            "num_hidden_layers": vision["layers"],
            "num_attention_heads": vision["width"] // vision.get("head_width", 64),
            "image_size": vision["image_size"],
            "patch_size": vision["patch_size"],
            "hidden_act": activation,
        },
        text_config={
            "vocab_size": text["vocab_size"],
            "hidden_size": text["width"],
            "intermediate_size": int(text["width"] * text.get("mlp_ratio", 4.0)),
            "num_hidden_layers": text["layers"],
            "num_attention_heads": text["heads"],
            "max_position_embeddings": text["context_length"],
            "hidden_act": activation,
            # open_clip reads the prompt at its highest token, which is the end mark, the last of the vocabulary.
            "eos_token_id": text["vocab_size"] - 1,
            "bos_token_id": text["vocab_size"] - 2,
        },
    )
