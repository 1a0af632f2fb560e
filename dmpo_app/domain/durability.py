"""Durability contract between the labeling service and the backup."""

from __future__ import annotations

from typing import Protocol


class DurabilityPolicy(Protocol):
    """Durability of votes: checked before a vote is recorded, and awaited before it is acknowledged."""

    @property
    def is_synchronous(self) -> bool:
        """True where `wait_until_durable` may take a while, because an upload is part of it."""

    def check_writable(self) -> None:
        """Raise BackupUnreachableError while what is recorded now might be lost later."""

    def wait_until_durable(self) -> None:
        """Wait until all that was recorded before this call is as durable as the settings promise.

        Raises BackupUnreachableError when that takes too long; what was recorded stays, and asking again is safe.
        """


class LocalDurability:
    """Durability without a backup: a commit to the local disk is enough."""

    is_synchronous = False

    def check_writable(self) -> None:
        """Accept every write: there is no backup that could be out of reach."""

    def wait_until_durable(self) -> None:
        """Return at once: the commit was durable."""
