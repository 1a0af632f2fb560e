"""LoRA on the denoiser: attach, read out, copy in, switch off, and a strength of its own for every image of a batch.

The layers are peft's, so that the files are standard. A model holds exactly one adapter, always under the same name;
another version is a copy into the same tensors (`load_state_in_place`), never a second adapter: libraries that keep
several confuse names that contain one another, and half-finished swaps leave a mixture.

A layer computes  y = base(x) + B(A(x)) * scaling,  scaling = lora_alpha / rank.

Shapes:  B images in the batch of the denoiser;  r rank.
    Linear  A (r, in), B (out, r);   Conv2d  A (r, in, kh, kw), B (out, r, 1, 1)
Keys are those of the file: `unet.<module>.lora_A.weight` and `unet.<module>.lora_B.weight`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from dmpo_app.errors import AdapterCorrupt, AdapterMismatch
from dmpo_app.settings import RoundSettings

ADAPTER_NAME = "studio"
KEY_PREFIX = "unet"
MAX_RANK = 512

TargetModules = Literal["attention", "wide"]
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
WIDE = (*ATTENTION, "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv1", "conv2", "conv_shortcut")
"""The attention's neighbours and the residual blocks' convolutions too: what an image's layout is made of."""
TARGETS: Mapping[TargetModules, tuple[str, ...]] = {"attention": ATTENTION, "wide": WIDE}


@dataclass(frozen=True, slots=True)
class LoraSpec:
    """What decides the tensors of an adapter: `rank` in 1..512, `lora_alpha` > 0, and which layers."""

    rank: int
    lora_alpha: float
    target_modules: TargetModules

    def __post_init__(self) -> None:
        if not 1 <= self.rank <= MAX_RANK:
            raise AdapterMismatch(f"a LoRA rank of {self.rank} is not between 1 and {MAX_RANK}")
        if not (math.isfinite(self.lora_alpha) and self.lora_alpha > 0):
            raise AdapterMismatch(f"a lora_alpha of {self.lora_alpha} is not a positive number")
        if self.target_modules not in TARGETS:
            raise AdapterMismatch(f"target_modules {self.target_modules!r} is not one of {', '.join(TARGETS)}")

    @classmethod
    def of(cls, settings: RoundSettings) -> LoraSpec:
        """The adapter that rounds with these settings train."""
        return cls(settings.rank, settings.lora_alpha, settings.target_modules)

    @property
    def scaling(self) -> float:
        """lora_alpha / rank: what B(A(x)) is multiplied by at strength 1."""
        return self.lora_alpha / self.rank

    def to_config(self) -> LoraConfig:
        return LoraConfig(
            r=self.rank, lora_alpha=cast(int, self.lora_alpha), target_modules=list(TARGETS[self.target_modules])
        )

    def to_metadata(self) -> str:
        """The text that diffusers expects under `lora_adapter_metadata`: without it lora_alpha is lost on loading."""
        fields = {"r": self.rank, "lora_alpha": self.lora_alpha, "target_modules": list(TARGETS[self.target_modules])}
        return json.dumps({f"{KEY_PREFIX}.{name}": value for name, value in fields.items()}, sort_keys=True)

    @classmethod
    def from_metadata(cls, text: str) -> LoraSpec:
        """Inverse of `to_metadata`. Raises AdapterCorrupt on anything else."""
        try:
            fields = json.loads(text)
            rank, lora_alpha = fields[f"{KEY_PREFIX}.r"], fields[f"{KEY_PREFIX}.lora_alpha"]
            modules = frozenset(fields[f"{KEY_PREFIX}.target_modules"])
        except (ValueError, KeyError, TypeError) as error:
            raise AdapterCorrupt(f"the adapter's metadata cannot be read: {error!r}") from error
        name = next((name for name, suffixes in TARGETS.items() if frozenset(suffixes) == modules), None)
        if name is None or not isinstance(rank, int) or not isinstance(lora_alpha, int | float):
            raise AdapterCorrupt(f"the adapter's metadata describes no adapter of the studio: {text[:200]}")
        return cls(rank=rank, lora_alpha=float(lora_alpha), target_modules=name)


def attach(
    unet: UNet2DConditionModel, spec: LoraSpec, *, seed: int, dtype: torch.dtype | None = torch.float32
) -> dict[str, nn.Parameter]:
    """Put a fresh adapter on the denoiser and return its trainable parameters by file key, sorted.

    A is uniform in +-1/sqrt(fan_in) from `seed` (drawn on the CPU in float32, so the same on every device), B is zero:
    the model computes exactly what it did before. Everything else of the model is frozen. An adapter that was there
    is removed first. `dtype` None takes the model's own; training keeps float32 whatever the model's is, because
    a bfloat16 weight of 0.02 does not feel a step of 1e-5. The global random state is left alone.
    """
    detach(unet)
    unet.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):  # peft draws initial values that are overwritten below
        unet.add_adapter(spec.to_config(), adapter_name=ADAPTER_NAME)
    if dtype is not None:
        for layer in lora_layers(unet).values():
            layer.lora_A[ADAPTER_NAME].to(dtype)
            layer.lora_B[ADAPTER_NAME].to(dtype)
    parameters = lora_parameters(unet)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, parameter in parameters.items():
            if _is_a(key):
                bound = 1 / math.sqrt(parameter[0].numel())
                parameter.copy_(torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator))
            else:
                parameter.zero_()
            parameter.requires_grad_(True)
    return parameters


def detach(unet: UNet2DConditionModel) -> None:
    """Take the adapter's layers out again; the denoiser is the base model. Nothing happens when there are none."""
    if getattr(unet, "peft_config", None):
        unet.unload_lora()


