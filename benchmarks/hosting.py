"""Places that a studio is started in: read-only disks, tiny /tmp, unknown users, no home; it is up, or says why not.

    python -m benchmarks.hosting [--only WORDS]

As root on Linux: each start is in a mount namespace of its own. A place counts as up when the page is served, the model
and the trainer are ready and a vote was taken; where there can be no home, a sentence in place of a traceback does.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.cold_start import first_vote
from benchmarks.report import machine, print_table
from tests.container.confinement import ConfinedStudio, Confinement, can_confine
from tests.patience import PATIENCE

PLACES = {
    "writable root, uid 54321, HOME unset, umask 022": Confinement(root="rw"),
    "the same, umask 077": Confinement(root="rw", umask=0o077),
    "the same, umask 000": Confinement(root="rw", umask=0),
    "read-only root": Confinement(),
    "read-only root, HOME=/root": Confinement(environment={"HOME": "/root"}),
    "read-only root, HOME=/nowhere": Confinement(environment={"HOME": "/nowhere"}),
    "read-only root, LANG=C": Confinement(environment={"LANG": "C", "LC_ALL": "C"}),
    "read-only root, /tmp and /dev/shm of 1 MB": Confinement(tmp="1m,mode=1777", shm="1m"),
    "read-only root, no /tmp, /dev/shm of 64 kB": Confinement(tmp="64k,mode=555", shm="64k"),
    "read-only root, uid 0": Confinement(uid=0),
    "read-only root, uid 65534, all of it": Confinement(
        uid=65534, umask=0o077, tmp="1m,mode=1777", shm="1m", environment={"HOME": "/", "LANG": "C"}
    ),
}
NO_HOMES = {
    "a home that cannot be made": "/nowhere/home",
    "a home in a folder of another user": "/srv/home",
    "a home in a folder that nobody may look into": "/root/home",
    "a home that is a file": "/mnt/app.py",
}


def start(folder: Path, place: Confinement) -> tuple[str, int]:
    """Start a studio, vote once, wait for model and trainer; what came of it, and how many warnings it logged."""
    studio, began = ConfinedStudio(folder / "writable" / "home", place), time.perf_counter()
    try:
        with studio, studio.client() as client:
            up = time.perf_counter() - began
            first_vote(client, began)
            assert client.get("/").status_code == 200
            studio.wait_for(lambda status: status["renderer"]["phase"] == "ready" and status["trainer"]["running"])
            num_open = sum(bool(path.lstat().st_mode & 0o077) for path in studio.home.rglob("*"))
    except AssertionError as error:
        return f"NOT UP: {str(error).splitlines()[-1]}", 0
    return f"up after {up:.0f} s, a vote taken" + f", {num_open} FILES OPEN" * bool(num_open), studio.log().count(
        "WARN"
    )


def refuse(folder: Path, home: str) -> str:
    """Start a studio without a home that can be written; the sentence that it ends with."""
    folder.mkdir()
    command = Confinement(tmp="1m,mode=555").command(folder, "serve", "--port", "0", settings={"DMPO_HOME": home})
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    said = " ".join(ended.stderr.split())
    return f"{'TRACEBACK' if 'Traceback' in said else 'refused'}, {ended.returncode}: {said[-160:]}"


def main() -> int:
    """Start in all of them; returns 1 where a studio is not up, or ends with a traceback."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", default="", help="places whose name has these words")
    only = parser.parse_args().only
    if not can_confine():
        sys.exit("only root on Linux can make these places (unshare, setpriv)")
    print(machine())
    rows: list[tuple[object, ...]] = []
    with tempfile.TemporaryDirectory(prefix="dmpo-hosting-", dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)  # others than root look for their home in it
        for number, (words, place) in enumerate(PLACES.items()):
            if only in words:
                rows.append((words, *start(folder / str(number), place)))
        for words, home in NO_HOMES.items():
            if only in words:
                rows.append((words, refuse(folder / words.replace(" ", "-"), home), 0))
    print_table(("place", "outcome", "warnings"), rows)
    return int(any(word in str(row[1]) for row in rows for word in ("NOT UP", "OPEN", "TRACEBACK")))


if __name__ == "__main__":
    sys.exit(main())
