import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dmpo_app.store import Store
from tests.patience import PATIENCE
from tests.store.store_data import FINGERPRINT, broken_counts, integrity_of, new_pair, scalar
from tests.store.store_fixtures import EmptyHomes

KILLS = int(os.environ.get("DMPO_SOAK_KILLS", "5"))

VOTER = """
import os, random, sys, threading
from datetime import timedelta
from pathlib import Path
from dmpo_app.domain.vote import Choice
from dmpo_app.store import Store

store = Store.open(Path(sys.argv[1]), database_url=sys.argv[2] or None)
base = store.models.register("pocket", "stable-diffusion", "f" * 64)

def vote_on():
    annotator, rng = store.annotators.ensure("voter"), random.Random()
    while assignments := store.assignments.issue(base, annotator.id, 1, rng=rng, lifetime=timedelta(hours=1)).result():
        vote = store.votes.record(assignments[0].id, annotator.id, Choice.LEFT, 10)
        os.write(1, b"%d\\n" % vote.vote_id)  # the acknowledgement
        if rng.random() < 0.1:
            store.votes.undo(vote.vote_id, annotator.id)

threads = [threading.Thread(target=vote_on) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def acknowledged_before_the_kill(home: Path, database_url: str | None, seconds: float, log: Path) -> list[int]:
    """Let a process vote for that long after its first vote, then kill -9 it; the votes it was told are recorded."""
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, "-c", VOTER, str(home), database_url or ""], stdout=output)
    try:
        deadline = time.monotonic() + PATIENCE
        while not log.stat().st_size:
            assert process.poll() is None, "the voter ended by itself"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(seconds)  # the kill is to come at any moment of the writing
    finally:
        process.kill()
        process.wait()
    return [int(line) for line in log.read_text().splitlines()]


@pytest.mark.soak
@pytest.mark.timeout(600 + 60 * KILLS)
def test_no_acknowledged_vote_is_lost_when_the_writer_is_killed(tmp_path: Path, empty_homes: EmptyHomes) -> None:
    (home, database_url), rng = empty_homes.copy(tmp_path / "home"), random.Random(3)
    with Store.open(home, database_url=database_url) as store:
        base = store.models.register("pocket", "stable-diffusion", FINGERPRINT)
        store.pairs.add_many(base, [new_pair(number) for number in range(1000)])
    acknowledged: set[int] = set()
    for kill in range(KILLS):
        acknowledged.update(
            acknowledged_before_the_kill(home, database_url, rng.uniform(0, 0.3), tmp_path / f"{kill}.log")
        )
        if database_url is None:
            assert integrity_of(home) == "ok"
        with Store.open(home, database_url=database_url) as store:
            recorded = {row.id for row in store.read("SELECT id FROM votes")}
            assert acknowledged <= recorded, f"lost at kill {kill}"
            assert broken_counts(store) == 0
            if database_url is None:
                assert scalar(store, "SELECT count(*) FROM pragma_foreign_key_check") == 0
    assert len(acknowledged) > KILLS, "they did vote"
