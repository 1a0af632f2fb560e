"""LoRA on the denoiser: attach, read, load in place, disable, and a strength for every image of a batch.

The layers are peft's, so that the files are standard. A model holds exactly one adapter, always under the same name;
another version is a copy into the same tensors (`load_state_in_place`), never a second adapter: libraries that keep
several confuse names that contain one another, and half-finished swaps leave a mixture.

A layer computes  y = base(x) + B(A(x)) * scaling,  scaling = lora_alpha / rank.

Shapes:  B images in the batch of the denoiser;  r rank.
    Linear  A (r, in), B (out, r);   Conv2d  A (r, in, kh, kw), B (out, r, 1, 1)
Keys are those of the file: `<component>.<module>.lora_A.weight` and `<component>.<module>.lora_B.weight`, where the
component is `unet` or `transformer`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from diffusers import ModelMixin
from peft import LoraConfig
from torch import Tensor, nn

from dmpo_app.diffusion.families.protocol import ModelFamily
from dmpo_app.diffusion.fused_lora import ADAPTER_NAME, lora_layers, reference_mode
from dmpo_app.errors import AdapterCorruptError, AdapterMismatchError
from dmpo_app.settings import RoundSettings

COMPONENTS = ("unet", "transformer")
MAX_RANK = 512


@dataclass(frozen=True, slots=True)
class LoraSpec:
    """The shape of a LoRA adapter: `rank` in 1..512, `lora_alpha` > 0, and the denoiser's layers that carry it.

    `target_modules` are ends of module names (whole parts between dots); `component` is the denoiser's name in a
    pipeline. A family has presets of the former (`ModelFamily.targets`).
    """

    rank: int
    lora_alpha: float
    target_modules: tuple[str, ...]
    component: str = "unet"

    def __post_init__(self) -> None:
        if not 1 <= self.rank <= MAX_RANK:
            raise AdapterMismatchError(f"a LoRA rank of {self.rank} is not between 1 and {MAX_RANK}")
        if not (math.isfinite(self.lora_alpha) and self.lora_alpha > 0):
            raise AdapterMismatchError(f"a lora_alpha of {self.lora_alpha} is not a positive number")
        names = self.target_modules
        if not isinstance(names, tuple) or not names or not all(isinstance(name, str) and name for name in names):
            raise AdapterMismatchError(f"target_modules {names!r} is not a tuple of the ends of module names")
        if self.component not in COMPONENTS:
            raise AdapterMismatchError(f"an adapter of {self.component!r} is of none of {', '.join(COMPONENTS)}")

    @classmethod
    def from_settings(cls, settings: RoundSettings, family: ModelFamily) -> LoraSpec:
        """The spec of the adapters that rounds with these settings train on models of this family."""
        setting = settings.target_modules
        preset = family.default_targets if setting == "auto" else setting
        modules = family.targets[preset] if isinstance(preset, str) else preset
        return cls(settings.rank, settings.lora_alpha, modules, family.component)

    @property
    def scaling(self) -> float:
        """The factor of B(A(x)) at strength 1: lora_alpha / rank."""
        return self.lora_alpha / self.rank

    def to_config(self) -> LoraConfig:
        return LoraConfig(r=self.rank, lora_alpha=cast(int, self.lora_alpha), target_modules=list(self.target_modules))

    def to_metadata(self) -> str:
        """The text that diffusers expects under `lora_adapter_metadata`: without it lora_alpha is lost on loading."""
        fields = {"r": self.rank, "lora_alpha": self.lora_alpha, "target_modules": list(self.target_modules)}
        return json.dumps({f"{self.component}.{name}": value for name, value in fields.items()}, sort_keys=True)

    @classmethod
    def from_metadata(cls, text: str) -> LoraSpec:
        """Inverse of `to_metadata`. Raises AdapterCorruptError on anything else."""
        try:
            fields = json.loads(text)
            component = next(name for name in COMPONENTS if f"{name}.r" in fields)
            rank, lora_alpha = fields[f"{component}.r"], fields[f"{component}.lora_alpha"]
            modules = fields[f"{component}.target_modules"]
        except (ValueError, KeyError, TypeError, StopIteration) as error:
            raise AdapterCorruptError(f"the adapter's metadata cannot be read: {error!r}") from error
        if not isinstance(rank, int) or not isinstance(lora_alpha, int | float) or not isinstance(modules, list):
            raise AdapterCorruptError(f"the adapter's metadata describes no adapter of the studio: {text[:200]}")
        return cls(rank, float(lora_alpha), tuple(modules), component)


def attach(
    denoiser: ModelMixin, spec: LoraSpec, *, seed: int, dtype: torch.dtype | None = torch.float32
) -> dict[str, nn.Parameter]:
    """Put a fresh adapter on the denoiser and return its trainable parameters by file key, sorted.

    A is uniform in +-1/sqrt(fan_in) from `seed` (drawn on the CPU in float32, so the same on every device), B is zero:
    the model computes exactly what it did before. Everything else of the model is frozen. An adapter that was there
    is removed first. `dtype` None takes the model's own; training keeps float32 whatever the model's is, because
    a bfloat16 weight of 0.02 does not feel a step of 1e-5. The global random state is left alone.
    """
    detach(denoiser)
    _check_targets(denoiser, spec)
    denoiser.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):  # peft draws initial values that are overwritten below
        denoiser.add_adapter(spec.to_config(), adapter_name=ADAPTER_NAME)
    if dtype is not None:
        for layer in lora_layers(denoiser).values():
            layer.lora_A[ADAPTER_NAME].to(dtype)
            layer.lora_B[ADAPTER_NAME].to(dtype)
    parameters = lora_parameters(denoiser, spec.component)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, parameter in parameters.items():
            if _is_a_matrix(key):
                bound = 1 / math.sqrt(parameter[0].numel())
                parameter.copy_(torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator))
            else:
                parameter.zero_()
            parameter.requires_grad_(True)
    return parameters


def detach(denoiser: ModelMixin) -> None:
    """Remove the adapter's layers, so that the denoiser is the base model. Nothing happens when there are none."""
    if getattr(denoiser, "peft_config", None):
        denoiser.unload_lora()


