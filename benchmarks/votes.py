"""Latency of votes through the API while a round trains and pairs render on the same cores.

    python -m benchmarks.votes [--annotators 50] [--seconds 60]

Each annotator is one session that fetches its next assignments and votes every 2 s on average. Latency is measured by
the client, from sending the request to having the answer, and only while the status says that a round is running.
"""

import argparse
import asyncio
import random
import tempfile
import time
from pathlib import Path

import httpx

from benchmarks.report import machine, percentile, print_table
from tests.studio_process import StudioProcess

Latencies = dict[str, list[float]]


async def annotate(
    client: httpx.AsyncClient, name: str, until: float, training: asyncio.Event, taken: Latencies
) -> None:
    rng = random.Random(name)

    async def timed(kind: str, request: httpx.Request) -> httpx.Response:
        started = time.perf_counter()
        answer = await client.send(request)
        if training.is_set():
            taken[kind].append((time.perf_counter() - started) * 1000)
        taken["errors"] += [1.0] * (answer.status_code >= 500)
        return answer

    session = await client.post("/api/v1/session", json={"handle": name})
    client_headers = {"Authorization": f"Bearer {session.json()['token']}"}
    await asyncio.sleep(rng.uniform(0, 2))
    while time.monotonic() < until:
        request = client.build_request("GET", "/api/v1/assignments", params={"count": 1}, headers=client_headers)
        for assignment in (await timed("assignments", request)).json()["assignments"]:
            body = {
                "assignment": assignment["id"],
                "choice": rng.choice(["left", "right"]),
                "elapsed_ms": rng.randrange(500, 4000),
            }
            await timed("votes", client.build_request("POST", "/api/v1/votes", json=body, headers=client_headers))
        await asyncio.sleep(rng.uniform(1, 3))


async def watch(client: httpx.AsyncClient, until: float, training: asyncio.Event, rounds: set[int]) -> None:
    """Raises the `training` flag while a round is running."""
    while time.monotonic() < until:
        state = (await client.get("/api/v1/status")).json()["round"]
        if state is not None and state["status"] == "running":
            training.set()
            rounds.add(state["id"])
        else:
            training.clear()
        await asyncio.sleep(0.5)


async def measure(url: str, annotators: int, seconds: float) -> tuple[Latencies, int]:
    taken: Latencies = {"votes": [], "assignments": [], "errors": []}
    training, rounds, until = asyncio.Event(), set[int](), time.monotonic() + seconds
    limits = httpx.Limits(max_connections=annotators + 4, max_keepalive_connections=annotators + 4)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client:
        voters = (annotate(client, f"annotator {index}", until, training, taken) for index in range(annotators))
        await asyncio.gather(watch(client, until, training, rounds), *voters)
    return taken, len(rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--annotators", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, StudioProcess(Path(folder) / "home") as studio:
        # Start-up is not what is measured: the model has loaded when it has rendered.
        with studio.client() as client:
            client.post("/api/v1/render", json={"prompt": "a cat", "seed": 1, "versions": [0]}).raise_for_status()
        taken, rounds = asyncio.run(measure(studio.url, arguments.annotators, arguments.seconds))
    print(f"{machine()}; {arguments.annotators} annotators, {arguments.seconds:.0f} s, {rounds} rounds ran\n")
    rows = [
        (kind, len(values), *(f"{percentile(values, share):.1f}" for share in (0.5, 0.95, 0.99)), f"{max(values):.1f}")
        for kind, values in taken.items()
        if kind != "errors" and values
    ]
    print_table(("request", "count while training", "p50 ms", "p95 ms", "p99 ms", "max ms"), rows)
    print(f"answers of 500 and above: {len(taken['errors'])}")


if __name__ == "__main__":
    main()
