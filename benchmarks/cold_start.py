"""A Space that wakes up: seconds from the start of app.py on a fresh home to the page, and to the first vote taken.

    python -m benchmarks.cold_start [--runs 3] [--cores 2]

As on a Space: `python app.py` with SPACE_ID set, on so many cores, nothing cached in the home. The vote is for the
first pair that is offered; it must not have to wait for the model.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

from benchmarks.report import machine, print_table
from benchmarks.startup import until
from tests.studio_process import PROJECT_ROOT, free_port

GOAL_SECONDS = 20.0


def one_run(home: Path, cores: set[int]) -> dict[str, float]:
    port = free_port()
    ours = {name: value for name, value in os.environ.items() if not name.startswith("DMPO_")}
    space = {"SPACE_ID": "somebody/studio", "DMPO_HOME": str(home), "DMPO_PORT": str(port)}
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "app.py"],
        cwd=PROJECT_ROOT,
        env=ours | space,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(process.pid, cores)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            page = until(lambda: client.get("/").status_code == 200, started)
            return {"page up, s": page, "first vote taken, s": first_vote(client, started)}
    finally:
        process.terminate()
        process.wait(60)


def first_vote(client: httpx.Client, started: float) -> float:
    """Seconds since `started` at which a person's first vote was acknowledged."""
    token = client.post("/api/v1/session", json={"handle": "first"}).json()["token"]
    headers = {"Authorization": f"Bearer {token}"}
    (pair,) = client.get("/api/v1/assignments?count=1", headers=headers).json()["assignments"]
    assert client.get(pair["left"]).status_code == client.get(pair["right"]).status_code == 200
    body = {"assignment": pair["id"], "choice": "left", "elapsed_ms": 500}
    assert client.post("/api/v1/votes", json=body, headers=headers).status_code == 201
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--cores", type=int, default=2)
    options = parser.parse_args()
    cores = set(range(min(options.cores, os.cpu_count() or 1)))
    with tempfile.TemporaryDirectory() as folder:
        figures = [one_run(Path(folder) / f"home{index}", cores) for index in range(options.runs)]
    print(f"{machine()}; as a Space on {len(cores)} cores, {options.runs} runs on a fresh home\n")
    rows = [
        (name, *(f"{pick([run[name] for run in figures]):.1f}" for pick in (min, statistics.median, max)))
        for name in figures[0]
    ]
    print_table(("", "min", "median", "max"), rows)
    met = max(run["first vote taken, s"] for run in figures) <= GOAL_SECONDS
    print(f"{GOAL_SECONDS:.0f} s for both: {'met' if met else 'missed'}")


if __name__ == "__main__":
    main()
