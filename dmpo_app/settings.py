"""One typed tree of settings: DMPO_* environment variables over dmpo.toml over the defaults here.

The most used ones stand at the top level (`DMPO_MIN_VOTES`); groups nest with two underscores (`DMPO_ROUND__BETA`).
`dmpo.toml` is read from the current folder. Nonsense is refused with the value in the message.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

PROJECT_ROOT = Path(__file__).resolve().parent.parent
POCKET_MODEL = PROJECT_ROOT / "data" / "pocket"


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class RenderSettings(_Group):
    """How images are made."""

    num_steps: Annotated[int, Field(ge=1, le=200)] | None = None
    """Denoising steps; None: what goes with the base model (pocket model 20, Stable Diffusion and XL 30, 3.5 and
    Flux 28)."""
    guidance: Annotated[float, Field(ge=0, le=30)] | None = None
    """Guidance scale, 1 or less switches it off; None: what goes with the base model (pocket model 3, Stable Diffusion
    7.5, XL 5, 3.5 4.5, Flux 3.5)."""
    sampler: Literal["auto", "ddim", "dpm++", "flow-euler"] = "auto"
    """`ddim` is deterministic given the initial noise; `dpm++` is DPM-Solver++ (2M); `flow-euler` is for models of flow
    matching (Stable Diffusion 3, Flux). auto: the model's first, ddim or flow-euler."""
    resolution: Annotated[int, Field(ge=64, le=2048, multiple_of=8)] | None = None
    """Pixels per side; None takes the model's own."""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """auto: float32 on CPU, bfloat16 on a GPU that has it, else float16."""
    quantize: Literal["none", "nf4", "int8"] = "none"
    """The denoiser in fewer bits, where it does not fit otherwise; here and in the trainer. nf4: bitsandbytes on a CUDA
    GPU; int8: torchao or bitsandbytes."""
    device: str = "auto"
    """auto: cuda, then mps, then cpu."""
    queue_size: Annotated[int, Field(ge=1, le=1000)] = 32
    """Requests of people waiting at most; one more is answered 503."""
    keep_days: Annotated[float, Field(gt=0)] = 7.0
    """Images rendered for the before/after tab are deleted after this many days. Pairs and contact sheets stay."""


class PoolSettings(_Group):
    """The pool of unjudged pairs."""

    size: Annotated[int, Field(ge=1, le=10_000)] = 48
    """Unjudged pairs kept ready."""
    train_prompts: Path = PROJECT_ROOT / "data" / "prompts" / "train.txt"
    """Prompts that pairs are made of, one a line."""
    held_out_prompts: Path = PROJECT_ROOT / "data" / "prompts" / "held-out.txt"
    """Prompts never trained on: the before/after tab's suggestions and the benchmarks' yardstick."""
    starter_pairs: Path = PROJECT_ROOT / "data" / "starter-pairs.zip"
    """Pairs shipped with the pocket model; used when the base model is the one they were made with."""
    assignment_minutes: Annotated[float, Field(gt=0)] = 60.0
    """How long a showing can be answered."""


class ScorerSettings(_Group):
    """One automatic scorer; `dmpo scorers` lists them."""

    name: str
    """Such as pickscore or sharpness."""
    source: str | None = None
    """File, folder or hub id of its weights; None: the usual one."""
    temperature: Annotated[float, Field(gt=0)] | None = None
    """tau: the difference of scores that is worth one unit of log odds; None: the scorer's own."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Its share among several scorers."""


class ScoringSettings(_Group):
    """Automatic scorers beside the votes."""

    scorers: tuple[ScorerSettings, ...] = ()
    """Which ones, as JSON: [{"name": "sharpness"}]. None: votes alone."""
    human_share: Annotated[float, Field(ge=0, le=1)] = 0.7
    """w: what the votes count on a pair that has any; the scorers have the rest."""
    unjudged_pairs: Annotated[int, Field(ge=0)] = 0
    """The newest pairs without votes, this many at most, that are learnt from by their scores alone."""
    batch_size: Annotated[int, Field(ge=1)] = 8
    """Images a scorer looks at together."""


