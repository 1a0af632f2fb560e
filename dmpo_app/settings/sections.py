"""Settings of the backup: where to, how often, how far behind it may be, and what is kept."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from dmpo_app.settings.settings_group import Group


class BackupSettings(Group):
    """Keeping a home on a storage elsewhere; off without a URL."""

    url: Annotated[str, Field(min_length=1)] | None = None
    """A folder, `s3://bucket/folder`, `hf://buckets/user/name`, `hf://datasets/user/name` (private), or what else
    fsspec reads and writes; it must be this home's alone. None: no backup."""
    log_seconds: Annotated[float, Field(gt=0, le=60)] = 20.0
    """What has changed is written there so often. A data set repository takes a commit a minute, whatever this says."""
    interval_seconds: Annotated[float, Field(gt=0)] = 900.0
    """A snapshot of the whole database so often, if anything changed; the changes after it are logged."""
    acknowledge: Literal["disk", "remote"] = "disk"
    """When a vote is acknowledged. disk: it is on this machine's disk. remote: it is in the backup as well, which makes
    every vote wait for an upload."""
    refuse_after_seconds: Annotated[float, Field(ge=1, le=600)] = 30.0
    """Votes are refused once the storage has been out of reach for so long."""
    handover_seconds: Annotated[float, Field(ge=0, le=600)] = 10.0
    """A starting studio waits so long for the one before it to write its last changes and let go."""
    keep_snapshots: Annotated[int, Field(ge=2, le=10_000)] = 8
    """The newest snapshots that are kept ..."""
    keep_days: Annotated[int, Field(ge=0, le=3650)] = 7
    """... and the last one of each of so many days."""

    @field_validator("url", mode="before")
    @classmethod
    def _none_in_words(cls, value: object) -> object:
        """Neither environment variables nor TOML can say None otherwise."""
        return None if isinstance(value, str) and value.strip().lower() in ("", "none") else value
