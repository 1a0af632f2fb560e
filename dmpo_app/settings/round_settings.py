"""Settings of one training round: the objective, its optimizer and data, its limits and its scorers."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from dmpo_app.settings.sections import SettingsGroup


class ScorerSettings(SettingsGroup):
    """One automatic scorer; `dmpo scorers` lists them."""

    name: str
    """Such as pickscore or sharpness."""
    source: str | None = None
    """File, folder or hub id of its weights; None: the usual one."""
    temperature: Annotated[float, Field(gt=0)] | None = None
    """tau: the difference of scores that is worth one unit of log odds; None: the scorer's own."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Its share among several scorers."""


class ScoringSettings(SettingsGroup):
    """Automatic scorers beside the votes."""

    scorers: tuple[ScorerSettings, ...] = ()
    """Which ones, as JSON: [{"name": "sharpness"}]. None: votes alone."""
    human_share: Annotated[float, Field(ge=0, le=1)] = 0.7
    """w: what the votes count on a pair that has any; the scorers have the rest."""
    unjudged_pairs: Annotated[int, Field(ge=0)] = 0
    """The newest pairs without votes, this many at most, that are learnt from by their scores alone."""
    batch_size: Annotated[int, Field(ge=1)] = 8
    """Images in a scorer's batch."""


class RoundLimitSettings(SettingsGroup):
    """Limits that stop a round before it ruins its adapter; None (the word `none`) switches one off.

    Limits on images are ratios: what the adapter's have over what the base model's have, from the same prompts and
    noise. They need `health_images`.
    """

    grad_norm: Annotated[float, Field(gt=0)] | None = 1000.0
    """The gradient's norm, before it is scaled down, is above this ..."""
    grad_norm_steps: Annotated[int, Field(ge=1)] = 5
    """... for this many steps running."""
    adapter_rms: Annotated[float, Field(gt=0)] | None = 0.5
    """Largest contribution of the adapter to an output of its layers, root mean square for inputs of unit variance:
    its norm over the root of the number of outputs."""
    min_chosen_gain: Annotated[float, Field(le=0)] | None = -0.5
    """The error on preferred images has risen: by more than this share of the base model's, as a negative number ..."""
    chosen_gain_looks: Annotated[int, Field(ge=1)] = 2
    """... at this many evaluations running (see `evaluate_every`)."""
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


class RoundSettings(SettingsGroup):
    """One training round."""

    objective: str = "dmpo"
    """The objective that is minimised; `dmpo objectives` lists them."""
    objective_options: dict[str, float] = Field(default_factory=dict)
    """The objective's own numbers where they are not to be the usual ones, such as {"order": 0.5}."""
    rankings: Literal["auto", "listwise", "pairs"] = "auto"
    """Learning from a ranking of three or four images. listwise: as a whole, by the form of dmpo for several
    images; pairs: as the pairs of its images; auto: listwise where the objective is dmpo without a winner's guard."""
    winner_guard: Annotated[float, Field(ge=0, le=1)] | None = None
    """mu of the winner-preserving guard on any objective: the share of a winner's progress that its loser must leave
    it; None: off."""
    beta: Annotated[float, Field(gt=0)] | None = None
    """Scale of the objective's margin u; None: found from how much the base model's errors differ within pairs."""
    beta_scale: Annotated[float, Field(gt=0, le=100)] = 1.0
    """Factor on a beta found from the data. 0.3 learns more from few or noisy votes and costs some diversity."""
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
    """Fixed stratified (timestep, noise seed) samples per pair; the reference is computed once for each."""
    timestep_sampling: Literal["uniform", "logit_normal", "mode"] = "uniform"
    """Distribution of a pair's slots over the noise levels: evenly; by a logit-normal density or by mode sampling, both
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
    """Start from the live adapter instead of a fresh one, unless that learned from votes that were taken back since.
    The reference is the base model either way."""
    held_out_share: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of the prompts whose votes are kept out of training to judge the result."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """The gradient is scaled down to this norm."""
    evaluate_every: Annotated[int, Field(ge=1)] = 20
    """Steps between two evaluations on the held-out votes."""
    health_images: Annotated[int, Field(ge=0, le=64, multiple_of=2)] = 8
    """Images sampled at each evaluation to see whether they drift, two a prompt; 0: none, and no limits on them."""
    limits: RoundLimitSettings = RoundLimitSettings()
    slice_seconds: Annotated[float, Field(gt=0)] = 20.0
    """A slice ends in a checkpoint; a killed trainer loses at most this."""
    seed: int = 0
    """The round's seed is derived from this and the round's number."""
    scoring: ScoringSettings = ScoringSettings()

    @property
    def learns_whole_rankings(self) -> bool:
        """True where rankings are learnt from as wholes and not as pairs."""
        return self.rankings == "listwise" or (self.rankings == "auto" and self._may_learn_whole_rankings)

    @property
    def _may_learn_whole_rankings(self) -> bool:
        return self.objective == "dmpo" and self.winner_guard is None

    @model_validator(mode="after")
    def _whole_rankings_are_learnt_by_plain_dmpo(self) -> Self:
        if self.rankings == "listwise" and not self._may_learn_whole_rankings:
            raise ValueError(
                f"rankings=listwise goes with objective=dmpo and no winner_guard, here are {self.objective!r} and "
                f"{self.winner_guard}; rankings=pairs goes with all of them"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _prodigy_finds_its_own_step_size(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("optimizer") == "prodigy":
            return {"learning_rate": 1.0, **values}
        return values
