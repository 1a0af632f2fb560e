"""Cores and memory that this process may use: the limits of its container, not what the host has.

A container's limits are its control group's (cgroup, version 1 or 2) and those of all groups above it; a process can be
bound to some of the cores besides (affinity). Neither `os.cpu_count` nor `psutil.virtual_memory` knows of them.
"""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dmpo_app.settings.mounts import read_mounts

ROOT = Path("/")
_NO_LIMIT = 1 << 60
"""Version 1 has no word for "no limit": it is a number of bytes larger than any machine's memory."""


@dataclass(frozen=True, slots=True)
class Cores:
    """Cores to compute with. `quota`: cores' worth of time that the container gets, None where that is not limited."""

    bound: int
    quota: float | None
    host: int

    @property
    def count(self) -> int:
        """At least 1; a quota of 1.5 cores counts as 2, since with one thread half a core would be idle."""
        return self.bound if self.quota is None else max(1, min(self.bound, math.ceil(self.quota)))

    def __str__(self) -> str:
        limits = [f"CPU quota {self.quota:.3g}"] if self.quota is not None and self.quota < self.bound else []
        limits += [f"bound to {self.bound}"] if self.bound < self.host else []
        return f"{self.count} ({', '.join(limits)}; the host has {self.host})" if limits else str(self.count)


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of memory: the host's, or the container's where that may use less."""

    available: int
    total: int
    is_limited: bool


def measure_cores(root: Path = ROOT) -> Cores:
    """Cores of this process: those it is bound to, the quota of its control group, those of the host."""
    host = os.cpu_count() or 1
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else host
    quotas = [quota for group in _groups(root, "cpu") if (quota := _cpu_quota(group)) is not None]
    return Cores(bound, min(quotas, default=None), host)


def available_cores() -> int:
    """The number of cores to compute with, at least 1: by affinity and CPU quota, as `Cores.count`."""
    return measure_cores().count


def torch_threads(share: int) -> int:
    """Threads of torch for a process that has a share of the cores: fewer where OMP_NUM_THREADS says so.

    Not under torchrun, which sets that variable to 1 by itself.
    """
    text = os.environ.get("OMP_NUM_THREADS", "")
    is_cap = text.isdigit() and int(text) > 0 and "LOCAL_WORLD_SIZE" not in os.environ
    return max(1, min(share, int(text)) if is_cap else share)


def limit_libraries() -> None:
    """Tell libraries of arithmetic that are imported later of a CPU quota, of which they know nothing themselves.

    Without it torch starts a thread for each of the host's cores, which then wait for their quota together. A variable
    that the user has set stays.
    """
    cores = measure_cores()
    if cores.count < cores.bound:
        os.environ.setdefault("OMP_NUM_THREADS", str(cores.count))


def measure_memory(root: Path = ROOT) -> Memory:
    """Memory of this process: the least of what the host and each control group above it leave free."""
    import psutil

    host = psutil.virtual_memory()
    memory = Memory(int(host.available), int(host.total), is_limited=False)
    for group in _groups(root, "memory"):
        limit = _number(group / "memory.max") or _number(group / "memory.limit_in_bytes")
        if limit is None or limit >= _NO_LIMIT:
            continue
        used = _number(group / "memory.current") or _number(group / "memory.usage_in_bytes") or 0
        available = max(0, limit - max(0, used - _droppable(group)))
        is_limited = memory.is_limited or limit < memory.total
        memory = Memory(min(memory.available, available), min(memory.total, limit), is_limited)
    return memory


def _cpu_quota(group: Path) -> float | None:
    words = _text(group / "cpu.max").split()
    if not words:
        words = [_text(group / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
    try:
        quota, period = (int(word) for word in words)
    except ValueError:  # "max", or no such files
        return None
    return quota / period if quota > 0 and period > 0 else None


def _droppable(group: Path) -> int:
    """Bytes of files that the kernel keeps in memory as long as nobody needs it."""
    lines = (line.split() for line in _text(group / "memory.stat").splitlines())
    values = {words[0]: int(words[1]) for words in lines if len(words) == 2 and words[1].isdigit()}
    return values.get("total_inactive_file", values.get("inactive_file", 0))


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Folders of the control groups that limit this process, its own first, as far as they can be seen from here."""
    mounts = read_mounts(root / "proc/self/mountinfo")
    own_groups = (line.split(":", 2) for line in _text(root / "proc/self/cgroup").splitlines() if line.count(":") > 1)
    for _, controllers, path in own_groups:
        if controllers and controller not in controllers.split(","):
            continue
        for mount in mounts:
            is_version_1 = mount.file_system == "cgroup" and controller in mount.options
            if is_version_1 if controllers else mount.file_system == "cgroup2":
                top = root / mount.point.lstrip("/")
                # A container sees its own group as the root of what is mounted, also where its path is the host's.
                below = os.path.relpath(path, mount.root)
                group = top if below.startswith("..") else top / below
                yield from (group, *(folder for folder in group.parents if folder.is_relative_to(top)))


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
