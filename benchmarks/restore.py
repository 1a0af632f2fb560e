"""The restore drill: snapshots under load put together again, wiped disks recovered, and how long many votes take.

    python -m benchmarks.restore [--quick] [--only snapshots|disks|votes]

Votes come at 100 a second from one thread; half of them are asked for as `DMPO_BACKUP__ACKNOWLEDGE=remote` would, the
others are acknowledged by the disk alone. A wiped disk is a process killed with kill -9 and its home deleted.
"""

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from benchmarks.report import machine, print_table
from dmpo_app.backup.backup_service import Backup, BackupUploader
from dmpo_app.backup.remotes import open_remote
from dmpo_app.backup.restoring import restore
from dmpo_app.backup.snapshots import snapshot_names
from dmpo_app.backup.startup import claim_and_restore
from dmpo_app.domain.campaign import DurabilityPolicy, LocalDurability
from dmpo_app.domain.lineage import NewImage, NewPair, PairSource, Provenance
from dmpo_app.domain.vote import Choice
from dmpo_app.labeling.sign_in import load_or_create_key
from dmpo_app.settings import BackupSettings
from dmpo_app.store import Store
from dmpo_app.store.db.sqlite import open_copy
from dmpo_app.store.store import DATABASE_NAME, utc_now

VOTES_PER_SECOND = 100
NUM_PAIRS = 200
SESSION_PAIRS = 16
INTERVAL_SECONDS = 3.0
"""Of the drill's snapshots; each is restored at a random moment before the next."""


@dataclass
class Acknowledged:
    """Ids of votes with the time they were acknowledged: by the disk, and those also by the backup."""

    by_disk: dict[int, float] = field(default_factory=dict)
    by_backup: dict[int, float] = field(default_factory=dict)


@contextmanager
def studio(home: Path, storage: Path, *, interval: float, log_seconds: float) -> Iterator[tuple[Store, Backup]]:
    """An open home with its backup running, as `dmpo serve` has them."""
    settings = BackupSettings(
        url=str(storage), interval_seconds=interval, log_seconds=log_seconds, acknowledge="remote", handover_seconds=0
    )
    remote = open_remote(str(storage))
    claim = claim_and_restore(home, remote, handover_seconds=0, now=utc_now)
    load_or_create_key(home)
    with Store.open(home) as store:
        backup = Backup(BackupUploader(home, remote, claim, settings, now=utc_now), remote, claim, settings)
        backup.start()
        try:
            yield store, backup
        finally:
            backup.stop()


def vote_forever(store: Store, backup: DurabilityPolicy, acknowledged: Acknowledged, stopping: threading.Event) -> None:
    """Vote at the rate; every second vote waits for the backup, in a thread of its own as in the server."""
    base = store.models.register("benchmark", "stable_diffusion", "f" * 64)
    if store.pairs.count(base) == 0:
        provenance = Provenance("a fox", 0, "ddim", 20, 3.0, 0, 1.0, 2, 1, "cpu", "float32")
        image = [NewImage(b"png %d" % side, 8, 8, provenance, b"latents") for side in range(2)]
        pair = NewPair("a fox", image[0], image[1], b"embeds", PairSource.POOL)
        store.pairs.add_many(base, [pair] * NUM_PAIRS)
    rng, due, count = random.Random(time.monotonic()), time.monotonic(), 0
    while not stopping.is_set():
        person = store.annotators.ensure("somebody")
        issued = store.assignments.issue(base, person.id, SESSION_PAIRS, rng=rng, lifetime=timedelta(hours=1)).result()
        for assignment in issued:
            vote = store.votes.record(assignment.id, person.id, Choice.LEFT, 900).vote_id
            acknowledged.by_disk[vote] = time.monotonic()
            count += 1
            if count % 2:
                threading.Thread(target=_settle, args=(backup, vote, acknowledged), daemon=True).start()
            due += 1 / VOTES_PER_SECOND
            time.sleep(max(0.0, due - time.monotonic()))


def _settle(backup: DurabilityPolicy, vote: int, acknowledged: Acknowledged) -> None:
    backup.wait_until_durable()
    acknowledged.by_backup[vote] = time.monotonic()


def votes_in(home: Path) -> set[int]:
    with open_copy(home / DATABASE_NAME) as connection:
        return {row[0] for row in connection.execute("SELECT id FROM votes")}


def drill(folder: Path, num_snapshots: int) -> list[object]:
    """Restore each snapshot as it appears: without its log, and with it."""
    storage, acknowledged, stopping = folder / "storage", Acknowledged(), threading.Event()
    remote = open_remote(str(storage))
    seen: set[str] = set()
    whole, worst_behind, lost = 0, 0.0, 0
    with studio(folder / "home", storage, interval=INTERVAL_SECONDS, log_seconds=0.5) as (store, backup):
        voter = threading.Thread(target=vote_forever, args=(store, backup, acknowledged, stopping))
        voter.start()
        while len(seen) < num_snapshots:
            time.sleep(0.05)
            if not (new := [name for name in snapshot_names(remote) if name not in seen]):
                continue
            seen.add(new[-1])
            time.sleep(random.uniform(0, INTERVAL_SECONDS))
            told, at = dict(acknowledged.by_backup), time.monotonic()
            everything = dict(acknowledged.by_disk)
            target = folder / f"restored-{len(seen)}"
            made = restore(remote, target, snapshot=new[-1], with_log=False)
            there = votes_in(target)
            missing = [when for vote, when in everything.items() if vote not in there]
            worst_behind = max([worst_behind, *(at - when for when in missing)])
            shutil.rmtree(target)
            with_log = restore(remote, target)
            lost += len(told.keys() - votes_in(target))
            whole += made is not None and with_log is not None and not made.faults and not with_log.faults
            shutil.rmtree(target)
        stopping.set()
        voter.join()
    final = folder / "final"
    restore(remote, final)
    behind_at_stop = len(acknowledged.by_disk.keys() - votes_in(final))
    return [f"{whole} of {num_snapshots}", f"{worst_behind:.1f}", lost, behind_at_stop, len(acknowledged.by_disk)]


