import subprocess
import sys
from pathlib import Path

from tests.patience import PATIENCE
from tests.store.store_fixtures import sqlite_only

pytestmark = sqlite_only

EVERYTHING_UNDER_WATCH = """
import random, sys
from datetime import timedelta
from pathlib import Path

opened = []
sys.addaudithook(lambda event, arguments: opened.append(str(arguments[0])) if event == "open" else None)

from dmpo_app.domain.lineage import ImageKind
from dmpo_app.domain.lineage import Trigger
from dmpo_app.domain.vote import Choice
from dmpo_app.labeling.sign_in import load_or_create_key
from dmpo_app.store import Store, utc_now
from tests.store.store_data import issue, new_adapter, new_image, new_pair, start_round, vote_once

home = Path(sys.argv[1])
for _ in range(2):
    with Store.open(home) as store:
        load_or_create_key(home)
        base = store.models.register("pocket", "stable-diffusion", "f" * 64)
        store.pairs.add_many(base, [new_pair(number) for number in range(4)])
        anna = store.annotators.ensure("anna")
        votes = [vote_once(store, base, anna)[1].vote_id for _ in range(3)]
        store.votes.undo(votes[-1], anna.id)
        token = store.lease.acquire(base, "trainer", lease_seconds=30)
        store.rounds.publish(start_round(store, base, token, votes[:2]).id, new_adapter(votes[:2]), token=token)
        store.images.add(base, new_image(), ImageKind.RENDER)
        store.images.purge_renders(base, utc_now())
        store.pairs.count_unjudged(base), store.votes.training_votes(base), store.adapters.list(base)

assert any(path.startswith(str(home)) for path in opened), "the watch works"
print([path for path in opened if "studio.db" in path])
"""


def test_python_never_opens_the_database_file_itself(tmp_path: Path) -> None:
    """Closing any other handle on the file would drop SQLite's locks, and acknowledged votes with them."""
    process = subprocess.run(
        [sys.executable, "-c", EVERYTHING_UNDER_WATCH, str(tmp_path / "home")],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.strip() == "[]"