class RoundLimitSettings(_Group):
    """Limits that stop a round before it ruins its adapter; None (the word `none`) switches one off.

    Limits on images are ratios: what the adapter's have over what the base model's have, from the same prompts and
    noise. They need `health_images`.
    """

    grad_norm: Annotated[float, Field(gt=0)] | None = 1000.0
    """The gradient's norm, before it is scaled down, is above this ..."""
    grad_norm_steps: Annotated[int, Field(ge=1)] = 5
    """... for so many steps running."""
    adapter_rms: Annotated[float, Field(gt=0)] | None = 0.5
    """What the adapter adds to an output of its layers, root mean square for inputs of unit variance, at most: its
    norm over the root of the number of outputs."""
    min_chosen_gain: Annotated[float, Field(le=0)] | None = -0.5
    """The error on preferred images has risen: by more than this share of the base model's, as a negative number ..."""
    chosen_gain_looks: Annotated[int, Field(ge=1)] = 2
    """... at so many looks running (see `evaluate_every`)."""
    min_saturation: Annotated[float, Field(ge=0, le=1)] | None = 0.4
    """Colours may fade to this ratio."""
    max_saturation: Annotated[float, Field(ge=1)] | None = 2.5
    """Colours may grow to this ratio."""
    min_contrast: Annotated[float, Field(ge=0, le=1)] | None = 0.4
    """Contrast may fall to this ratio."""
    max_contrast: Annotated[float, Field(ge=1)] | None = 2.5
    """Contrast may rise to this ratio."""
    min_sharpness: Annotated[float, Field(ge=0, le=1)] | None = 0.4
    """Images may blur to this ratio."""
    max_sharpness: Annotated[float, Field(ge=1)] | None = 2.5
    """Images may grow noisy to this ratio."""
    min_diversity: Annotated[float, Field(ge=0, le=1)] | None = 0.4
    """The difference between two images of one prompt may fall to this ratio."""

    @field_validator("*", mode="before")
    @classmethod
    def _none_in_words(cls, value: object) -> object:
        """Neither environment variables nor TOML can say None otherwise."""
        return None if isinstance(value, str) and value.lower() == "none" else value


class RoundSettings(_Group):
    """One training round."""

    objective: str = "dmpo"
    """What is minimised; `dmpo objectives` lists them."""
    objective_options: dict[str, float] = {}
    """The objective's own numbers where they are not to be the usual ones, such as {"order": 0.5}."""
    winner_guard: Annotated[float, Field(ge=0, le=1)] | None = None
    """mu of the winner-preserving guard on any objective: the share of a winner's progress that its loser must leave
    it; None: off."""
    beta: Annotated[float, Field(gt=0)] | None = None
    """Scale of the objective's margin u; None: found from how much the base model's errors differ within pairs."""
    margin_beta: Annotated[float, Field(gt=0)] | None = None
    """Scale of the margins that are reported and by which rounds are judged; None: `beta` where the objective aims at
    the votes' log odds, else found from the data."""
    alpha: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    """Softness of the target: the preferred image wins with probability 1 - alpha."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-3
    """The optimizer's, before `lr_schedule`. For prodigy, which finds its own step size, it is a factor and 1 unless
    set."""
    lr_schedule: Literal["constant", "cosine", "linear"] = "constant"
    """How the learning rate runs over the round: stays, or falls to near 0 at its end."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Steps over which the learning rate grows to its full size."""
    optimizer: Literal["adamw", "adamw8bit", "prodigy", "adafactor"] = "adamw"
    """adamw8bit needs bitsandbytes and a CUDA GPU, prodigy needs prodigyopt; adafactor takes the least memory."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Pulls the adapter back to the base model, a little each step; times the learning rate."""
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay of a moving average of the adapter over the steps, such as 0.9: the average is judged and published instead
    of the last step; None: off."""
    rank: Annotated[int, Field(ge=1, le=512)] = 8
    """LoRA rank."""
    lora_alpha: Annotated[float, Field(gt=0)] = 8.0
    """LoRA scale numerator: the adapter is added times lora_alpha / rank."""
    target_modules: Literal["auto", "attention", "wide"] | tuple[str, ...] = "auto"
    """Layers that are trained. attention: the attention projections alone; wide: convolutions and the other projections
    too; auto: wide for Stable Diffusion 1 and 2 and the pocket model, attention for larger ones; or a list of the ends
    of module names, such as ["to_q", "to_v"]."""
    num_steps: Annotated[int, Field(ge=1)] = 80
    """Optimizer steps of a round."""
    batch_pairs: Annotated[int, Field(ge=1)] = 8
    """Pairs per step."""
    slots_per_pair: Annotated[int, Field(ge=1, le=1000)] = 16
    """Fixed stratified (timestep, noise seed) draws per pair; the reference is computed once for each."""
    timestep_sampling: Literal["uniform", "logit_normal", "mode"] = "uniform"
    """How a pair's slots are spread over the noise levels: evenly; by a logit-normal density or by mode sampling, both
    of Stable Diffusion 3, with more of them in the middle."""
    timestep_mean: Annotated[float, Field(ge=-5, le=5)] = 0.0
    """Of the logit-normal density: below 0 more slots have little noise, above 0 more have much."""
    timestep_scale: Annotated[float, Field(gt=0, le=1.75)] = 1.0
    """Width of the logit-normal density; of mode sampling, how much it prefers the middle."""
    caption_dropout: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of a pair's slots in which the denoiser, with and without the adapter, is given the empty prompt instead of
    the pair's: that half of classifier-free guidance is then trained too. 0.1 is usual where it is used."""
    error_weighting: Literal["none", "noise"] = "none"
    """noise: errors are those of the noise that a prediction implies, whatever the model predicts."""
    gradient_checkpointing: Literal["auto", "on", "off"] = "auto"
    """Activations are computed again in the backward pass instead of kept: about a third slower, with far less memory.
    auto: when a single pair does not fit otherwise."""
    compile: bool = False
    """Compile the denoiser's forward and backward pass with torch.compile: minutes before the first step, faster ones
    afterwards. Without a compiler the round goes on as usual."""
    warm_start: bool = False
    """Start from the live adapter instead of a fresh one. The reference is the base model either way."""
    held_out_share: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of the prompts whose votes are kept out of training to judge the result."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """The gradient is scaled down to this norm."""
    evaluate_every: Annotated[int, Field(ge=1)] = 20
    """Steps between two looks at the held-out votes."""
    health_images: Annotated[int, Field(ge=0, le=64, multiple_of=2)] = 8
    """Images sampled at each look to see whether they drift, two a prompt; 0: none, and no limits on them."""
    limits: RoundLimitSettings = RoundLimitSettings()
    slice_seconds: Annotated[float, Field(gt=0)] = 20.0
    """A slice ends in a checkpoint; a killed trainer loses at most this."""
    seed: int = 0
    """The round's seed is drawn from this and the round's number."""
    scoring: ScoringSettings = ScoringSettings()

    @model_validator(mode="before")
    @classmethod
    def _prodigy_finds_its_own_step_size(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("optimizer") == "prodigy":
            return {"learning_rate": 1.0, **values}
        return values


class TrainerSettings(_Group):
    """The worker that decides when to train."""

    poll_seconds: Annotated[float, Field(gt=0, le=60)] = 0.5
    """Pause between two looks at the store."""
    period_minutes: Annotated[float, Field(gt=0)] | None = 30.0
    """Train after this long even with fewer than `min_votes` new votes; None: never."""
    period_min_votes: Annotated[int, Field(ge=1)] = 8
    """... if there are at least this many new ones."""
    max_attempts: Annotated[int, Field(ge=1, le=20)] = 3
    """A round that fails this often is given up until more votes are in."""
    nice: Annotated[int, Field(ge=0, le=19)] = 10
    """Added to the trainer's niceness, so that the page stays quick on the same cores."""
    num_threads: Annotated[int, Field(ge=1)] | None = None
    """Torch threads of the trainer; None: half the cores."""
    lease_seconds: Annotated[float, Field(gt=1)] = 30.0
    """A trainer silent for this long may be replaced."""
    tracker: Literal["none", "tensorboard", "trackio", "wandb"] = "none"
    """Where the values that are logged while training go as well, one run a round; the package must be installed."""


