"""A power cut at any moment: what the disk can then hold is whole and has every acknowledged vote."""

import shutil
from pathlib import Path

import pytest

from benchmarks.power_cut import DATABASE, Disk, Event, merged, record, recorded_and_replayed, replay, seeded

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


@needs_strace
def test_no_acknowledged_vote_is_lost_and_nothing_is_corrupt_after_a_power_cut(tmp_path: Path) -> None:
    tally, _, acknowledged = recorded_and_replayed(tmp_path, 30, 40)
    assert acknowledged == 30
    assert (tally.cuts, tally.corrupt, tally.lost) == (40, 0, 0)
    assert tally.most_pending > 0, "there were cuts amid a commit"


@needs_strace
def test_the_replay_notices_a_vote_that_is_acknowledged_before_it_is_synced(tmp_path: Path) -> None:
    home = seeded(tmp_path / "home", 30)
    (tmp_path / "work").mkdir()
    shutil.copytree(home, tmp_path / "before")
    happened = record(home, 30, tmp_path / "log")
    never_synced = [event for event in happened if event.kind != "sync"]
    assert replay(tmp_path / "before", never_synced, 40, tmp_path / "work").lost > 0


def test_what_was_not_synced_may_be_there_in_part_and_what_was_synced_is_there_whole() -> None:
    disk = Disk({DATABASE: b"a" * 1024}, {DATABASE})
    disk.apply(Event("write", DATABASE, 0, b"b" * 1024))
    assert disk.synced[DATABASE] == b"a" * 1024
    disk.apply(Event("sync", DATABASE))
    assert disk.synced[DATABASE] == b"b" * 1024
    assert merged(b"abcdef", [Event("write", DATABASE, 8, b"x"), Event("truncate", DATABASE, 3)]) == b"abc"
