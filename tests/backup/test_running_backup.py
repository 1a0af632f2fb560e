"""The backup beside a running studio: when votes are refused, when they are acknowledged, and who may write."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from dmpo_app.backup.backup_service import OUT_OF_REACH, SUPERSEDED_MESSAGE, Backup, BackupUploader
from dmpo_app.backup.remotes.folder_remote import FolderRemote
from dmpo_app.backup.restoring import restore
from dmpo_app.backup.startup import claim_and_restore
from dmpo_app.errors import BackupUnreachableError, SetupError
from dmpo_app.io.processes import StopFlag
from dmpo_app.server.backup_lifecycle import claim_backup
from dmpo_app.settings import BackupSettings, Settings
from dmpo_app.store import Store
from tests.backup.backup_data import OFTEN, Switch, Voters, utc_now, votes_in
from tests.patience import PATIENCE, wait_until
from tests.studio_process import free_port

Starter = Callable[..., Backup]
HANDOVER_SECONDS = 30
"""The longest that a studio waits for another one to hand over; much more than it takes to start."""


@pytest.fixture
def start(voters: Voters, storage: Switch) -> Iterator[Starter]:
    """Starts the backup of the voters' home; a second start is a restart."""
    running: list[Backup] = []

    def start(settings: BackupSettings = OFTEN) -> Backup:
        home = voters.store.home
        claim = claim_and_restore(home, storage, handover_seconds=HANDOVER_SECONDS, now=utc_now)
        shipper = BackupUploader(home, storage, claim, settings, now=utc_now)
        running.append(Backup(shipper, storage, claim, settings, watch_seconds=0.05))
        running[-1].start()
        return running[-1]

    yield start
    for backup in running:
        backup.stop()


def test_a_clean_stop_leaves_nothing_behind(voters: Voters, storage: Switch, start: Starter, tmp_path: Path) -> None:
    backup = start(BackupSettings(url="unused", log_seconds=60))
    wait_until(lambda: any(name.endswith("manifest.json") for name in storage.written), "there is a snapshot")
    voters.vote(9)
    backup.stop()
    restore(storage, tmp_path / "new")
    assert votes_in(tmp_path / "new") == voters.given


def test_what_was_voted_is_in_the_log_within_its_seconds(
    voters: Voters, storage: Switch, start: Starter, tmp_path: Path
) -> None:
    start()
    voters.vote(3)
    wait_until(lambda: len([name for name in storage.written if "snapshots/" in name]) >= 2, "there is a snapshot")
    voters.vote(3)
    attempts = itertools.count()

    def restored() -> object:
        folder = tmp_path / f"new {next(attempts)}"
        restore(storage, folder)
        return votes_in(folder)

    wait_until(lambda: restored() == voters.given, "the log holds every vote")


def test_a_vote_that_is_acknowledged_by_the_backup_is_in_it(
    voters: Voters, storage: Switch, start: Starter, tmp_path: Path
) -> None:
    backup = start(BackupSettings(url="unused", log_seconds=60, acknowledge="remote"))
    for number in range(1, 4):
        voters.vote(4)
        backup.wait_until_durable()
        restore(storage, tmp_path / f"new {number}")
        assert votes_in(tmp_path / f"new {number}") == voters.given


def test_votes_are_refused_while_the_storage_is_out_of_reach_and_taken_again_afterwards(
    voters: Voters, storage: Switch, start: Starter, tmp_path: Path
) -> None:
    backup = start()
    backup.check_writable()
    voters.vote(2)
    storage.off = True
    wait_until(lambda: backup.problem() is not None, "the failure is said")
    with pytest.raises(BackupUnreachableError, match="out of reach"):
        backup.check_writable()
    storage.off = False
    wait_until(lambda: backup.problem() is None, "all is well again")
    backup.check_writable()
    backup.stop()
    restore(storage, tmp_path / "new")
    assert votes_in(tmp_path / "new") == voters.given


def test_votes_are_refused_while_the_storage_can_be_read_and_not_written(
    voters: Voters, storage: Switch, start: Starter
) -> None:
    backup = start()
    wait_until(lambda: bool(storage.written), "something is written")
    storage.off_for_writing = True
    voters.vote(2)
    wait_until(lambda: backup.problem() == OUT_OF_REACH, "the storage is out of reach")
    storage.off_for_writing = False
    wait_until(lambda: backup.problem() is None, "all is well again")


