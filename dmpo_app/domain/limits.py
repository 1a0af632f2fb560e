"""Limits of values that people and programs hand in, for every layer that checks one or shows it."""

from dataclasses import dataclass

MAX_HANDLE = 64
"""Characters of an annotator's handle. Handles of this length are stored, so it may grow and not shrink."""
MAX_SEED = 2**31 - 1
"""The largest seed of an image; the smallest is 0. It fits any integer column and any random generator."""
MAX_STRENGTH = 1.5
"""The largest strength of an adapter in an image; 0 is the base model, 1 the adapter as it was trained."""
MAX_GUIDANCE = 30.0
"""The largest guidance scale of an image."""
MAX_VERSION = 2**31 - 1
"""The largest number of a version, as its integer column holds it."""


@dataclass(frozen=True)
class ParserLimits:
    """Limits of a process that parses strangers' files. The settings `DMPO_PARSING__*` have the same names."""

    memory_mb: int = 4096
    cpu_seconds: int = 15
    wait_seconds: int = 60
    row_mb: int = 32
    rows: int = 5_000_000
    unpacked_mb: int = 16 << 10
    unpacked_files: int = 500_000

    @property
    def row_bytes(self) -> int:
        return self.row_mb << 20

    @property
    def group_bytes(self) -> int:
        """Bytes of the needed columns of one row group, unpacked."""
        return self.memory_mb << 19
