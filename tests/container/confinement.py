"""A studio in a place as poor as containers can be: read-only, with little room, for a user that nobody knows.

In a mount namespace of its own, which takes root and Linux. The checkout lies in /mnt there and the home's folder in
/srv; nothing but that, /tmp and /dev/shm can be written.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from tests.studio_process import ADMIN_TOKEN, PROJECT_ROOT, Running, StudioProcess

UID = 54321
"""A user without an entry in /etc/passwd."""

_SCRIPT = """
set -e
mount --make-rprivate /
python_root=$1 project=$2 home=$3 tmp=$4 shm=$5 root=$6
shift 6
mount --bind "$project" /mnt
mount --bind "$home" /srv
case $python_root in
  /root/*)  # where others than root may not look
    mount --bind "$python_root" /media
    mount -t tmpfs -o mode=755 tmpfs /root
    mkdir -p "$python_root"
    mount --move /media "$python_root" ;;
esac
mount -t tmpfs -o "size=$shm,mode=1777" tmpfs /dev/shm
mount -o remount,bind,ro /mnt
if [ "$root" = ro ]; then mount --bind / / && mount -o remount,bind,ro /; fi
mount -t tmpfs -o "size=$tmp" tmpfs /tmp
cd /mnt
exec "$@"
"""


def can_confine() -> bool:
    """True where this process may make mount namespaces and users have the tools for it."""
    if sys.platform != "linux" or os.geteuid() != 0 or not (shutil.which("unshare") and shutil.which("setpriv")):
        return False
    return subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0


@dataclass(frozen=True, slots=True)
class Confinement:
    """The disks that a process is left with. `tmp`, `shm`: sizes of /tmp and /dev/shm, options of a tmpfs."""

    uid: int = UID
    umask: int = 0o022
    root: str = "ro"
    tmp: str = "64m,mode=1777"
    shm: str = "64m"
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def command(self, home_parent: Path, *arguments: str, settings: Mapping[str, str]) -> list[str]:
        """A command line that runs `dmpo` with these arguments in there, with no other environment than `settings`."""
        environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": "/mnt", **settings, **self.environment}
        python_root = Path(sys.base_prefix)
        if python_root.is_relative_to("/root"):
            python_root = Path(*python_root.parts[:3])
        python = Path(sys.executable)
        if python.is_relative_to(PROJECT_ROOT):
            python = Path("/mnt") / python.relative_to(PROJECT_ROOT)
        return [
            "unshare", "-m", "sh", "-c", _SCRIPT, "sh",
            str(python_root), str(PROJECT_ROOT), str(home_parent), self.tmp, self.shm, self.root,
            "setpriv", f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups",
            "env", "-i", *(f"{name}={value}" for name, value in environment.items()),
            "sh", "-c", f'umask {self.umask:04o}; exec "$@"', "sh",
            str(python), "-P", "-m", "dmpo_app.cli", *arguments,
        ]  # fmt: skip


class ConfinedStudio(StudioProcess):
    """`dmpo serve` in there, on a home that its user owns; the folder of the home is what can be written."""

    def __init__(self, home: Path, confinement: Confinement, **settings: str) -> None:
        super().__init__(home)
        self._confinement = confinement
        self._settings = {f"DMPO_{name}": value for name, value in settings.items()}
        home.parent.mkdir(parents=True, exist_ok=True)
        os.chown(home.parent, confinement.uid, confinement.uid)
        self.log_path = home.parent.parent / f"{home.parent.name}.log"

    def _spawn(self, arguments: list[str]) -> Running:
        settings = {"DMPO_HOME": f"/srv/{self.home.name}", "DMPO_ADMIN_TOKEN": ADMIN_TOKEN, **self._settings}
        command = self._confinement.command(self.home.parent, *arguments, settings=settings)
        with self.log_path.open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