def test_the_newer_of_two_studios_waits_for_the_older_and_has_all_its_votes(
    voters: Voters, storage: Switch, start: Starter, tmp_path: Path
) -> None:
    older = start(BackupSettings(url="unused", log_seconds=60))
    voters.vote(5)
    claim_and_restore(tmp_path / "new", storage, handover_seconds=PATIENCE, now=utc_now)
    assert votes_in(tmp_path / "new") == voters.given
    assert older.problem() == SUPERSEDED_MESSAGE
    written = len(storage.written)
    voters.vote(5)
    older.stop()  # it would write what is left
    assert len(storage.written) == written


def test_a_late_upload_of_the_older_studio_changes_nothing_for_the_newer(
    voters: Voters, storage: Switch, tmp_path: Path
) -> None:
    home = voters.store.home
    older = BackupUploader(
        home, storage, claim_and_restore(home, storage, handover_seconds=0, now=utc_now), OFTEN, now=utc_now
    )
    older.upload_changes()
    new = tmp_path / "new"
    claim = claim_and_restore(new, storage, handover_seconds=0, now=utc_now)
    with Store.open(new) as store:
        people = Voters(store)
        people.vote(3)
        newer = BackupUploader(new, storage, claim, OFTEN, now=utc_now)
        newer.upload_changes()
        people.vote(2)
        newer.upload_changes()
    voters.vote(7)
    older.upload_changes()
    restore(storage, tmp_path / "third")
    assert votes_in(tmp_path / "third") == people.given


def test_a_home_that_another_studio_went_on_from_is_not_served_again(
    voters: Voters, storage: Switch, start: Starter, tmp_path: Path
) -> None:
    start().stop()
    claim_and_restore(tmp_path / "new", storage, handover_seconds=0, now=utc_now)
    with pytest.raises(SetupError, match="went on with it"):
        claim_and_restore(voters.store.home, storage, handover_seconds=0, now=utc_now)


def test_a_restart_on_the_same_disk_needs_no_restore_and_no_waiting(
    voters: Voters, storage: Switch, start: Starter
) -> None:
    start().stop()
    voters.vote(3)
    began = time.monotonic()
    start().stop()
    assert time.monotonic() - began < HANDOVER_SECONDS
    assert len(voters.given) == voters.store.votes.count(voters.base) == 3


def test_a_studio_whose_storage_is_out_of_reach_says_so_instead_of_opening(tmp_path: Path) -> None:
    share = tmp_path / "share"
    settings = Settings(
        home=tmp_path / "home",
        port=free_port(),
        root_path="/studio",
        backup=BackupSettings(url=str(share / "studio" / "backup"), handover_seconds=0),
    )
    address, opened = f"http://127.0.0.1:{settings.port}", threading.Event()
    stopping = StopFlag()

    def open_studio() -> None:
        if claim_backup(settings, stopping) is not None:
            opened.set()

    thread = threading.Thread(target=open_studio)
    thread.start()
    try:
        wait_until(lambda: "out of reach" in _said(address), "the page says so")
        page = httpx.get(address, timeout=PATIENCE)
        vote = httpx.post(f"{address}/api/v1/votes", json={"choice": "left"}, timeout=PATIENCE)
        assert (page.status_code, vote.status_code) == (503, 503)
        assert vote.json()["code"] == "backup_unreachable"
        alive = httpx.get(f"{address}/healthz", timeout=PATIENCE)
        assert (alive.status_code, alive.json()) == (200, {"status": "alive"}), "whoever asks need not restart it"
        below = httpx.get(f"{address}/studio/api/v1/status", timeout=PATIENCE)
        assert (below.status_code, below.json()["code"]) == (503, "backup_unreachable")
        assert page.headers["retry-after"] == vote.headers["retry-after"] == "5"
        assert not (tmp_path / "home" / "studio.db").exists()
        (share / "studio").mkdir(parents=True)
        assert opened.wait(PATIENCE)
    finally:
        stopping.set()
        thread.join()


def _said(address: str) -> str:
    try:
        return httpx.get(address, timeout=PATIENCE).text
    except httpx.HTTPError:  # not up yet
        return ""


def test_an_empty_home_and_an_empty_backup_start_afresh(tmp_path: Path) -> None:
    remote = FolderRemote(tmp_path / "storage")
    assert claim_and_restore(tmp_path / "home", remote, handover_seconds=0, now=utc_now).generation == 1
    assert not (tmp_path / "home" / "studio.db").exists()


def test_waiting_for_a_storage_that_takes_a_write_a_minute_is_refused(tmp_path: Path) -> None:
    url = "hf://datasets/somebody/votes"
    settings = Settings(home=tmp_path / "home", backup=BackupSettings(url=url, acknowledge="remote"))
    with pytest.raises(SetupError, match="DMPO_BACKUP__ACKNOWLEDGE=disk"):
        claim_backup(settings, StopFlag())