def child(home: Path, storage: Path) -> None:
    """Votes until it is killed, and says every vote that the backup has."""
    acknowledged = Acknowledged()
    with studio(home, storage, interval=5.0, log_seconds=0.5) as (store, backup):
        stopping = threading.Event()
        voter = threading.Thread(target=vote_forever, args=(store, backup, acknowledged, stopping), daemon=True)
        voter.start()
        said: set[int] = set()
        while True:
            time.sleep(0.02)
            for vote in sorted(acknowledged.by_backup.copy().keys() - said):
                said.add(vote)
                sys.stdout.write(f"{vote}\n")
                sys.stdout.flush()


def wiped_disks(folder: Path, num_disks: int) -> list[object]:
    """A kill -9, the home deleted, a new start: what one process was told must be there for the next."""
    storage, told, recovered, waits = folder / "storage", set[int](), 0, []
    for disk in range(num_disks):
        home = folder / f"disk-{disk}"
        command = [sys.executable, "-m", "benchmarks.restore", "--child", str(home), str(storage)]
        began = time.monotonic()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            assert process.stdout is not None
            lines = iter(process.stdout)
            told.add(int(next(lines)))
            waits.append(time.monotonic() - began)
            kill = threading.Timer(random.uniform(1.0, 4.0), process.kill)
            kill.start()
            told.update(int(line) for line in lines if line.endswith("\n"))
        shutil.rmtree(home)
        check = folder / "check"
        made = restore(open_remote(str(storage)), check)
        recovered += made is not None and not made.faults and told <= votes_in(check)
        shutil.rmtree(check)
    return [f"{recovered} of {num_disks}", len(told), f"{max(waits):.1f}"]


def many_votes(folder: Path, num_votes: int) -> list[object]:
    """A home of that many votes: its snapshot, what 20 s of voting add to it, and its restore."""
    from benchmarks.dataset_size import fill

    home, storage = folder / "home", open_remote(str(folder / "storage"))
    with Store.open(home) as store:
        fill(store, num_votes, num_votes // 10)
        claim = claim_and_restore(home, storage, handover_seconds=0, now=utc_now)
        shipper = BackupUploader(home, storage, claim, BackupSettings(url="here"), now=utc_now)
        snapshot = _timed(shipper.upload_changes)
        packed = sum(path.stat().st_size for path in (folder / "storage").rglob("database.gz"))
        acknowledged, stopping = Acknowledged(), threading.Event()

        voter = threading.Thread(target=vote_forever, args=(store, LocalDurability(), acknowledged, stopping))
        voter.start()
        while len(acknowledged.by_disk) < 20 * VOTES_PER_SECOND:
            time.sleep(0.1)
        stopping.set()
        voter.join()
        delta = _timed(shipper.upload_changes)
        logged = sum(path.stat().st_size for path in (folder / "storage").rglob("000001.gz"))
        shipper.close()
    restored = _timed(lambda: restore(storage, folder / "new"))
    assert len(votes_in(folder / "new")) == num_votes + len(acknowledged.by_disk)
    size = (folder / "new" / DATABASE_NAME).stat().st_size
    megabytes = [f"{number / 1e6:.1f}" for number in (size, packed, logged)]
    return [f"{num_votes:,}", *megabytes, f"{snapshot:.1f}", f"{delta:.2f}", f"{restored:.1f}"]


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


HEADERS = {
    "snapshots": (
        "snapshots whole",
        "s behind without log, at most",
        "acknowledged by the backup, lost",
        "behind after a clean stop",
        "votes",
    ),
    "disks": ("wiped disks recovered", "acknowledged votes", "s until the first vote again, at most"),
    "votes": ("votes", "database MB", "snapshot MB", "20 s of votes MB", "snapshot s", "delta s", "restore s"),
}
PARTS = {"snapshots": (drill, 25, 3), "disks": (wiped_disks, 10, 2), "votes": (many_votes, 200_000, 20_000)}
"""What is run, with how many in full and in a hurry."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 snapshots, 2 disks, 20,000 votes")
    parser.add_argument("--only", choices=PARTS, help="one part alone")
    parser.add_argument("--child", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child)
    print(machine() + "\n")
    for name, (measure, full, quick) in PARTS.items():
        if options.only in (None, name):
            with tempfile.TemporaryDirectory() as folder:
                print_table(HEADERS[name], [measure(Path(folder), quick if options.quick else full)])


if __name__ == "__main__":
    main()
