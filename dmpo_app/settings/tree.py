"""The root of the settings, the mode of a studio, and the settings that differ from their defaults.

The mode is everything on the processor, a GPU of its own, or ZeroGPU; set or detected.
"""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from importlib.util import find_spec
from pathlib import Path
from tomllib import TOMLDecodeError
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import AfterValidator, BaseModel, Field, SecretStr, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from dmpo_app.errors import SetupError
from dmpo_app.settings.host import default_home, on_space, on_zerogpu, shipped_data
from dmpo_app.settings.judging_settings import JudgingSettings
from dmpo_app.settings.network import (
    FrameAncestors,
    RootPath,
    TrustedProxies,
    default_frame_ancestors,
    default_proxies,
    gradio_root_path,
)
from dmpo_app.settings.round_settings import RoundSettings
from dmpo_app.settings.sections import (
    BackupSettings,
    IdentitySettings,
    LabelingSettings,
    ParsingSettings,
    SettingsGroup,
    read_words,
)

CONFIG_FILE = Path("dmpo.toml")
"""The file of settings that is read from the current folder where no other is named."""
POCKET_MODEL = shipped_data("pocket")


class RenderSettings(SettingsGroup):
    """Rendering of images."""

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
    safety_checker: Literal["auto", "on", "off"] = "auto"
    """The model's own check for unsafe images; what it flags is withheld and never shown in a pair. auto: if the model
    has one; on: refuse to start with a model that has none; off: none."""
    device: str = "auto"
    """auto: cuda, then mps, then cpu."""
    queue_size: Annotated[int, Field(ge=1, le=1000)] = 32
    """Requests of people waiting at most; one more is answered 503."""
    keep_days: Annotated[float, Field(gt=0)] = 7.0
    """Images rendered for the before/after tab are deleted after this many days. Pairs and contact sheets stay."""


class PoolSettings(SettingsGroup):
    """The pool of pairs without votes."""

    size: Annotated[int, Field(ge=0, le=10_000)] = 48
    """Pairs without votes kept ready; 0: none are made, and only imported ones are shown."""
    train_prompts: Path = shipped_data("prompts/train.txt")
    """Prompts that pairs are made of, one a line."""
    held_out_prompts: Path = shipped_data("prompts/held-out.txt")
    """Prompts never trained on: the before/after tab's suggestions and the benchmarks' yardstick."""
    tags: tuple[str, ...] = ()
    """New pairs are made only of prompts with any of these tags; none: of all of them. As JSON: ["animals"]."""
    starter_pairs: Path = shipped_data("starter-pairs.zip")
    """Pairs shipped with the pocket model; used when the base model is the one they were made with."""
    assignment_minutes: Annotated[float, Field(gt=0)] = 60.0
    """Minutes until an assignment expires."""


class TrainerSettings(SettingsGroup):
    """The trainer, and when it starts a round."""

    poll_seconds: Annotated[float, Field(gt=0, le=60)] = 0.5
    """Pause between two polls of the store."""
    period_minutes: Annotated[float, Field(gt=0)] | None = 30.0
    """Train after this long even with fewer than `min_votes` new votes; None: never."""
    period_min_votes: Annotated[int, Field(ge=1)] = 8
    """... if there are at least this many new ones."""
    withdrawn_votes: Annotated[int, Field(ge=1)] | None = 8
    """Train, without new votes, once this many of the votes that the live version learned from were taken back, or all
    of them if it learned from fewer; 1: at once, None: never. The round leaves them out and its version takes the live
    one's place."""
    max_attempts: Annotated[int, Field(ge=1, le=20)] = 3
    """A round that fails this often is given up until more votes are in."""
    nice: Annotated[int, Field(ge=0, le=19)] = 10
    """Added to the trainer's niceness, so that the page stays quick on the same cores."""
    num_threads: Annotated[int, Field(ge=1)] | None = None
    """Torch threads of the trainer; None: half the cores."""
    lease_seconds: Annotated[float, Field(gt=1)] = 30.0
    """A trainer silent for this long may be replaced."""
    silent_seconds: Annotated[float, Field(ge=2)] = 60.0
    """A trainer without a heartbeat for this long is frozen: it is told on the page, ended and started again. It beats
    every second, whatever it does."""
    stall_seconds: Annotated[float, Field(gt=0)] = 120.0
    """So is one whose step takes longer than this and than ten times the longest step before ..."""
    phase_seconds: Annotated[float, Field(gt=0)] = 3600.0
    """... or whose first step, or loading, downloading, compiling, calibrating, evaluating, takes longer than this."""
    tracker: Literal["none", "tensorboard", "trackio", "wandb"] = "none"
    """Experiment tracker for the values logged while training, one run a round; the package must be installed."""


