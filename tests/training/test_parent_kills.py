"""kill -9 of a trainer's parent at random moments; `make soak` and `benchmarks.parent_kills` do more of them."""

import os
import random
from pathlib import Path

import pytest

from benchmarks.parent_kills import filled_home, kill_parents, kill_servers

KILLS = int(os.environ.get("DMPO_SOAK_KILLS", "5"))
SERVER_KILLS = int(os.environ.get("DMPO_SOAK_KILLS", "0")) // 2
pytestmark = [pytest.mark.soak, pytest.mark.timeout(600 + 60 * KILLS)]


def test_no_trainer_outlives_its_parent(tiny_model: Path, tmp_path: Path) -> None:
    kills = list(kill_parents(tiny_model, tmp_path, KILLS, random.Random(KILLS)))
    assert [kill for kill in kills if kill.seconds is None] == []
    if KILLS >= 50:  # so many come at different moments, on a machine of any speed; a few may not
        assert len({kill.phase for kill in kills}) > 1


@pytest.mark.skipif(not SERVER_KILLS, reason="half a minute each; `make soak` runs it")
def test_nothing_that_a_server_started_outlives_it(tiny_model: Path, tmp_path: Path) -> None:
    home = filled_home(tmp_path / "home", tiny_model)
    kills = list(kill_servers(home, tiny_model, SERVER_KILLS, random.Random(SERVER_KILLS)))
    assert [kill for kill in kills if kill.seconds is None] == []