def lora_parameters(denoiser: nn.Module, component: str) -> dict[str, nn.Parameter]:
    """The adapter's own parameters (not copies) by file key, sorted. Empty without an adapter."""
    parameters: dict[str, nn.Parameter] = {}
    for name, layer in lora_layers(denoiser).items():
        for matrix in ("lora_A", "lora_B"):
            parameters[f"{component}.{name}.{matrix}.weight"] = getattr(layer, matrix)[ADAPTER_NAME].weight
    return parameters


def lora_state(denoiser: nn.Module, component: str) -> dict[str, Tensor]:
    """A float32 copy of the adapter on the CPU, by file key: what `adapter_files.write_adapter` takes."""
    return {
        key: parameter.detach().to("cpu", torch.float32, copy=True).contiguous()
        for key, parameter in lora_parameters(denoiser, component).items()
    }


def expected_shapes(denoiser: nn.Module, spec: LoraSpec) -> dict[str, tuple[int, ...]]:
    """The names and shapes of the tensors of an adapter of `spec` on this denoiser, attached or not."""
    suffixes = tuple(f".{suffix}" for suffix in spec.target_modules)
    shapes: dict[str, tuple[int, ...]] = {}
    for wrapped_name, module in denoiser.named_modules():
        name = wrapped_name.removesuffix(".base_layer")  # what peft calls the layer it has wrapped
        if isinstance(module, nn.Linear | nn.Conv2d) and f".{name}".endswith(suffixes):
            out, rest = _sizes(module)
            shapes[f"{spec.component}.{name}.lora_A.weight"] = (spec.rank, *rest)
            shapes[f"{spec.component}.{name}.lora_B.weight"] = (out, spec.rank, *([1] * (len(rest) - 1)))
    return dict(sorted(shapes.items()))


def _sizes(module: nn.Linear | nn.Conv2d) -> tuple[int, tuple[int, ...]]:
    """The output and the other dimensions of a layer's weight; a quantised one stores it in another shape."""
    if isinstance(module, nn.Linear):
        return module.out_features, (module.in_features,)
    return module.weight.shape[0], tuple(module.weight.shape[1:])