def lora_layers(unet: nn.Module) -> dict[str, LoraLayer]:
    """The denoiser's layers that carry the adapter, by module name, sorted."""
    found = {
        name: module
        for name, module in unet.named_modules()
        if isinstance(module, LoraLayer) and ADAPTER_NAME in module.lora_A
    }
    return dict(sorted(found.items()))


def lora_parameters(unet: nn.Module) -> dict[str, nn.Parameter]:
    """The adapter's own parameters (not copies) by file key, sorted. Empty without an adapter."""
    parameters: dict[str, nn.Parameter] = {}
    for name, layer in lora_layers(unet).items():
        for matrix in ("lora_A", "lora_B"):
            parameters[f"{KEY_PREFIX}.{name}.{matrix}.weight"] = getattr(layer, matrix)[ADAPTER_NAME].weight
    return parameters


def lora_state(unet: nn.Module) -> dict[str, Tensor]:
    """A float32 copy of the adapter on the CPU, by file key: what `adapter_files.write_adapter` takes."""
    return {
        key: parameter.detach().to("cpu", torch.float32, copy=True).contiguous()
        for key, parameter in lora_parameters(unet).items()
    }


def expected_shapes(unet: nn.Module, spec: LoraSpec) -> dict[str, tuple[int, ...]]:
    """The tensors an adapter of `spec` must have on this denoiser, whether or not one is attached."""
    suffixes = tuple(f".{suffix}" for suffix in TARGETS[spec.target_modules])
    shapes: dict[str, tuple[int, ...]] = {}
    for wrapped_name, module in unet.named_modules():
        name = wrapped_name.removesuffix(".base_layer")  # what peft calls the layer it has wrapped
        if isinstance(module, nn.Linear | nn.Conv2d) and f".{name}".endswith(suffixes):
            out, *rest = module.weight.shape
            shapes[f"{KEY_PREFIX}.{name}.lora_A.weight"] = (spec.rank, *rest)
            shapes[f"{KEY_PREFIX}.{name}.lora_B.weight"] = (out, spec.rank, *([1] * (len(rest) - 1)))
    return dict(sorted(shapes.items()))


def check_fit(tensors: Mapping[str, Tensor], expected: Mapping[str, Sequence[int]]) -> None:
    """Raise AdapterMismatch unless the tensors have exactly the expected names and shapes."""
    missing, surplus = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    if missing or surplus:
        example = f"{missing[0]} is missing" if missing else f"{surplus[0]} is not one of its layers"
        raise AdapterMismatch(
            f"the adapter does not fit the model: {len(missing)} tensors missing, {len(surplus)} unexpected "
            f"({example}); was it trained on another base model or with other target modules?"
        )
    for key, tensor in tensors.items():
        if tuple(tensor.shape) != tuple(expected[key]):
            raise AdapterMismatch(
                f"the adapter does not fit the model: {key} is {tuple(tensor.shape)}, expected "
                f"{tuple(expected[key])}; was it trained with another rank or on another base model?"
            )


def load_state_in_place(parameters: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]) -> None:
    """Overwrite an adapter's parameters with `tensors`; names and shapes are checked before the first byte moves.

    `parameters` come from `lora_parameters` or `attach`. The tensors keep their identity, so optimizers, compiled
    graphs and gates stay valid. The caller must be the only thread that uses the model: a swap under a running
    forward pass gives an image that belongs to no version. Values are not looked at here (`adapter_files` does).
    """
    check_fit(tensors, {key: parameter.shape for key, parameter in parameters.items()})
    keys = list(parameters)
    with torch.no_grad():  # not inference_mode: the parameters must stay ordinary tensors that training can use
        torch._foreach_copy_([parameters[key] for key in keys], [tensors[key] for key in keys])


@contextmanager
def reference_mode(unet: nn.Module) -> Iterator[None]:
    """The base model, without the adapter. The adapter is back on exit, whatever happens inside.

    Seen by everything that holds this module, so only for the thread that owns it.
    """
    layers = list(lora_layers(unet).values())
    trainable = [parameter.requires_grad for parameter in lora_parameters(unet).values()]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
        # peft clears and sets requires_grad along with the switch; what it was before counts.
        for parameter, flag in zip(lora_parameters(unet).values(), trainable, strict=True):
            parameter.requires_grad_(flag)


@contextmanager
def gate(unet: nn.Module, spec: LoraSpec, strengths: Sequence[float]) -> Iterator[None]:
    """Give image i of the batch the adapter at strength `strengths[i]`: 0 is the base model, 1 the adapter.

    The scaling is held as a tensor with one value an image, (B, 1, 1) for projections of token sequences and
    (B, 1, 1, 1) for convolutions, so one pass renders base and adapted images side by side. An image with strength 0
    gets base(x) + 0 and is therefore exactly what the base model makes of the same batch. With guidance the batch is
    [unconditional..., conditional...]: pass the strengths twice. The plain scaling is back on exit.
    """
    if not any(strengths):
        with reference_mode(unet):
            yield
        return
    layers = list(lora_layers(unet).values())
    columns: dict[tuple[torch.device, torch.dtype, int], Tensor] = {}
    try:
        for layer in layers:
            weight = layer.lora_B[ADAPTER_NAME].weight
            rank = 4 if weight.ndim == 4 else 3
            where = (weight.device, weight.dtype, rank)
            if where not in columns:
                values = torch.tensor([spec.scaling * strength for strength in strengths], dtype=torch.float64)
                columns[where] = values.to(weight.dtype).to(weight.device).view(-1, *([1] * (rank - 1)))
            cast(dict[str, Any], layer.scaling)[ADAPTER_NAME] = columns[where]
        yield
    finally:
        for layer in layers:
            layer.scaling[ADAPTER_NAME] = spec.scaling


def _is_a(key: str) -> bool:
    return key.endswith(".lora_A.weight")
