"""The typed settings: options of a command over DMPO_* environment variables over dmpo.toml over the defaults here.

The most used ones stand at the top level (`DMPO_MIN_VOTES`); groups nest with two underscores (`DMPO_ROUND__BETA`).
`dmpo.toml` is read from the current folder, unless another file is named. Nonsense is refused with the value in the
message.
"""

from dmpo_app.settings.host import PROJECT_ROOT, on_space, shipped_data
from dmpo_app.settings.judging_settings import JudgingSettings
from dmpo_app.settings.round_settings import RoundLimitSettings, RoundSettings, ScorerSettings, ScoringSettings
from dmpo_app.settings.sections import (
    BackupSettings,
    IdentitySettings,
    LabelingSettings,
    NewcomerSettings,
    ParsingSettings,
)
from dmpo_app.settings.tree import (
    POCKET_MODEL,
    HostingSettings,
    LimitSettings,
    Mode,
    PoolSettings,
    RenderSettings,
    SettingChange,
    SettingField,
    Settings,
    TrainerSettings,
    apply_mode,
    detect_mode,
    find_changes,
)

__all__ = [
    "POCKET_MODEL",
    "PROJECT_ROOT",
    "BackupSettings",
    "HostingSettings",
    "IdentitySettings",
    "JudgingSettings",
    "LabelingSettings",
    "LimitSettings",
    "Mode",
    "NewcomerSettings",
    "ParsingSettings",
    "PoolSettings",
    "RenderSettings",
    "RoundLimitSettings",
    "RoundSettings",
    "ScorerSettings",
    "ScoringSettings",
    "SettingChange",
    "SettingField",
    "Settings",
    "TrainerSettings",
    "apply_mode",
    "detect_mode",
    "find_changes",
    "on_space",
    "shipped_data",
]
