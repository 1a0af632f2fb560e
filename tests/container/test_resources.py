"""Cores and memory are the container's: on trees of control groups of every kind, and in real ones."""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import pytest

from dmpo_app.settings.resources import Cores, measure_cores, measure_memory, torch_threads
from tests.patience import PATIENCE
from tests.studio_process import PROJECT_ROOT

GB = 1_000_000_000
V1 = Path("/sys/fs/cgroup")


def tree(root: Path, own_groups: str, mounts: str, files: Mapping[str, object]) -> Path:
    """A root of a file system with the kernel's lists and the files of control groups, whose names are below /."""
    everything = {"proc/self/cgroup": own_groups, "proc/self/mountinfo": mounts, **files}
    for name, content in everything.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{content}\n")
    return root


def v1_mounts(*names: str, root: str = "/") -> str:
    return "\n".join(
        f"{number} 22 0:{number} {root} /sys/fs/cgroup/{name} rw - cgroup cgroup rw,{name}"
        for number, name in enumerate(names, start=31)
    )


V2_MOUNT = "30 22 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"


def test_version_2_in_a_container_that_sees_its_own_group_as_the_root(tmp_path: Path) -> None:
    files = {
        "sys/fs/cgroup/cpu.max": "50000 100000",
        "sys/fs/cgroup/memory.max": 2 * GB,
        "sys/fs/cgroup/memory.current": 1_500_000_000,
        "sys/fs/cgroup/memory.stat": "anon 800000000\ninactive_file 700000000\nactive_file 0",
    }
    root = tree(tmp_path, "0::/", V2_MOUNT, files)
    assert measure_cores(root).quota == 0.5
    assert measure_cores(root).count == 1
    memory = measure_memory(root)
    assert (memory.available, memory.total, memory.is_limited) == (1_200_000_000, 2 * GB, True)


def test_the_narrowest_of_nested_groups_decides_wherever_it_is(tmp_path: Path) -> None:
    files = {
        "sys/fs/cgroup/system.slice/cpu.max": "200000 100000",
        "sys/fs/cgroup/system.slice/memory.max": GB,
        "sys/fs/cgroup/system.slice/memory.current": 900_000_000,
        "sys/fs/cgroup/system.slice/dmpo.service/cpu.max": "max 100000",
        "sys/fs/cgroup/system.slice/dmpo.service/memory.max": "max",
        "sys/fs/cgroup/system.slice/dmpo.service/worker/cpu.max": "600000 100000",
        "sys/fs/cgroup/system.slice/dmpo.service/worker/memory.max": 3 * GB,
        "sys/fs/cgroup/system.slice/dmpo.service/worker/memory.current": 100,
    }
    root = tree(tmp_path, "0::/system.slice/dmpo.service/worker", V2_MOUNT, files)
    assert measure_cores(root).quota == 2.0
    memory = measure_memory(root)
    assert (memory.available, memory.total) == (100_000_000, GB)


def test_version_1_with_its_controllers_in_folders_of_their_own(tmp_path: Path) -> None:
    files = {
        "sys/fs/cgroup/cpu,cpuacct/kubepods/pod1/cpu.cfs_quota_us": 150_000,
        "sys/fs/cgroup/cpu,cpuacct/kubepods/pod1/cpu.cfs_period_us": 100_000,
        "sys/fs/cgroup/cpu,cpuacct/kubepods/cpu.cfs_quota_us": -1,
        "sys/fs/cgroup/cpu,cpuacct/kubepods/cpu.cfs_period_us": 100_000,
        "sys/fs/cgroup/memory/kubepods/memory.limit_in_bytes": 4 * GB,
        "sys/fs/cgroup/memory/kubepods/memory.usage_in_bytes": 3 * GB,
        "sys/fs/cgroup/memory/kubepods/memory.stat": "inactive_file 5\ntotal_inactive_file 1000000000",
        "sys/fs/cgroup/memory/kubepods/pod1/memory.limit_in_bytes": (1 << 63) - 4096,
    }
    own = "5:cpu,cpuacct:/kubepods/pod1\n4:memory:/kubepods/pod1\n1:name=systemd:/kubepods/pod1"
    root = tree(tmp_path, own, v1_mounts("cpu,cpuacct", "memory"), files)
    assert measure_cores(root).quota == 1.5
    memory = measure_memory(root)
    assert (memory.available, memory.total) == (2 * GB, 4 * GB)


def test_version_1_in_a_container_whose_paths_are_the_hosts(tmp_path: Path) -> None:
    files = {
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": 300_000,
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": 100_000,
        "sys/fs/cgroup/memory/memory.limit_in_bytes": GB,
        "sys/fs/cgroup/memory/memory.usage_in_bytes": 0,
    }
    mounts = v1_mounts("cpu", "memory", root="/docker/4f2a")
    root = tree(tmp_path, "4:memory:/docker/4f2a\n3:cpu:/docker/4f2a", mounts, files)
    assert measure_cores(root).quota == 3.0
    assert measure_memory(root).total == GB


def test_a_hybrid_takes_each_limit_from_the_version_that_has_it(tmp_path: Path) -> None:
    files = {
        "sys/fs/cgroup/unified/app/memory.max": GB,
        "sys/fs/cgroup/unified/app/memory.current": 0,
        "sys/fs/cgroup/cpu/app/cpu.cfs_quota_us": 100_000,
        "sys/fs/cgroup/cpu/app/cpu.cfs_period_us": 100_000,
    }
    mounts = v1_mounts("cpu") + "\n41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw"
    root = tree(tmp_path, "3:cpu:/app\n0::/app", mounts, files)
    assert measure_cores(root).quota == 1.0
    assert measure_memory(root).total == GB


