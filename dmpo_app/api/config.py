"""Configuration of a training from Python, and the words of its errors."""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from pydantic import ValidationError
from pydantic_settings import SettingsConfigDict

from dmpo_app.errors import BadInputError, StudioError
from dmpo_app.settings import RenderSettings, RoundSettings, Settings


@dataclass(frozen=True, kw_only=True)
class DMPOConfig:
    """Configuration of a training. A field that is None is found from the data or is the usual one, as it says."""

    output_dir: str | os.PathLike[str] = "dmpo-output"
    """Folder of the adapter and of what a training keeps on the way; made anew, unless `resume`."""
    resume: bool = False
    """Go on with a stopped training of the same model, pairs and configuration that is in `output_dir`."""

    objective: str = "dmpo"
    """Name of a preference objective: dmpo, dpo, ipo, kto, ... (`losses.OBJECTIVES`), or one of one's own."""
    objective_options: Mapping[str, float] = field(default_factory=dict)
    """The objective's own numbers where they are not to be the usual ones, such as {"order": 0.5}."""
    beta: float | None = None
    """Scale of the objective's margin u, > 0; None: from how much the base model's errors differ within pairs."""
    beta_scale: float = 1.0
    """Factor on a beta found from the data; 0.3 learns more from few or noisy votes and costs some diversity."""
    alpha: float = 0.05
    """Softness of the target: the chosen image wins with probability 1 - alpha."""
    winner_guard: float | None = None
    """mu in 0..1 of the winner-preserving guard, with any objective; None: off."""

    num_steps: int | None = None
    """Optimizer steps; None: one pass over the pairs, 80 at least and 2,000 at most."""
    batch_pairs: int = 8
    """Pairs per step."""
    learning_rate: float | None = None
    """The optimizer's, before `lr_schedule`; None: 1e-3, and 1 for prodigy."""
    lr_schedule: Literal["constant", "cosine", "linear"] = "constant"
    """The learning rate over the training: it stays, or falls to near 0 at the end."""
    warmup_steps: int = 0
    """Steps over which the learning rate grows to its full size."""
    optimizer: Literal["adamw", "adamw8bit", "prodigy", "adafactor"] = "adamw"
    """adamw8bit needs bitsandbytes and a CUDA GPU, prodigy needs prodigyopt."""
    weight_decay: float = 0.0
    """Pull of the adapter back to the base model in each step; times the learning rate."""
    max_grad_norm: float = 1.0
    """Norm that the gradient is scaled down to."""
    ema_decay: float | None = None
    """Decay of a moving average of the adapter, such as 0.9, which is then what is evaluated and saved; None: off."""

    rank: int = 8
    """LoRA rank."""
    lora_alpha: float = 8.0
    """LoRA scale numerator: the adapter is added times lora_alpha / rank."""
    target_modules: Literal["auto", "attention", "wide"] | tuple[str, ...] = "auto"
    """Layers that carry the adapter: attention projections, convolutions too (wide), or ends of module names; auto:
    wide for Stable Diffusion 1 and 2 and the pocket model, attention for larger ones."""

    slots_per_pair: int = 16
    """Fixed (timestep, noise seed) samples of a pair; the reference is computed once for each."""
    timestep_sampling: Literal["uniform", "logit_normal", "mode"] = "uniform"
    """Distribution of the samples over the noise levels."""
    caption_dropout: float = 0.0
    """Share of the samples that are trained with the empty prompt in place of the pair's."""
    gradient_checkpointing: Literal["auto", "on", "off"] = "auto"
    """Computing activations again in the backward pass to save memory; auto: when a single pair does not fit."""
    compile: bool = False
    """Compile the denoiser with torch.compile."""

    held_out_share: float | None = None
    """Share of the prompts whose pairs evaluate the adapter and do not train it; None: 0.2, 512 pairs at most."""
    evaluate_every: int | None = None
    """Steps between two evaluations on the held-out pairs; None: twenty evaluations, and every 20 steps at most."""
    limits: Mapping[str, float | None] = field(default_factory=dict)
    """Limits that end a training early where they are not to be the usual ones, such as {"adapter_rms": 0.3}; None
    switches one off. They are `grad_norm`, `grad_norm_steps`, `adapter_rms`, `min_chosen_gain`, `chosen_gain_looks`."""
    checkpoint_seconds: float = 20.0
    """Interval of checkpoints: what a killed process loses at most."""
    seed: int = 0
    """Seed of the split, the noise and the order: the same seed gives the same adapter on the same machine."""

    max_pairs: int | None = None
    """Pairs that are used at most, the first ones; no more is read."""
    resolution: int | None = None
    """Pixels a side of the images in training; None: the base model's own."""
    encode_batch: int = 4
    """Pairs that are encoded at a time."""
    device: str = "auto"
    """auto: cuda, then mps, then cpu. A loaded pipeline is trained where it is."""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """Of the base model; the adapter is float32 in any case. A loaded pipeline is trained as it is."""
    quantize: Literal["none", "nf4", "int8"] = "none"
    """The denoiser in fewer bits. A loaded pipeline is trained as it is."""

    def __post_init__(self) -> None:
        """Raise BadInputError that names every field with a value that is no such thing."""
        problems = [self._problem(self.round_settings), self._problem(self.render_settings)]
        for name in ("max_pairs", "encode_batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                problems.append(f"{name}={value!r}: expected 1 or more")
        if told := [problem for problem in problems if problem]:
            raise BadInputError(f"DMPOConfig: {'; '.join(told)}")

    def round_settings(self) -> RoundSettings:
        """The settings of a round that train like this; fields that are None are left to it."""
        names = {one.name for one in fields(self)} & set(RoundSettings.model_fields)
        values = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return RoundSettings.model_validate({**values, "slice_seconds": self.checkpoint_seconds})

    def render_settings(self) -> RenderSettings:
        """The settings of device and precision."""
        return RenderSettings(device=self.device, dtype=self.dtype, quantize=self.quantize)

    def to_settings(self, base_model: str) -> Settings:
        """All settings of a training, from this alone: no environment variable, no dmpo.toml."""
        return _ExplicitSettings(base_model=base_model, round=self.round_settings(), render=self.render_settings())

    @staticmethod
    def _problem(make_settings: Callable[[], object]) -> str:
        try:
            make_settings()
        except ValidationError as error:
            return "; ".join(
                f"{'.'.join(map(str, one['loc'])) or 'rankings'}={one['input']!r}: {one['msg']}"
                for one in error.errors()
            ).replace("slice_seconds", "checkpoint_seconds")
        return ""


class _ExplicitSettings(Settings):
    """Settings from what they are given alone."""

    model_config = SettingsConfigDict(toml_file=None)

    @classmethod
    def settings_customise_sources(cls, *sources: Any, **named_sources: Any) -> tuple[Any, ...]:
        """Keep the first source, which is what the constructor was given; the class itself comes before it."""
        return (named_sources["init_settings"] if "init_settings" in named_sources else sources[1],)


_SETTING = re.compile(r"DMPO_(?:ROUND|RENDER)__([A-Z_]+)")


@contextmanager
def python_words() -> Iterator[None]:
    """Context manager that puts the names of arguments for those of variables and options in messages of errors."""
    try:
        yield
    except StudioError as error:
        message = _SETTING.sub(lambda match: match[1].lower(), str(error))
        error.args = (message.replace("DMPO_BASE_MODEL", "the model").replace("--output", "output_dir"),)
        raise
