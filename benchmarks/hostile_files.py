"""Hostile files against a running studio: page import, prompts import, the reader of the hub, and the commands.

    python -m benchmarks.hostile_files [--quick] [--commands 20]

Each kind of `benchmarks.hostile_containers` is sent over HTTP as an administrator sends it, text and tables as prompts
too; read as a file of the hub is, from a folder; and, a share of them, given to the command. Wanted: no restart, no
answer of 500 or above, at most 100 MB more memory in the web process, and each a sentence within 20 s.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.hostile_containers import Hostile, hostile_files
from benchmarks.report import machine, print_table
from benchmarks.seeded_home import quiet_studio, rested, seed
from dmpo_app.errors import UNEXPECTED_MESSAGE, StudioError
from dmpo_app.exchange.readers.parsed import open_dataset
from dmpo_app.exchange.readers.registry import detect_reader
from dmpo_app.exchange.readers.source import open_rows
from tests.studio_process import ADMIN_TOKEN

MOST_SECONDS, MOST_BYTES = 20.0, 100 << 20
COMMAND = (sys.executable, "-c", "from dmpo_app.cli.main import app; app()")
PROMPT_FORMATS = ("csv", "tsv", "txt", "json", "jsonl")
DATA_SUFFIXES = (".parquet", ".jsonl", ".json", ".zip")
MAX_BODY_BYTES = 4 << 20
_BUSY = ("receiving", "reading")
_WAIT_SECONDS = 120.0
_GOOD = b'{"caption": "a cat", "jpg_0": "a.png", "jpg_1": "b.png", "label_0": 1, "label_1": 0}\n'


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a file. `text`: the sentence, or the end of the output; `is_taken`: it was read without one."""

    file: Hostile
    status: int
    text: str
    seconds: float
    is_taken: bool = False

    @property
    def is_sentence(self) -> bool:
        """True for an answer that says why, or for a file whose rows may be taken."""
        if self.is_taken:
            return self.file.is_harmless
        return len(self.text) > 10 and not any(
            sign in self.text for sign in (UNEXPECTED_MESSAGE, "Traceback", "nexpected")
        )


def import_by_page(client: httpx.Client, file: Hostile) -> Answer:
    """Send a file as an administrator does, and wait for its preview."""
    begun = time.monotonic()
    sent = client.post("/api/v1/imports", params={"name": file.name}, content=file.content)
    if sent.status_code != 202:
        return Answer(file, sent.status_code, sent.text, time.monotonic() - begun)
    while time.monotonic() - begun < _WAIT_SECONDS:
        shown = client.get("/api/v1/imports")
        current = shown.json()["current"]
        if current["phase"] not in _BUSY:
            is_taken = current["phase"] == "previewed"
            return Answer(file, shown.status_code, current["problem"], time.monotonic() - begun, is_taken)
        time.sleep(0.05)
    return Answer(file, 0, "", time.monotonic() - begun)


def import_prompts(client: httpx.Client, file: Hostile) -> Answer:
    """Send a file as one of prompts."""
    begun = time.monotonic()
    options: dict[str, Any] = {"format": file.name.rpartition(".")[2], "dry_run": True, "column": "caption"}
    if options["format"] in ("csv", "tsv", "txt"):
        del options["column"]
    sent = client.post("/api/v1/prompts/import", params=options, content=file.content)
    # Rows that are all refused, each with its reason, are an answer as well.
    is_taken = sent.status_code < 300 and sent.json()["new"] > 0
    return Answer(file, sent.status_code, sent.text, time.monotonic() - begun, is_taken)


def read_as_hub(file: Hostile, folder: Path) -> Answer:
    """Read a file of a folder in a child, by the loader that reads files of the hub."""
    begun = time.monotonic()
    path = folder / f"train-{file.name}"
    path.write_bytes(file.content)
    try:
        source = open_dataset(str(folder))
        reader = detect_reader(source.columns, source.name)
        for row in open_rows(source, reader, None, 0):
            assert isinstance(row, dict)
    except StudioError as error:
        return Answer(file, 200, str(error), time.monotonic() - begun)
    finally:
        path.unlink()
    return Answer(file, 200, "", time.monotonic() - begun, is_taken=True)