class LimitSettings(SettingsGroup):
    """Limits of what one annotator, one network and everybody may do; but for wrong tokens, in public mode only.

    A network is the /24 of an IPv4 address or the /64 of an IPv6 address that a request comes from.
    """

    renders_per_minute: Annotated[int, Field(ge=1)] = 12
    """Images requested by one annotator."""
    votes_per_minute: Annotated[int, Field(ge=1)] = 120
    """Votes of one annotator."""
    reports_per_minute: Annotated[int, Field(ge=1)] = 6
    """Pairs reported by one annotator."""
    sessions_per_minute: Annotated[int, Field(ge=1)] = 60
    """New sessions from one network."""
    logins_per_minute: Annotated[int, Field(ge=1)] = 60
    """Sign-ins begun from one network."""
    admin_tries_per_minute: Annotated[int, Field(ge=1)] = 10
    """Wrong administrators' tokens from one network; further ones are answered 429. The right one always passes."""
    network_factor: Annotated[int, Field(ge=1)] = 20
    """The annotators of one network together may do so many times what one of them may."""
    total_factor: Annotated[int, Field(ge=1)] = 100
    """Everybody together may do so many times what one annotator, or one network, may."""


class HostingSettings(SettingsGroup):
    """The hardware that the studio runs on."""

    mode: Literal["auto", "cpu", "gpu", "zerogpu"] = "auto"
    """cpu: everything on the processor; gpu: a GPU of its own; zerogpu: Hugging Face's shared GPUs, for a minute at a
    time on the quota of whoever presses a button. auto: detected."""
    slice_seconds: Annotated[float, Field(gt=0, le=45)] = 45.0
    """ZeroGPU: seconds of a GPU minute for training or rendering; the rest of it goes into starting."""
    checkpoint_seconds: Annotated[float, Field(gt=0, le=45)] = 10.0
    """ZeroGPU: a round that is cut off loses at most this much."""


class SettingField(NamedTuple):
    """One setting of the tree, not a group."""

    path: tuple[str, ...]
    """Names of its groups and of the setting itself."""
    value: object
    info: FieldInfo

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return "DMPO_" + "__".join(self.path).upper()

    @property
    def meaning(self) -> str:
        return (self.info.description or "").strip()


def _expand_user(path: Path) -> Path:
    """`~/studio` as a path, once and for all: the lock, the key and the check of its disk are of the same folder."""
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError(f"{error}; expected a folder without ~") from error


_config_file: ContextVar[Path] = ContextVar("config_file", default=CONFIG_FILE)