class LimitSettings(_Group):
    """Limits per identity; they apply in public mode only."""

    renders_per_minute: Annotated[int, Field(ge=1)] = 12
    """Pictures asked for by one annotator."""
    votes_per_minute: Annotated[int, Field(ge=1)] = 120
    """Votes of one annotator."""
    sessions_per_minute: Annotated[int, Field(ge=1)] = 60
    """New sessions from everybody together; bounds what an address-hopping client can do."""


class SettingNote(NamedTuple):
    """One setting as `dmpo settings` shows it."""

    variable: str
    value: str
    meaning: str


class Settings(BaseSettings):
    """Everything that can be set."""

    model_config = SettingsConfigDict(
        env_prefix="DMPO_",
        env_nested_delimiter="__",
        toml_file="dmpo.toml",
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
    )

    home: Path = PROJECT_ROOT / "data" / "studio"
    """Folder of everything a run writes."""
    host: str = "127.0.0.1"
    """Address to listen on; loopback unless told otherwise."""
    port: Annotated[int, Field(ge=0, le=65535)] = 7860
    """0 takes a free one."""
    base_model: str = str(POCKET_MODEL)
    """A folder or a hub id of a Stable Diffusion (1, 2, XL, 3, 3.5) or Flux.1 pipeline."""
    min_votes: Annotated[int, Field(ge=2)] = 32
    """New preferences (left, right or tie) that start a round."""
    admin_token: SecretStr | None = None
    """Bearer token of administrators; None: one is made at start and written to the terminal."""
    public: bool = Field(default_factory=lambda: "SPACE_ID" in os.environ)
    """Rate limits on. True on a Space unless set."""
    train: bool = True
    """Start a trainer process with the server."""

    render: RenderSettings = RenderSettings()
    pool: PoolSettings = PoolSettings()
    round: RoundSettings = RoundSettings()
    trainer: TrainerSettings = TrainerSettings()
    limits: LimitSettings = LimitSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic's
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    def notes(self) -> list[SettingNote]:
        """Every setting with its environment variable, present value and meaning, groups last."""
        return list(_notes(self, self.model_config.get("env_prefix", "")))


def _notes(group: BaseModel, prefix: str) -> Iterator[SettingNote]:
    fields = type(group).model_fields
    plain = {name: field for name, field in fields.items() if not isinstance(getattr(group, name), BaseModel)}
    for name, field in plain.items():
        yield SettingNote(f"{prefix}{name.upper()}", str(getattr(group, name)), (field.description or "").strip())
    for name in (name for name in fields if name not in plain):
        yield from _notes(getattr(group, name), f"{prefix}{name.upper()}__")