@pytest.mark.parametrize(
    ("own_groups", "mounts", "files"),
    [
        ("0::/", V2_MOUNT, {"sys/fs/cgroup/cpu.max": "max 100000", "sys/fs/cgroup/memory.max": "max"}),
        ("0::/", V2_MOUNT, {"sys/fs/cgroup/cpu.max": "", "sys/fs/cgroup/memory.max": "what"}),
        ("0::/../../elsewhere", V2_MOUNT, {}),
        ("0::/app", "", {}),
        ("", V2_MOUNT, {"sys/fs/cgroup/app/cpu.max": "1 1"}),
        ("no colons here", "no mount either", {}),
        ("3:cpu:/", v1_mounts("cpu"), {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": -1}),
        ("3:cpu:/", v1_mounts("cpu"), {f"sys/fs/cgroup/cpu/cpu.cfs_{name}_us": 0 for name in ("quota", "period")}),
    ],
)
def test_without_a_limit_the_host_is_what_there_is(
    tmp_path: Path, own_groups: str, mounts: str, files: Mapping[str, object]
) -> None:
    root = tree(tmp_path, own_groups, mounts, files)
    assert measure_cores(root).quota is None
    assert measure_cores(root).count == len(os.sched_getaffinity(0))
    memory = measure_memory(root)
    assert (memory.total, memory.is_limited) == (psutil.virtual_memory().total, False)


def test_a_limit_above_what_the_host_has_is_none(tmp_path: Path) -> None:
    files = {"sys/fs/cgroup/memory.max": 1 << 59, "sys/fs/cgroup/cpu.max": "99999900000 100000"}
    root = tree(tmp_path, "0::/", V2_MOUNT, files)
    assert not measure_memory(root).is_limited
    assert measure_cores(root).count == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("bound", "quota", "host", "count", "words"),
    [
        (64, None, 64, 64, "64"),
        (64, 0.5, 64, 1, "1 (CPU quota 0.5; the host has 64)"),
        (64, 1.5, 64, 2, "2 (CPU quota 1.5; the host has 64)"),
        (64, 0.01, 64, 1, "1 (CPU quota 0.01; the host has 64)"),
        (3, None, 64, 3, "3 (bound to 3; the host has 64)"),
        (4, 2.0, 64, 2, "2 (CPU quota 2, bound to 4; the host has 64)"),
        (2, 8.0, 64, 2, "2 (bound to 2; the host has 64)"),
    ],
)
def test_a_part_of_a_core_counts_as_one_and_it_is_said_which_limit_is_in_force(
    bound: int, quota: float | None, host: int, count: int, words: str
) -> None:
    cores = Cores(bound, quota, host)
    assert (cores.count, str(cores)) == (count, words)


def test_the_users_number_of_threads_is_kept_except_where_torchrun_set_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for text, threads in (("4", 4), ("32", 16), ("0", 16), ("two", 16), ("", 16)):
        monkeypatch.setenv("OMP_NUM_THREADS", text)
        assert torch_threads(16) == threads, text
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert torch_threads(16) == 16
    assert torch_threads(0) == 1


MEASURE = """
import os
from dmpo_app.settings.resources import limit_libraries, measure_cores, measure_memory
limit_libraries()
print(measure_cores(), os.environ.get("OMP_NUM_THREADS"), measure_memory().total, sep="|")
"""


def run(*words: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    command = subprocess.run(
        words, cwd=PROJECT_ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    return command.stdout + command.stderr


def test_the_doctor_counts_the_cores_that_the_process_is_bound_to(tmp_path: Path) -> None:
    core = min(os.sched_getaffinity(0))
    doctor = [sys.executable, "-m", "dmpo_app.cli", "doctor", "--home", str(tmp_path / "home")]
    bind = f"import os, sys; os.sched_setaffinity(0, [{core}]); os.execv(sys.argv[1], sys.argv[1:])"
    expected = str(Cores(1, measure_cores().quota, os.cpu_count() or 1))
    said = run(sys.executable, "-c", bind, *doctor)
    assert [line.split(None, 2)[2] for line in said.splitlines() if " cores " in line] == [expected], said


@pytest.fixture
def small_group() -> Iterator[list[str]]:
    """A real control group of half a core and 1.5 GB; the words that run a command in it."""
    name = f"dmpo-test-{secrets.token_hex(4)}"
    folders = [V1 / "cpu" / name, V1 / "memory" / name]
    limits = {
        folders[0] / "cpu.cfs_quota_us": 50_000,
        folders[0] / "cpu.cfs_period_us": 100_000,
        folders[1] / "memory.limit_in_bytes": 1_500_000_000,
    }
    try:
        for folder in folders:
            folder.mkdir()
        for path, value in limits.items():
            path.write_text(str(value))
    except OSError as error:
        for folder in folders:
            if folder.is_dir():
                folder.rmdir()
        pytest.skip(f"no control group can be made here: {error}")
    joining = "; ".join(f"echo 0 > {folder}/cgroup.procs" for folder in folders)
    yield ["sh", "-c", f'{joining}; exec "$@"', "sh"]
    for folder in folders:
        folder.rmdir()


def test_in_a_real_control_group_threads_and_memory_are_the_groups(small_group: list[str]) -> None:
    cores, threads, total = run(*small_group, sys.executable, "-c", MEASURE).split("|")
    assert cores.startswith("1 (CPU quota 0.5")
    assert threads == "1", "torch and its like are told, which know of affinity alone"
    assert int(total) == 1_500_000_000 // 4096 * 4096
