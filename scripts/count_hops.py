"""The files of dmpo_app that a training step passes, and those from a vote to an image of the version it led to.

python scripts/count_hops.py            the two numbers, and the parts of the second
python scripts/count_hops.py --files    their files too

Runs a studio with the tests' tiny model in a temporary folder and notes the file of every function of dmpo_app that is
called. What only runs while a module is imported does not count.
"""

import inspect
import random
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "dmpo_app"
sys.path.insert(0, str(ROOT))

VOTES = 8
WARM_UP = 3
"""Steps before the measured one: by then every pair's tensors are in memory."""


@contextmanager
def called_files() -> Iterator[set[str]]:
    """Context manager that collects the files of dmpo_app whose functions are called, in all threads begun meanwhile.

    The body of a module or of a class is not a function.
    """
    files: set[str] = set()
    prefix = str(PACKAGE)

    def note(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_flags & inspect.CO_OPTIMIZED and code.co_filename.startswith(prefix):
            files.add(str(Path(code.co_filename).relative_to(ROOT)))

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield files
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


class Studio:
    """A studio with a tiny model and enough pairs to vote on; its API, its trainer and its renderer in this process."""

    def __init__(self, folder: Path) -> None:
        from dmpo_app.diffusion.base_models import resolve_sampling
        from dmpo_app.diffusion.loading import load_denoiser
        from dmpo_app.labeling.service import LabelingService
        from dmpo_app.labeling.sign_in import Sealer, load_or_create_key
        from dmpo_app.rendering.engine import Engine
        from dmpo_app.settings import PoolSettings, RenderSettings, Settings
        from dmpo_app.web import Services
        from tests.tiny_pipeline import make_tiny_pipeline
        from tests.training.training_studio import FAST
        from tests.training.training_studio import TrainingStudio as Home
        from tests.web.api_studio import client_of
        from tests.web.studio_fakes import FakeRenderer, FakeTrainer

        self.home = Home.open(folder / "home", make_tiny_pipeline(folder / "model"))
        self.home.add_pairs(3 * VOTES)
        store, base = self.home.store, self.home.base
        render = RenderSettings(num_steps=2, device="cpu", dtype="float32")
        self.settings = Settings(
            home=self.home.home,
            base_model=str(self.home.source),
            min_votes=VOTES,
            public=False,
            render=render,
            round=FAST.model_copy(update={"num_steps": 3}),
            pool=PoolSettings(size=4),
        )
        sealer = Sealer(load_or_create_key(store.home))
        labeling = LabelingService(
            store, base, self.settings, sealer, rng=random.Random(1), now=lambda: datetime.now(UTC)
        )
        sampling = resolve_sampling(base.source, render)
        services = Services(
            store, base, self.settings, labeling, FakeRenderer(store, base, size=16), FakeTrainer(), "token", sampling
        )
        self.client = client_of(services)
        self.engine = Engine.load(store, base, self.settings)
        self.denoiser = load_denoiser(base.source, device="cpu", dtype="float32")

    def vote(self, handle: str) -> None:
        """Take a session, an assignment and a vote on it through the API."""
        token = self.client.post("/api/v1/session", json={"handle": handle}).json()["token"]
        headers = {"Authorization": f"Bearer {token}"}
        assignments = self.client.get("/api/v1/assignments", headers=headers).json()["assignments"]
        body = {"assignment": assignments[0]["id"], "choice": "left", "elapsed_ms": 900}
        self.client.post("/api/v1/votes", json=body, headers=headers).raise_for_status()

    def train_round(self) -> None:
        """Tick the scheduler of rounds once: the round that is due, from its start to its publication."""
        from dmpo_app.training.rounds.scheduler import RoundScheduler, Tick

        home = self.home
        scheduler = RoundScheduler(
            home.store, home.base, self.settings, self.denoiser, owner="hops", now=lambda: datetime.now(UTC)
        )
        if (outcome := scheduler.tick()) is not Tick.TRAINED:
            raise RuntimeError(f"the round was not trained: {outcome}")
        scheduler.close()

    def render(self) -> None:
        """Swap to the live version and make an image of it and of the base model."""
        from dmpo_app.domain.lineage import RenderRequest

        self.engine.sync_live_version()
        version = self.engine.live_version
        self.engine.render(RenderRequest("a red fox", 1, (0, version), 1.0), lambda: False)


def hops_of_a_vote(folder: Path) -> dict[str, set[str]]:
    """The files that each part of the way from a vote to an image passes, in a second turn: imports are done then."""
    studio = Studio(folder)
    for turn in ("first", "second"):
        for number in range(VOTES - 1):
            studio.vote(f"{turn} {number}")
        with called_files() as vote:
            studio.vote(f"{turn} last")
        with called_files() as round_:
            studio.train_round()
        with called_files() as image:
            studio.render()
    if studio.engine.live_version == 0:
        raise RuntimeError("no version went live")
    studio.client.close()
    studio.home.store.close()
    return {"vote": vote, "round": round_, "image": image}


def hops_of_a_step(folder: Path) -> set[str]:
    """The files that a training step passes, from its examples to the adapter's update.

    Of pairs that were read before; with the pass of the base model that their reference errors take.
    """
    from dmpo_app.diffusion.loading import load_denoiser
    from dmpo_app.training.loop.trainer import RoundTrainer
    from dmpo_app.training.rounds.round_plan import load_plan
    from tests.tiny_pipeline import make_tiny_pipeline
    from tests.training.training_studio import TrainingStudio as Home

    home = Home.open(folder / "home", make_tiny_pipeline(folder / "model"))
    home.add_pairs(VOTES)
    home.vote(VOTES)
    round_id, _ = home.start()
    plan = load_plan(home.store, home.base, home.store.rounds.get(round_id))
    denoiser = load_denoiser(str(home.source), device="cpu", dtype="float32")
    trainer = RoundTrainer(plan, denoiser, parent=None, reference_folder=folder / "references")
    for _ in range(WARM_UP):
        trainer.train_step()
    with called_files() as files:
        for _ in range(2):  # one of them has reference errors to compute
            trainer.train_step()
    trainer.close()
    home.store.close()
    return files


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        step = hops_of_a_step(Path(folder) / "step")
        parts = hops_of_a_vote(Path(folder) / "vote")
    everything = set().union(*parts.values())
    counts = ", ".join(f"{name} {len(files)}" for name, files in parts.items())
    print(f"a training step passes {len(step)} files")
    print(f"a vote passes {len(everything)} files until an image of the new version ({counts})")
    if "--files" in sys.argv:
        print("\na training step:", *sorted(step), sep="\n  ")
        for name, files in parts.items():
            print(f"\n{name}:", *sorted(files), sep="\n  ")
    return 0


if __name__ == "__main__":
    sys.exit(main())
