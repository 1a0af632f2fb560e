"""kill -9 of a trainer's parent, and of whole servers, at random moments: nothing may outlive them.

    python -m benchmarks.parent_kills [--kills 300] [--servers 25]

A real trainer loads, trains a long round and writes a checkpoint every 50 ms, while its parent is killed between
0 and SPREAD_SECONDS after its start. Survivors are processes that are still there SURVIVOR_SECONDS later; they are then
killed. The parent of the first part is a stub with nine threads, forked from a process that has imported everything;
those of the second part are `dmpo serve`.
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks.report import machine, print_table
from dmpo_app.io.liveness import Heartbeat
from dmpo_app.settings import RenderSettings, Settings, TrainerSettings
from tests.patience import wait_until
from tests.preloaded_process import PreloadedPython
from tests.studio_process import StudioProcess
from tests.training.training_studio import FAST, TrainingStudio

SURVIVOR_SECONDS = 10.0
SPREAD_SECONDS = 2.5
SERVER_SPREAD_SECONDS = 25.0
NUM_PAIRS = 16
KILLS_A_HOME = 10
LONG = FAST.model_copy(update={"num_steps": 5000, "batch_pairs": 16, "evaluate_every": 20, "slice_seconds": 0.05})
"""A round that lasts for KILLS_A_HOME kills."""


class Kill(NamedTuple):
    """One kill: what the child said last that it was at, and the seconds until it had ended; None for a survivor."""

    phase: str
    seconds: float | None


def filled_home(folder: Path, source: Path) -> Path:
    """A home with votes enough for a round."""
    studio = TrainingStudio.open(folder, source)
    studio.add_pairs(NUM_PAIRS)
    studio.vote(NUM_PAIRS)
    studio.store.close()
    return folder


def seconds_to_end(children: Sequence[psutil.Process]) -> float | None:
    """The seconds until all have ended; None when some have not in SURVIVOR_SECONDS, and those are killed."""
    began = time.monotonic()
    while any(is_alive(child) for child in children):
        if time.monotonic() - began > SURVIVOR_SECONDS:
            for child in children:
                if is_alive(child):
                    child.kill()
            return None
        time.sleep(0.02)
    return time.monotonic() - began


def trainer_settings(home: Path, source: Path) -> Settings:
    return Settings(
        home=home,
        base_model=str(source),
        min_votes=NUM_PAIRS,
        round=LONG,
        render=RenderSettings(device="cpu"),
        trainer=TrainerSettings(poll_seconds=0.05, num_threads=1, nice=0, lease_seconds=2.0),
    )


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def kill_parents(source: Path, folder: Path, count: int, rng: random.Random) -> Iterator[Kill]:
    """Kill the parents of `count` trainers, one after the other."""
    settings_file = folder / "settings.json"
    for number in range(count):
        if number % KILLS_A_HOME == 0:
            settings = trainer_settings(filled_home(folder / f"home-{number}", source), source)
            settings_file.write_text(settings.model_dump_json(exclude={"admin_token", "database_url"}))
        said = folder / f"parent-{number}.txt"
        said.touch()
        parent = PreloadedPython(
            "tests.training.parent_to_kill",
            [str(settings_file)],
            environment={"PATH": "/usr/bin:/bin"},
            stdout=said,
            stderr=folder / "stderr.txt",
        )
        wait_until(lambda said=said: "\n" in said.read_text(), "the trainer is forked")  # type: ignore[misc]
        child = psutil.Process(int(said.read_text().split("\n")[0]))
        time.sleep(rng.uniform(0, SPREAD_SECONDS))
        parent.kill()
        seconds = seconds_to_end([child])
        heartbeats = [beat for line in said.read_text().splitlines() if (beat := Heartbeat.from_line(line))]
        yield Kill(heartbeats[-1].phase if heartbeats else "starting", seconds)


def kill_servers(home: Path, source: Path, count: int, rng: random.Random) -> Iterator[Kill]:
    """Kill `count` servers on `home`, one after the other; their trainers, and whatever else they started, must end."""
    for _ in range(count):
        studio = StudioProcess(
            home,
            BASE_MODEL=source,
            MIN_VOTES=NUM_PAIRS,
            **{f"ROUND__{name.upper()}": value for name, value in LONG.model_dump(exclude_defaults=True).items()},
        )
        studio.start()
        assert studio.process is not None
        server = psutil.Process(studio.process.pid)
        time.sleep(rng.uniform(0, SERVER_SPREAD_SECONDS))
        children = server.children(recursive=True)
        studio.kill()
        yield Kill("training" if children else "no child", seconds_to_end(children))


def summarize(kind: str, kills: Sequence[Kill]) -> list[tuple[object, ...]]:
    """Rows of the table: kind, phase, kills, survivors, slowest end."""
    rows: list[tuple[object, ...]] = []
    for phase in sorted({kill.phase for kill in kills}):
        ends = [kill.seconds for kill in kills if kill.phase == phase]
        slowest = max((seconds for seconds in ends if seconds is not None), default=float("nan"))
        rows.append((kind, phase, len(ends), ends.count(None), f"{slowest:.2f} s"))
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--servers", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    from tests.tiny_pipeline import make_tiny_pipeline

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = make_tiny_pipeline(folder / "model")
        parents = list(kill_parents(source, folder, options.kills, rng))
        servers = list(kill_servers(filled_home(folder / "served", source), source, options.servers, rng))
    print(machine() + "\n")
    print_table(
        ["killed", "its child was", "kills", "survivors", "slowest end"],
        [*summarize("stub parent", parents), *summarize("server", servers)],
    )
    return int(any(kill.seconds is None for kill in (*parents, *servers)))


if __name__ == "__main__":
    sys.exit(main())
