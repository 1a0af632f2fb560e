"""Homes with pairs to vote on, and studios that do nothing but take votes, for the benchmarks of the labeling page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dmpo_app.diffusion.family import family_of, fingerprint
from dmpo_app.domain import NewPair, PairSource
from dmpo_app.settings import Settings
from dmpo_app.store import Store
from dmpo_app.wiring import read_prompts
from tests.studio_process import StudioProcess
from tests.web.studio_fakes import scene_image

NEVER = 1_000_000
"""So many votes never come together in a benchmark: no round starts."""


def seed(home: Path, pairs: int, *, size: int = 128) -> Path:
    """A home of the pocket model with so many pairs of little scenes of `size` pixels; returns `home`."""
    source, prompts = Settings().base_model, read_prompts(Settings().pool.train_prompts)
    made = []
    for number in range(pairs):
        prompt = prompts[number % len(prompts)]
        a, b = (scene_image(prompt, 2 * number + side, 0, size=size, latents=True) for side in (0, 1))
        made.append(NewPair(prompt, a, b, b"embeds", PairSource.POOL))
    with Store.open(home) as store:
        base = store.models.register(source, family_of(source), fingerprint(source))
        store.pairs.add_many(base, made)
    return home


def quiet_studio(home: Path, **settings: Any) -> StudioProcess:
    """`dmpo serve` on it, which neither trains nor fills the pool: the votes are all there is to do."""
    quiet = {"MIN_VOTES": NEVER, "TRAINER__PERIOD_MIN_VOTES": NEVER, "TRAIN": "false", "POOL__SIZE": 1}
    return StudioProcess(home, **{**quiet, **settings})


def votes_in(home: Path) -> int:
    """Live votes of the pocket model; for a home whose studio has stopped."""
    source = Settings().base_model
    with Store.open(home) as store:
        return store.votes.count(store.models.register(source, family_of(source), fingerprint(source)))
