"""Seconds from the start command to the page, to a pair that can be voted on, and to a loaded model; resident memory.

    python -m benchmarks.startup [--runs 3]

Every run is a fresh home. `make run` adds only the check that everything is installed.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import httpx
import psutil

from benchmarks.report import machine, print_table
from tests.studio_process import StudioProcess


def until(condition: object, started: float, seconds: float = 120) -> float:
    """Seconds since `started` at which `condition()` first holds."""
    assert callable(condition)
    while time.perf_counter() - started < seconds:
        try:
            if condition():
                return time.perf_counter() - started
        except httpx.HTTPError:
            pass
        time.sleep(0.05)
    raise TimeoutError(f"not within {seconds} s")


def one_run(home: Path) -> dict[str, float]:
    studio = StudioProcess(home)
    with studio.client() as client:
        started = time.perf_counter()
        studio.start()
        page = until(lambda: client.get("/").status_code == 200, started)
        token = client.post("/api/v1/session", json={"handle": "benchmark"}).json()["token"]
        headers = {"Authorization": f"Bearer {token}"}

        def pair_is_there() -> bool:
            found = client.get("/api/v1/assignments?count=1", headers=headers).json()["assignments"]
            return bool(found) and client.get(found[0]["left"]).status_code == 200

        pair = until(pair_is_there, started)
        body = {"prompt": "a red house", "seed": 1, "versions": [0]}
        until(lambda: client.post("/api/v1/render", json=body).status_code == 200, started)
        model = time.perf_counter() - started
    time.sleep(10)
    assert studio.process is not None
    web = psutil.Process(studio.process.pid)
    trainers = web.children(recursive=True)
    figures = {
        "page up, s": page,
        "first pair to vote on, s": pair,
        "first image rendered, s": model,
        "web process, MB": web.memory_info().rss / 1e6,
        "idle trainer, MB": sum(child.memory_info().rss for child in trainers) / 1e6,
    }
    studio.stop()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        figures = [one_run(Path(folder) / f"home{index}") for index in range(runs)]
    print(f"{machine()}; {runs} runs on a fresh home\n")
    rows = [
        (name, *(f"{pick([run[name] for run in figures]):.1f}" for pick in (min, statistics.median, max)))
        for name in figures[0]
    ]
    print_table(("", "min", "median", "max"), rows)


if __name__ == "__main__":
    main()
