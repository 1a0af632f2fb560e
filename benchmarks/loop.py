"""Seconds from the vote that starts a round to the new adapter live and rendered; memory while a round trains.

    python -m benchmarks.loop [--rounds 3] [--votes 32]

One studio on a fresh home; a simulated annotator casts the votes of each round.
"""

import argparse
import random
import statistics
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.report import machine, print_table
from dmpo_app.cli.simulation import SimulatedAnnotator
from dmpo_app.labeling.tastes import TASTES
from tests.studio_process import StudioProcess


def wait_live(studio: StudioProcess, version: int, peaks: dict[str, float], started: float) -> float:
    """Seconds until `version` is live; `peaks` gets the largest resident memory of web and trainer, MB."""
    assert studio.process is not None
    web = psutil.Process(studio.process.pid)
    while True:
        status = studio.wait_for(lambda _: True, seconds=10)
        trainer = sum(child.memory_info().rss for child in web.children(recursive=True))
        peaks["web"] = max(peaks.get("web", 0), web.memory_info().rss / 1e6)
        peaks["trainer"] = max(peaks.get("trainer", 0), trainer / 1e6)
        if status["live_version"] == version:
            return time.perf_counter() - started
        assert status["last_error"] is None, status["last_error"]
        last = status["last_round"]
        if last is not None and last["status"] in ("refused", "failed") and status["votes_until_round"] > 0:
            raise RuntimeError(f"the round was {last['status']}: {last['reason']}")
        time.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--votes", type=int, default=32)
    arguments = parser.parse_args()
    to_live, to_image, peaks = [], [], dict[str, float]()
    with tempfile.TemporaryDirectory() as folder:
        studio = StudioProcess(Path(folder) / "home", MIN_VOTES=arguments.votes)
        with studio, studio.client() as client:
            client.post("/api/v1/render", json={"prompt": "a cat", "seed": 1, "versions": [0]}).raise_for_status()
            annotator = SimulatedAnnotator(client, TASTES["warm"], rng=random.Random(0), handle="benchmark")
            for version in range(1, arguments.rounds + 1):
                for _ in annotator.votes(arguments.votes):
                    pass
                started = time.perf_counter()
                to_live.append(wait_live(studio, version, peaks, started))
                body = {"prompt": "a cat", "seed": 1, "versions": [0, version]}
                client.post("/api/v1/render", json=body).raise_for_status()
                to_image.append(time.perf_counter() - started)
    print(f"{machine()}; {arguments.rounds} rounds of {arguments.votes} new votes\n")
    rows = [
        (name, f"{min(values):.1f}", f"{statistics.median(values):.1f}", f"{max(values):.1f}")
        for name, values in (("version live, s", to_live), ("before/after rendered with it, s", to_image))
    ]
    print_table(("from the last vote to", "min", "median", "max"), rows)
    print_table(("resident memory, peak", "MB"), [(name, f"{value:.0f}") for name, value in peaks.items()])


if __name__ == "__main__":
    main()
