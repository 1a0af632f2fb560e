"""Import of a Pick-a-Pic parquet: speed, and a kill -9 in the middle that must neither lose nor double anything."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

from benchmarks.filled_store import fill
from benchmarks.report import machine, print_table
from dmpo_app.exchange.exporting import ExportOptions, Selection, export_to, get_format
from dmpo_app.settings import Settings
from dmpo_app.store import Store
from dmpo_app.store.db.sqlite import safe_driver

COMMAND = (sys.executable, "-c", "from dmpo_app.cli.main import app; app()", "import")
PROMPTS = 2_000
USERS = 50


@dataclass(frozen=True, slots=True)
class Taken:
    """One run of the command. `seconds` of wall time from the first row in the store to the last, start-up apart."""

    rows: int
    seconds: float
    start_seconds: float
    peak_bytes: int


def main(
    rows: Annotated[int, typer.Option(min=100)] = 100_000,
    size: Annotated[int, typer.Option(min=8, help="Pixels a side")] = 64,
    kill: Annotated[bool, typer.Option(help="Also kill one run half-way and run it again")] = True,
    data: Annotated[Path | None, typer.Option(help="Keep the made rows here, or take them from here")] = None,
) -> None:
    """Rows a second into an empty home, again into a full one, and the drill with a kill."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = data or Path(scratch) / "data"
        if not folder.is_dir():
            make_rows(folder, rows, size)
        whole = Path(scratch) / "whole"
        print(machine())
        lines = [_line("into an empty home", _take_in(whole, folder))]
        lines.append(_line("again, as another source's votes", _take_in(whole, folder, "--people", "others")))
        print_table(("run", "rows", "rows/s", "start", "peak memory"), lines)
        found = contents(whole)
        print(json.dumps(found))
        if kill:
            killed = Path(scratch) / "killed"
            at = _kill_half_way(killed, folder, rows)
            _take_in(killed, folder)
            _check(rows, contents(killed), at)


def make_rows(folder: Path, rows: int, size: int) -> None:
    """Pick-a-Pic as the exporter writes it, from a home with `rows` judged pairs, every image another one."""
    with tempfile.TemporaryDirectory() as scratch, Store.open(Path(scratch) / "home") as store:
        base = fill(store, rows, size=size, num_annotators=USERS, num_prompts=PROMPTS)
        options = ExportOptions(with_images=True, held_out_share=0)
        export_to(folder, store, base, Settings(home=store.home), get_format("pick-a-pic"), Selection(), options)


def _take_in(home: Path, data: Path, *options: str) -> Taken:
    begun = time.monotonic()
    before = _rows_of(home)
    process = subprocess.Popen([*COMMAND, str(data), "--yes", "--home", str(home), *options], stdout=subprocess.DEVNULL)
    watched, first, peak, rows_at_first = psutil.Process(process.pid), 0.0, 0, 0
    while process.poll() is None:
        try:
            peak = max(peak, watched.memory_info().rss)
        except psutil.NoSuchProcess:
            break
        if not first and (now := _rows_of(home)) > before:
            first, rows_at_first = time.monotonic(), now
        time.sleep(0.05)
    if process.wait() != 0:
        raise SystemExit(f"the import ended with {process.returncode}")
    taken = _rows_of(home) - rows_at_first
    return Taken(taken, time.monotonic() - first, first - begun, peak)


def _kill_half_way(home: Path, data: Path, rows: int) -> int:
    process = subprocess.Popen([*COMMAND, str(data), "--yes", "--home", str(home)], stdout=subprocess.DEVNULL)
    while _rows_of(home) < rows // 2:
        if process.poll() is not None:
            raise SystemExit("the import ended before it could be killed")
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return _rows_of(home)


def _rows_of(home: Path) -> int:
    """Rows that all imports of a home have behind them."""
    if not (home / "studio.db").exists():
        return 0
    return sum(one["rows"] for one in _counts(home))


def _counts(home: Path) -> list[dict[str, Any]]:
    driver = safe_driver()  # any other library might damage a database that is being written
    connection = driver.connect(f"file:{home / 'studio.db'}?mode=ro", uri=True, timeout=30)
    try:
        found = connection.execute("SELECT counts FROM imports").fetchall()
    except driver.OperationalError:
        return []  # the tables are being made
    finally:
        connection.close()
    return [{"rows": 0, **json.loads(counts)} for (counts,) in found]


def contents(home: Path) -> dict[str, int]:
    """Count a home's imported rows, and how many are missing or doubled."""
    queries = {
        "pairs": "SELECT count(*) FROM imported_pairs",
        "votes": "SELECT count(*) FROM imported_votes",
        "doubled pairs": "SELECT count(*) - count(DISTINCT content_key) FROM imported_pairs",
        "doubled votes": "SELECT count(*) - count(DISTINCT annotator_id || ':' || pair_id) FROM votes",
        "wrong counts": "SELECT count(*) FROM pairs LEFT JOIN "
        "(SELECT pair_id, count(*) AS counted FROM votes GROUP BY pair_id) ON pair_id = pairs.id "
        "WHERE num_votes <> coalesce(counted, 0)",
    }
    with Store.open(home) as store:
        found = {name: int(store.read(query)[0][0]) for name, query in queries.items()}
        images = store.read("SELECT DISTINCT sha256 FROM images")
        found["missing files"] = sum(not store.files.image_path(row.sha256).is_file() for row in images)
    return found


def _check(rows: int, found: dict[str, int], killed_at: int) -> None:
    print(f"killed after {killed_at} rows, then run again: {json.dumps(found)}")
    wanted = {"pairs": rows, "votes": rows}
    if any(value != wanted.get(name, 0) for name, value in found.items()):
        raise SystemExit("something is missing or doubled")


def _line(name: str, taken: Taken) -> tuple[str, ...]:
    speed = taken.rows / taken.seconds
    return name, f"{taken.rows:,}", f"{speed:,.0f}", f"{taken.start_seconds:.1f} s", f"{taken.peak_bytes >> 20} MiB"


if __name__ == "__main__":
    typer.run(main)