class Settings(BaseSettings):
    """All settings of the studio."""

    model_config = SettingsConfigDict(
        env_prefix="DMPO_",
        env_nested_delimiter="__",
        env_ignore_empty=True,
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
    )

    home: Annotated[Path, AfterValidator(_expand_user)] = Field(default_factory=default_home)
    """Folder of everything a run writes: data/studio of a checkout; installed, dmpo-studio in the current folder. On a
    Space below /data, where that is a disk that stays."""
    database_url: SecretStr | None = None
    """postgresql://user:password@host/name: a PostgreSQL database in place of the SQLite file in the home, which it
    belongs to alone. None: SQLite."""
    files_url: str | None = None
    """s3://bucket/folder, or what else fsspec reads and writes: images, latents and embeddings are kept there as
    well, and fetched when this disk does not have them. Beside PostgreSQL; a home with SQLite has the backup."""
    adopt_database: bool = False
    """Take over a PostgreSQL database that belongs to another home. To be set for one start."""
    allow_network_disk: bool = False
    """Allow a SQLite database on a disk of the network or of FUSE, where it may be damaged."""
    host: str = Field(default_factory=lambda: "0.0.0.0" if on_space() else "127.0.0.1")
    """Address to listen on; loopback unless told otherwise, all addresses on a Space. `::` is all addresses of IPv6 and
    of IPv4."""
    port: Annotated[int, Field(ge=0, le=65535)] = 7860
    """0 takes a free one."""
    root_path: RootPath = Field(default_factory=gradio_root_path)
    """Path below which a proxy serves the studio, such as /studio, whether it takes the path off its requests or not.
    GRADIO_ROOT_PATH is taken where this is not set."""
    trusted_proxies: TrustedProxies = Field(default_factory=default_proxies)
    """Addresses and networks of proxies, separated by commas, such as 127.0.0.1,10.0.0.0/8: the client, scheme and host
    that X-Forwarded-For, -Proto and -Host name are believed from them alone. On a Space: private networks."""
    frame_ancestors: FrameAncestors = Field(default_factory=default_frame_ancestors)
    """Sites that may show the page in a frame, beside the studio's own: origins separated by spaces, such as
    https://course.example.org, or *; none: no site at all. On a Space: those of Spaces."""
    base_model: str = str(POCKET_MODEL)
    """A folder or a hub id of a Stable Diffusion (1, 2, XL, 3, 3.5) or Flux.1 pipeline."""
    min_votes: Annotated[int, Field(ge=2)] = 32
    """New preferences (left, right or tie) that start a round."""
    admin_token: SecretStr | None = None
    """Bearer token of administrators; None: one is made at start and written to the terminal."""
    metrics_token: SecretStr | None = None
    """Bearer token of whoever reads /metrics. None: they are open to everybody, in public mode to nobody."""
    log_format: Literal["text", "json"] = "text"
    """Log lines of the server, the trainer and the commands. json: one object a line, for collectors of logs."""
    public: bool = Field(default_factory=on_space)
    """Rate limits on, and the cap on what one annotator weighs. True on a Space unless set."""
    train: bool = True
    """Start a trainer process with the server."""

    render: RenderSettings = RenderSettings()
    pool: PoolSettings = PoolSettings()
    labeling: LabelingSettings = LabelingSettings()
    identity: IdentitySettings = Field(default_factory=IdentitySettings)
    round: RoundSettings = RoundSettings()
    trainer: TrainerSettings = TrainerSettings()
    limits: LimitSettings = LimitSettings()
    parsing: ParsingSettings = ParsingSettings()
    backup: BackupSettings = BackupSettings()
    hosting: HostingSettings = HostingSettings()
    judging: JudgingSettings = JudgingSettings()

    _words = field_validator("*", mode="before")(read_words)

    @classmethod
    def load(cls, options: Mapping[str, Any] | None = None, config_file: Path | None = None) -> Self:
        """Load the settings: options, named and nested like the fields, over the environment over a file of settings.

        The file is `dmpo.toml` in the current folder, if there is one, unless `config_file` names another. Raises
        SetupError when that one does not exist, a file is not TOML, or the variable of a list is not JSON;
        ValidationError for an option, a variable or a line that is not understood.
        """
        if config_file is not None and not config_file.is_file():
            raise SetupError(f"there is no file of settings {config_file}; expected TOML, as in docs/usage.md")
        token = _config_file.set(config_file or CONFIG_FILE)
        try:
            return cls(**(options or {}))
        except SettingsError as error:
            variables = ", ".join(_variables_that_are_no_json())
            raise SetupError(
                f"{variables or error}: expected JSON, for example DMPO_POOL__TAGS='[\"animals\"]'"
            ) from error
        finally:
            _config_file.reset(token)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic's
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, toml_source(settings_cls, _config_file.get())

    @model_validator(mode="after")
    def _the_backup_is_of_a_file(self) -> Self:
        if self.database_url is not None and self.backup.url is not None:
            raise ValueError(
                "DMPO_BACKUP__URL keeps a home with SQLite; a PostgreSQL database (DMPO_DATABASE_URL) is kept by its "
                "own tools. Set one of the two"
            )
        return self

    @property
    def access(self) -> Literal["open", "invite", "login"]:
        """The access mode in force: `labeling.access`, resolved where it is auto."""
        access = self.labeling.access
        if access != "auto":
            return access
        return "login" if self.public and self.identity.oidc_issuer is not None else "open"

    @property
    def database(self) -> str | None:
        """`database_url` in plain text, for connecting to it."""
        return self.database_url.get_secret_value() if self.database_url else None

    def fields(self) -> list[SettingField]:
        """List every setting with its present value, groups last."""
        return list(_fields(self))


def toml_source(settings_type: type[BaseSettings], config_file: Path) -> TomlConfigSettingsSource:
    """Read a file of settings, which need not exist. Raises SetupError when it is no TOML."""
    try:
        if config_file.exists():
            config_file.open("rb").close()  # a folder of that name would be passed over without a word
        return TomlConfigSettingsSource(settings_type, config_file)
    except (OSError, TOMLDecodeError, UnicodeDecodeError) as error:
        raise SetupError(f"the settings in {config_file} cannot be read: {error}") from error


