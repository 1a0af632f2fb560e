"""Homes with pairs to vote on, and studios that do nothing but take votes, for the benchmarks of the labeling page."""

import time
from pathlib import Path
from typing import Any

import psutil

from dmpo_app.diffusion.base_models import detect_family, fingerprint
from dmpo_app.domain.lineage import NewPair, PairSource
from dmpo_app.server.wiring import read_prompts
from dmpo_app.settings import Settings
from dmpo_app.store import Store
from tests.studio_process import StudioProcess
from tests.web.studio_fakes import Rounds, scene_image

_AT_REST = 20.0
"""Percent of a core; a server with nothing to do takes less than half of it."""


def seed(home: Path, pairs: int, *, size: int = 128, newest: int = 0, database_url: str | None = None) -> Path:
    """A home of the pocket model with so many pairs of little scenes of `size` pixels; returns `home`.

    The scenes are said to be of version 0 to `newest` in turn. These versions are on record, and version 0 is live.
    """
    source, prompts = Settings().base_model, read_prompts(Settings().pool.train_prompts)
    made = []
    for number in range(pairs):
        prompt = prompts[number % len(prompts)]
        version = number % (newest + 1)
        a, b = (scene_image(prompt, 2 * number + side, version, size=size, latents=True) for side in (0, 1))
        made.append(NewPair(prompt, a, b, b"embeds", PairSource.POOL))
    with Store.open(home, database_url=database_url) as store:
        base = store.models.register(source, detect_family(source), fingerprint(source))
        rounds = Rounds(store, base)
        for _ in range(newest):
            rounds.publish(rounds.start(), proven=False)
        store.lease.release(base, rounds.token)
        store.pairs.add_many(base, made)
    return home


def quiet_studio(home: Path, **settings: Any) -> StudioProcess:
    """`dmpo serve` on it, which neither trains nor fills the pool: the votes are all there is to do."""
    return StudioProcess(home, **{"TRAIN": "false", "POOL__SIZE": 0, **settings})


def rested(studio: StudioProcess, seconds: float = 120) -> None:
    """Wait until it has loaded its model and made its contact sheet: start-up is not what is measured."""
    assert studio.process is not None
    process, until = psutil.Process(studio.process.pid), time.monotonic() + seconds
    with studio.client() as client:
        client.post("/api/v1/render", json={"prompt": "a cat", "seed": 1, "versions": [0]}).raise_for_status()
    while process.cpu_percent(interval=1) > _AT_REST:
        if time.monotonic() > until:
            raise TimeoutError(f"the server is still at work after {seconds:.0f} s")


def votes_in(home: Path) -> int:
    """Live votes of the pocket model; for a home whose studio has stopped."""
    source = Settings().base_model
    with Store.open(home) as store:
        return store.votes.count(store.models.register(source, detect_family(source), fingerprint(source)))
