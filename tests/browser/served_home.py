"""The page on a home, in a process that can be killed; `python -m tests.browser.served_home HOME PORT` by hand.

Everything is real but the renderer and the trainer, so it is up without importing torch.
"""

import random
import sys
import threading
from pathlib import Path

from dmpo_app.labeling.service import LabelingService
from dmpo_app.labeling.sign_in import Sealer, load_or_create_key
from dmpo_app.settings import Settings
from dmpo_app.store import Store
from dmpo_app.ui import build_ui, launch
from dmpo_app.web import Services
from tests.web.studio_fakes import SAMPLING, FakeRenderer, FakeTrainer


def serve(home: Path, port: int) -> None:
    """Serve until killed; a line on stdout says when requests are accepted."""
    with Store.open(home) as store:
        base = store.models.register("pocket", "stable_diffusion", "f" * 64)
        settings = Settings(home=home, port=port, min_votes=4, public=False)
        sealer = Sealer(load_or_create_key(home))
        labeling = LabelingService(store, base, settings, sealer, rng=random.Random(1))
        renderer = FakeRenderer(store, base, size=64)
        services = Services(store, base, settings, labeling, renderer, FakeTrainer(), "the-admin-token", SAMPLING)
        server = launch(build_ui(services), services)
        sys.stdout.write(f"{server.url}\n")
        sys.stdout.flush()
        threading.Event().wait()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]))