def import_by_command(file: Hostile, folder: Path) -> Answer:
    """Give a file to `dmpo import`, or `dmpo prompts import`."""
    path = folder / file.name
    path.write_bytes(file.content)
    command = ("import",) if path.suffix in DATA_SUFFIXES else ("prompts", "import")
    begun = time.monotonic()
    options = ("--dry-run", "--home", str(folder / "home"))
    ended = subprocess.run(
        [*COMMAND, *command, str(path), *options], capture_output=True, text=True, check=False, timeout=_WAIT_SECONDS
    )
    path.unlink()
    status = 200 if ended.returncode in (0, 1, 2) else 500  # else a signal has ended it
    return Answer(file, status, ended.stderr or ended.stdout, time.monotonic() - begun, ended.returncode == 0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Send all kinds on all ways; returns 1 when one of the numbers wanted is not reached."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="every eighth kind alone")
    parser.add_argument(
        "--commands", type=int, default=20, help="kinds given to the command, which starts anew for each"
    )
    options = parser.parse_args(arguments)
    files = [file for number, file in enumerate(hostile_files()) if not options.quick or number % 8 == 0]
    print(machine())
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        answers, is_well = by_server(folder, files)
        (folder / "hub").mkdir()
        (folder / "commands").mkdir()
        answers["hub reader"] = [read_as_hub(file, folder / "hub") for file in files if _is_on_hub(file)]
        every = max(1, len(files) // max(1, options.commands))
        answers["commands"] = [import_by_command(file, folder / "commands") for file in files[::every]]
    report(answers)
    return int(not is_well or any(True for _ in _wrong(answers)))


def by_server(folder: Path, files: Sequence[Hostile]) -> tuple[dict[str, list[Answer]], bool]:
    """Send files to a studio, and print its restarts and the growth of its memory; False where those are too many."""
    studio = quiet_studio(seed(folder / "home", 4))
    studio.start()
    assert studio.process is not None
    process = psutil.Process(studio.process.pid)
    try:
        rested(studio)
        headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
        with httpx.Client(base_url=studio.url, headers=headers, timeout=_WAIT_SECONDS) as client:
            import_by_page(client, Hostile("good", "good.jsonl", _GOOD))  # what every import loads
            before = _restart_peak(process)
            page = [import_by_page(client, file) for file in files if file.name.endswith(DATA_SUFFIXES)]
            prompts = [import_prompts(client, file) for file in files if _is_prompts(file)]
        growth = _peak(process) - before
        is_up = process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    finally:
        studio.stop()
    print_table(("web process", ""), [("restarts", 0 if is_up else 1), ("peak memory, MB more", growth >> 20)])
    return {"page import": page, "prompts import": prompts}, is_up and growth <= MOST_BYTES


def report(answers: dict[str, list[Answer]]) -> None:
    """Print a row for each way, and the answers that are not as wanted."""
    rows = [
        (
            way,
            len(some),
            sum(one.status >= 500 or one.status == 0 for one in some),
            f"{max(one.seconds for one in some):.1f} s",
            sum(one.is_sentence for one in some),
        )
        for way, some in answers.items()
    ]
    print_table(("way", "files", "5xx or none", "slowest", "sentences"), rows)
    for way, answer in _wrong(answers):
        file, end = answer.file, answer.text[-300:]
        print(f"{way}: {file.kind} ({file.name}), {answer.status}, {answer.seconds:.1f} s: {end!r}")


def _wrong(answers: dict[str, list[Answer]]) -> Iterator[tuple[str, Answer]]:
    for way, some in answers.items():
        yield from (
            (way, one) for one in some if not one.is_sentence or one.status >= 500 or one.seconds > MOST_SECONDS
        )


def _is_prompts(file: Hostile) -> bool:
    return file.name.endswith(PROMPT_FORMATS) and len(file.content) <= MAX_BODY_BYTES


def _is_on_hub(file: Hostile) -> bool:
    return file.name.endswith((".parquet", ".jsonl", ".json"))


def _restart_peak(process: psutil.Process) -> int:
    """Forget the largest memory so far (Linux); returns the present one, in bytes."""
    Path(f"/proc/{process.pid}/clear_refs").write_text("5", encoding="ascii")
    return int(process.memory_info().rss)


def _peak(process: psutil.Process) -> int:
    """The largest resident memory of a process since then, in bytes (Linux)."""
    lines = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    sys.exit(main())