def _check_targets(denoiser: nn.Module, spec: LoraSpec) -> None:
    if not expected_shapes(denoiser, spec):
        raise AdapterMismatchError(
            f"no layer of the {type(denoiser).__name__} ends in any of {', '.join(spec.target_modules)}; "
            "check DMPO_ROUND__TARGET_MODULES"
        )


def check_fit(tensors: Mapping[str, Tensor], expected: Mapping[str, Sequence[int]]) -> None:
    """Raise AdapterMismatchError unless the tensors have exactly the expected names and shapes."""
    missing, surplus = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    if missing or surplus:
        example = f"{missing[0]} is missing" if missing else f"{surplus[0]} is not one of its layers"
        raise AdapterMismatchError(
            f"the adapter does not fit the model: {len(missing)} tensors missing, {len(surplus)} unexpected "
            f"({example}); was it trained on another base model or with other target modules?"
        )
    for key, tensor in tensors.items():
        if tuple(tensor.shape) != tuple(expected[key]):
            raise AdapterMismatchError(
                f"the adapter does not fit the model: {key} is {tuple(tensor.shape)}, expected "
                f"{tuple(expected[key])}; was it trained with another rank or on another base model?"
            )


def load_state_in_place(parameters: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Overwrite an adapter's parameters with `tensors`, after checking all names and shapes.

    `parameters` come from `lora_parameters` or `attach`. The tensors keep their identity, so optimizers, compiled
    graphs and gates stay valid. The caller must be the only thread that uses the model: a swap under a running
    forward pass gives an image that belongs to no version. Values are not checked here (`adapter_files` does).
    """
    check_fit(tensors, {key: parameter.shape for key, parameter in parameters.items()})
    keys = list(parameters)
    with torch.no_grad():  # not inference_mode: the parameters must stay ordinary tensors that training can use
        torch._foreach_copy_([parameters[key] for key in keys], [tensors[key] for key in keys])


@contextmanager
def gate(denoiser: nn.Module, spec: LoraSpec, strengths: Sequence[float]) -> Iterator[None]:
    """Apply the adapter to image i of the batch at strength `strengths[i]`: 0 is the base model, 1 the adapter.

    The scaling is held as a tensor with one value an image, as many dimensions as the layer's input has: (B, 1) for
    embeddings, (B, 1, 1) for sequences of tokens, (B, 1, 1, 1) for convolutions. So one pass renders base and adapted
    images side by side. An image with strength 0 gets base(x) + 0 and is therefore exactly what the base model makes
    of the same batch. With guidance the batch is [unconditional..., conditional...]: pass the strengths twice. The
    plain scaling is back on exit.
    """
    if not any(strengths):
        with reference_mode(denoiser):
            yield
        return
    layers = list(lora_layers(denoiser).values())
    gates: dict[tuple[torch.device, torch.dtype], _Gate] = {}
    handles = []
    try:
        for layer in layers:
            weight = layer.lora_B[ADAPTER_NAME].weight
            where = (weight.device, weight.dtype)
            if where not in gates:
                values = torch.tensor([spec.scaling * strength for strength in strengths], dtype=torch.float64)
                gates[where] = _Gate(values.to(weight.dtype).to(weight.device))
            handles.append(layer.register_forward_pre_hook(gates[where]))
        yield
    finally:
        for handle in handles:
            handle.remove()
        for layer in layers:
            layer.scaling[ADAPTER_NAME] = spec.scaling


class _Gate:
    """Forward pre-hook that sets the scaling of a layer's adapter in the shape that goes with the layer's input.

    Only the input shows the shape: one linear layer may see tokens (B, S, D), the next a whole embedding (B, D).
    """

    def __init__(self, values_B: Tensor) -> None:
        self._values = values_B
        self._shaped: dict[int, Tensor] = {}

    def __call__(self, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        ndim = inputs[0].ndim
        if ndim not in self._shaped:
            self._shaped[ndim] = self._values.view(-1, *([1] * (ndim - 1)))
        cast(Any, layer).scaling[ADAPTER_NAME] = self._shaped[ndim]


def _is_a_matrix(key: str) -> bool:
    return key.endswith(".lora_A.weight")
