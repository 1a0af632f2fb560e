"""Export in each format: speed, memory, and a check that the pairs read back as they were.

    python -m benchmarks.exchange_export [--pairs 10000] [--size 128]

Each export is a process of its own: its memory is the most it held beyond what it held before. Every format is read
back, the table by Python's csv and the others by the readers of `dmpo import`; a difference is a pair whose prompt,
images or answer are not those of the store, as far as the format can hold them. Linux only.
"""

import argparse
import csv
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.filled_store import fill
from benchmarks.report import machine, print_table
from dmpo_app.domain.vote import Outcome
from dmpo_app.exchange.exporting import FORMATS, ExportOptions, Selection, export_to, get_format
from dmpo_app.exchange.readers.reader import PreferencePair, read_row
from dmpo_app.exchange.readers.registry import detect_reader, open_source
from dmpo_app.io.files import sha256_hex, sha256_of_file
from dmpo_app.settings import Settings
from dmpo_app.store import Store

_Answer = tuple[str, str, str, float]
"""Prompt, sha256 of both images, whether the first won."""
_WINS = {Outcome.A: 1.0, Outcome.B: 0.0, Outcome.TIE: 0.5}


def measure(home: Path, name: str, *, with_images: bool) -> None:
    """Export a filled home, which may have been exported before; prints rows, seconds and MB."""
    with Store.open(home) as store:
        base = store.models.register("benchmark", "stable_diffusion", "f" * 64)
        settings, form = Settings(home=home), get_format(name)
        options = ExportOptions(with_images=with_images, held_out_share=0)
        before = _most_memory()
        started = time.perf_counter()
        summary = export_to(home.parent / name, store, base, settings, form, Selection(), options)
        seconds = time.perf_counter() - started
        most = _most_memory()
    print(summary.pairs, seconds, most - before)


def _most_memory() -> float:
    """The most that was resident so far, in MB; getrusage would count the parent process in."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


def differences(home: Path, name: str) -> int:
    """Pairs that an export with images does not give back as the store has them; missing and doubled ones too."""
    holds_ties = get_format(name).holds_ties
    with Store.open(home) as store:
        base = store.models.register("benchmark", "stable_diffusion", "f" * 64)
        wanted: set[_Answer] = set()
        after, last = 0, store.voted_pairs.last_vote(base)
        while page := store.voted_pairs.page(base, after=after, last_vote=last):
            after = page[-1].id
            for pair in page:
                a, b, wins = pair.image_a.sha256, pair.image_b.sha256, _WINS[pair.votes[0].outcome]
                if not holds_ties:
                    if wins == 0.5:
                        continue
                    a, b, wins = (a, b, 1.0) if wins == 1 else (b, a, 1.0)
                wanted.add((pair.prompt, a, b, wins))
    read = list(_table(home.parent / name) if name == "votes-csv" else _rows_of(home.parent / name))
    return len(wanted ^ set(read)) + len(read) - len(set(read))


def _rows_of(folder: Path) -> Iterator[_Answer]:
    source = open_source(str(folder))
    reader = detect_reader(source.columns, source.name)
    for row in source.open():
        for found in read_row(reader, row, "row", source.folder):
            if isinstance(found, PreferencePair):
                yield found.prompt, sha256_hex(found.image_a), sha256_hex(found.image_b), found.wins_a


def _table(folder: Path) -> Iterator[_Answer]:
    for path in sorted(folder.rglob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                names = []
                for side in ("a", "b"):
                    names.append(row[f"image_{side}_sha256"])
                    if sha256_of_file(folder / row[f"image_{side}_file"]) != names[-1]:
                        raise SystemExit(f"{names[-1]} is another file")
                yield row["prompt"], names[0], names[1], _WINS[Outcome(row["outcome"])]


def _rows(home: Path, pairs: int, *, with_images: bool) -> list[list[object]]:
    rows: list[list[object]] = []
    for form in FORMATS:
        command = [sys.executable, "-m", "benchmarks.exchange_export", "--measure", str(home), "--format", form.name]
        command += ["--images"] if with_images else []
        words = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        out, seconds, megabytes = int(words[0]), float(words[1]), float(words[2])
        back = str(differences(home, form.name)) if with_images else ""
        images = "with" if with_images else "without"
        rows.append([form.name, images, f"{pairs:,}", f"{out / seconds:,.0f}", f"{megabytes:.0f}", back])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=128, help="pixels a side of the images")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--format", help=argparse.SUPPRESS)
    parser.add_argument("--images", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure, arguments.format, with_images=arguments.images)
        return
    rows: list[list[object]] = []
    for size in (None, arguments.size):
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder) / "home"
            with Store.open(home) as store:
                fill(store, arguments.pairs, size=size)
            rows += _rows(home, arguments.pairs, with_images=size is not None)
    print(f"\n{machine()}; images of {arguments.size} pixels a side\n")
    print_table(["format", "images", "pairs", "pairs/s written", "memory, MB", "read back differently"], rows)


if __name__ == "__main__":
    main()