def _variables_that_are_no_json() -> Iterator[str]:
    """Yield the variables of lists, mappings and groups whose text is no JSON; with the text, unless of a group."""
    defaults = Settings.model_construct()
    lists = {field.variable for field in defaults.fields() if isinstance(field.value, (tuple, dict))}
    groups = {f"DMPO_{name.upper()}" for name, value in defaults if isinstance(value, BaseModel)}
    for variable in sorted((lists | groups) & os.environ.keys()):
        try:
            json.loads(os.environ[variable])
        except ValueError:
            yield variable if variable in groups else f"{variable}={os.environ[variable]!r}"


def _fields(group: BaseModel, path: tuple[str, ...] = ()) -> Iterator[SettingField]:
    fields = type(group).model_fields
    plain_fields = {name: field for name, field in fields.items() if not isinstance(getattr(group, name), BaseModel)}
    for name, field in plain_fields.items():
        yield SettingField((*path, name), getattr(group, name), field)
    for name in (name for name in fields if name not in plain_fields):
        yield from _fields(getattr(group, name), (*path, name))


Mode = Literal["cpu", "gpu", "zerogpu"]


def detect_mode(settings: Settings) -> Mode:
    """The mode that is set or, with `auto`, detected: ZeroGPU, a GPU of its own, or the processor alone.

    Imports no torch: a GPU is there when its driver is. Raises SetupError for `zerogpu` where there is no ZeroGPU.
    """
    mode = settings.hosting.mode
    if mode == "zerogpu" or (mode == "auto" and on_zerogpu()):
        return _require_zerogpu()
    if mode != "auto":
        return mode
    device = settings.render.device.split(":")[0]
    if device != "auto":
        return "cpu" if device == "cpu" else "gpu"
    return "gpu" if _has_gpu() else "cpu"


def apply_mode(settings: Settings, mode: Mode) -> Settings:
    """Apply a mode to the settings: the device, where the mode was set; no compilation on ZeroGPU."""
    changes: dict[str, object] = {}
    if settings.hosting.mode in ("cpu", "gpu") and settings.render.device == "auto":
        device = "cpu" if mode == "cpu" else ("mps" if sys.platform == "darwin" else "cuda")
        changes["render"] = settings.render.model_copy(update={"device": device})
    if mode == "zerogpu":
        changes["round"] = settings.round.model_copy(update={"compile": False})
    return settings.model_copy(update=changes)


def _require_zerogpu() -> Mode:
    if not on_zerogpu():
        raise SetupError(
            "DMPO_HOSTING__MODE is zerogpu, but this is no ZeroGPU (SPACES_ZERO_GPU is not set); choose the hardware "
            "ZeroGPU in the Space's settings, or set DMPO_HOSTING__MODE=auto"
        )
    if find_spec("spaces") is None:
        raise SetupError(
            "this is a ZeroGPU Space, but the package `spaces` is missing; add it to requirements.txt, or "
            "`pip install spaces`"
        )
    return "zerogpu"


def _has_gpu(environment: Mapping[str, str] = os.environ) -> bool:
    if environment.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    apple = sys.platform == "darwin" and os.uname().machine == "arm64"
    return apple or any(Path(path).exists() for path in ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg"))


class SettingChange(NamedTuple):
    """A setting that differs from its default."""

    variable: str
    value: str
    default: str
    origin: str
    """option, environment, file NAME, or other settings: one that follows from another, as a learning rate does from
    its optimizer."""


def find_changes(
    settings: Settings, options: Mapping[str, Any] | None = None, config_file: Path | None = None
) -> list[SettingChange]:
    """Find the settings that differ from their defaults. The arguments are those that the settings were loaded with."""
    path_of_file = config_file or CONFIG_FILE
    sources: dict[str, Mapping[str, Any]] = {
        "option": options or {},
        "environment": EnvSettingsSource(Settings)(),
        f"file {path_of_file}": toml_source(Settings, path_of_file)(),
    }
    defaults = {field.path: field.value for field in Settings.model_construct().fields()}
    return [
        SettingChange(field.variable, str(field.value), str(defaults[field.path]), _origin(field.path, sources))
        for field in settings.fields()
        if field.value != defaults[field.path]
    ]


def _origin(path: tuple[str, ...], sources: Mapping[str, Mapping[str, Any]]) -> str:
    """The first of the sources, strongest first, that sets this path."""
    return next((name for name, values in sources.items() if _sets(values, path)), "other settings")


def _sets(values: Mapping[str, Any], path: tuple[str, ...]) -> bool:
    """True when nested values hold something at this path, or a whole at one of its parents."""
    value: Any = values
    for name in path:
        if not isinstance(value, Mapping):
            return True
        if name not in value:
            return False
        value = value[name]
    return True
