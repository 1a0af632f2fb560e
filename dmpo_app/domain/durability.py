"""What labeling asks of whatever keeps votes beyond this machine's disk."""

from __future__ import annotations

from typing import Protocol


class Safekeeping(Protocol):
    """Asked before anything of a person's is recorded, and before they are told that it was."""

    @property
    def waits(self) -> bool:
        """Whether `settle` may take a while."""

    def admit(self) -> None:
        """Raises BackupUnreachable while what is recorded now might be lost later."""

    def settle(self) -> None:
        """Return when all that was recorded before this call is as safe as the settings promise.

        Raises BackupUnreachable when that cannot be said in time; what was recorded stays, and asking again is safe.
        """


class OnThisDisk:
    """No backup: the disk is all there is."""

    waits = False

    def admit(self) -> None:
        """Nothing to wait for."""

    def settle(self) -> None:
        """The commit was enough."""
