"""Power cuts replayed: what a store's disk could hold at any moment, from a record of its writes and syncs.

    python -m benchmarks.power_cut [--cuts 600] [--votes 600] [--quick]

strace records what a voting process writes to its database and when it syncs. For each cut point a disk is made: all
that was synced before it, and of what was written since any part, in sectors of 512 or 4096 bytes, in any order;
a file whose folder was not synced may be missing. SQLite opens it: it has to be whole and to hold every vote that
had been acknowledged by then.
"""

import argparse
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.report import machine, print_table
from dmpo_app.store import Store
from dmpo_app.store.db.sqlite import safe_driver
from dmpo_app.store.store import DATABASE_NAME
from tests.store.store_data import FINGERPRINT, new_pair

VOTER = """
import os, random, sys, threading
from datetime import timedelta
from pathlib import Path
from dmpo_app.domain.vote import Choice
from dmpo_app.store import Store

store = Store.open(Path(sys.argv[1]))
base = store.models.register("pocket", "stable-diffusion", "f" * 64)

def vote_on(name, count):
    annotator, rng = store.annotators.ensure(name), random.Random(name)
    for _ in range(count):
        [assignment] = store.assignments.issue(base, annotator.id, 1, rng=rng, lifetime=timedelta(hours=1)).result()
        vote = store.votes.record(assignment.id, annotator.id, Choice.LEFT, 10)
        os.write(1, b"vote %d\\n" % vote.vote_id)  # the acknowledgement

threads = [threading.Thread(target=vote_on, args=(f"voter {n}", int(sys.argv[2]) // 3)) for n in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
os._exit(0)  # as a cut would end it: without closing
"""
CALLS = "openat,write,pwrite64,fsync,fdatasync,ftruncate,unlink"
_CALL = re.compile(r"^(\d+) +(\w+)\((.*)$")
_RESUMED = re.compile(r"^(\d+) +<\.\.\. (\w+) resumed>(.*)$")
_OF_FILE = re.compile(r"^\d+<([^>]*)>(.*)$")
_WRITTEN = re.compile(r'^, "([^"]*)", (\d+)(?:, (\d+))?')
_QUOTED = re.compile(r'"([^"]*)"')
DATABASE, LOG = DATABASE_NAME, f"{DATABASE_NAME}-wal"
FOLDER = "."


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a file of the home.

    kind: write (at `place`), truncate (to `place`), sync (also of the folder, named "."), create, unlink; or vote: the
    one with the id `place` was acknowledged.
    """

    kind: str
    name: str
    place: int = 0
    data: bytes = b""


def record(home: Path, votes: int, log: Path) -> list[Event]:
    """Let a process vote under strace. Raises RuntimeError when it fails."""
    command = ["strace", "-f", "-y", "-xx", "-s", "1000000", "--signal=none", "-e", f"trace={CALLS}", "-o", str(log)]
    done = subprocess.run(
        [*command, sys.executable, "-c", VOTER, str(home), str(votes)], capture_output=True, check=False, text=True
    )
    if done.returncode != 0:
        raise RuntimeError(f"strace or the voter failed:\n{done.stderr[-2000:]}")
    with log.open(encoding="ascii") as lines:
        return list(events(lines, home))


def events(lines: Iterable[str], home: Path) -> Iterator[Event]:
    """Parse strace's log into events, in an order that claims no more than it must.

    Writes and acknowledgements count from when they were begun, syncs from when they had returned.
    """
    begun: dict[str, str] = {}
    created: set[str] = set()
    for line in lines:
        if resumed := _RESUMED.match(line):
            process, call, rest = resumed.groups()
            line = f"{process} {call}({begun.pop(process, '')}{rest}"
            if call not in ("fsync", "fdatasync", "openat"):
                continue  # it counted when it began
        found = _CALL.match(line)
        if found is None:
            continue
        process, call, rest = found.groups()
        if rest.endswith("<unfinished ...>"):
            begun[process] = rest.removesuffix("<unfinished ...>")
            if call in ("fsync", "fdatasync", "openat"):
                continue
        yield from _event(call, rest, home.resolve(), created)


def _event(call: str, rest: str, home: Path, created: set[str]) -> Iterator[Event]:
    if call in ("openat", "unlink"):
        path = Path(_plain(_QUOTED.search(rest)).decode())
        if path.parent != home or path.name not in (DATABASE, LOG):
            return
        if call == "unlink":
            created.discard(path.name)
            yield Event("unlink", path.name)
        elif path.name == LOG and LOG not in created and " = -1 " not in rest:
            created.add(LOG)
            yield Event("create", LOG)
        return
    of_file = _OF_FILE.match(rest)
    if of_file is None:
        return
    path, more = Path(_decoded(of_file[1]).decode(errors="replace")), of_file[2]
    written = _WRITTEN.match(more)
    if call == "write" and written is not None and rest.startswith("1<"):
        for acknowledged in _decoded(written[1]).splitlines():
            yield Event("vote", "", int(acknowledged.removeprefix(b"vote ")))
    elif path == home and call in ("fsync", "fdatasync"):
        yield Event("sync", FOLDER)
    elif path.parent == home and path.name in (DATABASE, LOG):
        if call == "pwrite64" and written is not None:
            yield Event("write", path.name, int(written[3]), _decoded(written[1]))
        elif call == "ftruncate":
            yield Event("truncate", path.name, int(more.removeprefix(", ").split(")")[0].split()[0]))
        elif call in ("fsync", "fdatasync"):
            yield Event("sync", path.name)
        else:
            raise RuntimeError(f"{call} to {path.name}: this recorder does not know how to replay that")


def _plain(quoted: re.Match[str] | None) -> bytes:
    return b"" if quoted is None else _decoded(quoted[1])


def _decoded(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


@dataclass
class Disk:
    """The database and its log as a disk may hold them: what was synced, and what was written since."""

    synced: dict[str, bytes]
    entries: set[str]
    """Names that the synced folder has."""
    pending: dict[str, list[Event]] = field(default_factory=lambda: {DATABASE: [], LOG: []})
    acknowledged: set[int] = field(default_factory=set)

    def apply(self, event: Event) -> None:
        if event.kind == "vote":
            self.acknowledged.add(event.place)
        elif event.kind == "sync" and event.name == FOLDER:
            self.entries = {name for name in (DATABASE, LOG) if name in self.synced}
        elif event.kind == "sync":
            self.synced[event.name] = merged(self.synced.get(event.name, b""), self.pending[event.name])
            self.pending[event.name] = []
        elif event.kind == "create":
            self.synced.setdefault(event.name, b"")
        elif event.kind == "unlink":
            raise RuntimeError("the voter is not to close the database")
        else:
            self.pending[event.name].append(event)

    def after_a_cut(self, rng: random.Random) -> dict[str, bytes]:
        """The files by name: the synced, and a random part of the rest."""
        keep, sector = rng.choice([0.0, 0.1, 0.5, 0.9, 1.0]), rng.choice([512, 4096])
        files = {}
        for name, content in self.synced.items():
            if name not in self.entries and rng.random() < 0.5:
                continue
            survivors = [part for event in self.pending[name] for part in sectors(event, sector)]
            files[name] = merged(content, [part for part in survivors if rng.random() < keep])
        return files


def sectors(event: Event, size: int) -> Iterator[Event]:
    """A write in the pieces that a disk writes whole; anything else as it is."""
    if event.kind != "write":
        yield event
        return
    start, end = event.place, event.place + len(event.data)
    while start < end:
        stop = min(end, (start // size + 1) * size)
        yield Event("write", event.name, start, event.data[start - event.place : stop - event.place])
        start = stop


def merged(content: bytes, happened: Sequence[Event]) -> bytes:
    """A file after these writes and truncations; holes are zeros."""
    file = bytearray(content)
    for event in happened:
        end = event.place + len(event.data) if event.kind == "write" else event.place
        file.extend(bytes(max(0, end - len(file))))
        if event.kind == "write":
            file[event.place : end] = event.data
        else:
            del file[event.place :]
    return bytes(file)


@dataclass
class Tally:
    """Counts over the replayed power cuts."""

    cuts: int = 0
    corrupt: int = 0
    lost: int = 0
    """Cuts after which an acknowledged vote was missing."""
    most_pending: int = 0
    changed_database: int = 0
    """Cuts amid a checkpoint, with unsynced writes to the database file itself."""


def replay(home: Path, happened: Sequence[Event], cuts: int, work: Path, *, seed: int = 1) -> Tally:
    """Cut the power at `cuts` moments spread over the record. `home`: as it was before."""
    rng, tally = random.Random(seed), Tally()
    disk = Disk({DATABASE: (home / DATABASE).read_bytes()}, {DATABASE})
    first = next(place for place, event in enumerate(happened) if event.kind == "write")
    moments = sorted(rng.sample(range(first, len(happened)), min(cuts, len(happened) - first)))
    done = 0
    for moment in moments:
        for event in happened[done : moment + 1]:
            disk.apply(event)
        done = moment + 1
        tally.cuts += 1
        tally.most_pending = max(tally.most_pending, sum(map(len, disk.pending.values())))
        tally.changed_database += bool(disk.pending[DATABASE])
        whole, votes = opened(disk.after_a_cut(rng), work)
        tally.corrupt += not whole
        tally.lost += not disk.acknowledged <= votes
    return tally


def opened(files: dict[str, bytes], work: Path) -> tuple[bool, set[int]]:
    """Open the database with our SQLite: its integrity, and the votes in it."""
    for name in (DATABASE, LOG, f"{DATABASE_NAME}-shm"):
        (work / name).unlink(missing_ok=True)
    for name, content in files.items():
        (work / name).write_bytes(content)
    driver = safe_driver()
    connection = driver.connect(str(work / DATABASE))
    try:
        whole = connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        return whole, {row[0] for row in connection.execute("SELECT id FROM votes")}
    except driver.DatabaseError:
        return False, set()
    finally:
        connection.close()


def seeded(home: Path, pairs: int) -> Path:
    """A closed home with so many pairs, none of them voted on."""
    with Store.open(home) as store:
        base = store.models.register("pocket", "stable-diffusion", FINGERPRINT)
        store.pairs.add_many(base, [new_pair(number) for number in range(pairs)])
    return home


def recorded_and_replayed(folder: Path, votes: int, cuts: int) -> tuple[Tally, int, int]:
    """The tally, how many events were recorded, and how many votes were acknowledged in the end."""
    home, work = seeded(folder / "home", votes), folder / "replayed"
    work.mkdir()
    before = folder / "before"
    before.mkdir()
    shutil.copyfile(home / DATABASE, before / DATABASE)  # nobody has it open: closed above, and not yet opened again
    happened = record(home, votes, folder / "strace.log")
    tally = replay(before, happened, cuts, work)
    return tally, len(happened), sum(event.kind == "vote" for event in happened)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuts", type=int, default=600)
    parser.add_argument("--votes", type=int, default=600)
    parser.add_argument("--quick", action="store_true", help="60 cuts, 90 votes")
    arguments = parser.parse_args()
    cuts, votes = (60, 90) if arguments.quick else (arguments.cuts, arguments.votes)
    if shutil.which("strace") is None:
        raise SystemExit("strace is not installed; on Debian: apt-get install strace")
    with tempfile.TemporaryDirectory() as folder:
        tally, num_events, acknowledged = recorded_and_replayed(Path(folder), votes, cuts)
    print(f"{machine()}; {acknowledged} votes, {num_events:,} writes and syncs recorded\n")
    header = (
        "cuts",
        "amid a checkpoint",
        "most writes unsynced",
        "corrupt",
        "with an acknowledged vote lost",
        "wanted",
    )
    facts = [tally.cuts, tally.changed_database, tally.most_pending, tally.corrupt, tally.lost, "0 and 0"]
    print_table(header, [facts])


if __name__ == "__main__":
    main()
