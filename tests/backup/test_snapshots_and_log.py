"""Everything uploaded comes back: snapshots, their logs, files; and the one before when the newest is damaged."""

import gzip
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dmpo_app.backup.remotes import open_remote
from dmpo_app.backup.restoring import restore
from dmpo_app.backup.snapshots import prune, snapshot_name, snapshot_names
from dmpo_app.domain.lineage import ImageKind
from dmpo_app.errors import BackupDamagedError, BackupUnreachableError, SetupError
from dmpo_app.settings import BackupSettings
from tests.backup.backup_data import OFTEN, Switch, Voters, shipper_of, votes_in
from tests.store.store_data import integrity_of, new_image


def test_a_snapshot_and_its_log_bring_every_vote_back(voters: Voters, storage: Switch, tmp_path: Path) -> None:
    shipper = shipper_of(voters.store.home, storage)
    for _ in range(5):
        voters.vote(7)
        assert shipper.upload_changes()
    restored = restore(storage, tmp_path / "new")
    assert restored is not None
    assert (restored.rebuilt.num_deltas, restored.votes, list(restored.faults)) == (4, 35, [])
    assert votes_in(tmp_path / "new") == voters.given
    assert integrity_of(tmp_path / "new") == "ok"


def test_without_its_log_a_snapshot_is_what_was_when_it_was_taken(
    voters: Voters, storage: Switch, tmp_path: Path
) -> None:
    shipper = shipper_of(voters.store.home, storage)
    voters.vote(5)
    shipper.upload_changes()
    voters.vote(5)
    shipper.upload_changes()
    restore(storage, tmp_path / "new", with_log=False)
    assert votes_in(tmp_path / "new") == voters.given[:5]


def test_nothing_is_shipped_while_nothing_changes(voters: Voters, storage: Switch) -> None:
    shipper = shipper_of(voters.store.home, storage)
    assert shipper.upload_changes()
    written = len(storage.written)
    assert not shipper.upload_changes()
    assert len(storage.written) == written


def test_files_are_shipped_once_and_before_the_rows_that_name_them(
    voters: Voters, storage: Switch, tmp_path: Path
) -> None:
    shipper = shipper_of(voters.store.home, storage)
    shipper.upload_changes()
    image = voters.store.images.add(voters.base, new_image(png=b"a late one"), ImageKind.RENDER)
    storage.written.clear()
    shipper.upload_changes()
    assert [name for name in storage.written if "images/" in name] == [
        f"files/images/{image.sha256[:2]}/{image.sha256}.png"
    ]
    assert storage.written[-1].endswith("/log/000001.gz")
    restore(storage, tmp_path / "new")
    for kind in ("images", "latents", "embeds"):
        here, there = (sorted(p.name for p in (h / kind).rglob("*.*")) for h in (voters.store.home, tmp_path / "new"))
        assert here == there
        assert here


def test_the_log_goes_on_in_a_new_snapshot_after_an_upload_that_failed(
    voters: Voters, storage: Switch, tmp_path: Path
) -> None:
    shipper = shipper_of(voters.store.home, storage)
    shipper.upload_changes()
    voters.vote(3)
    storage.off_for_writing = True
    with pytest.raises(BackupUnreachableError):
        shipper.upload_changes()
    storage.off_for_writing = False
    assert shipper.upload_changes()
    assert len(snapshot_names(storage)) == 2
    restore(storage, tmp_path / "new")
    assert votes_in(tmp_path / "new") == voters.given


def test_a_log_that_has_grown_long_is_followed_by_a_snapshot(voters: Voters, storage: Switch, tmp_path: Path) -> None:
    shipper = shipper_of(voters.store.home, storage, most_deltas=3)
    for _ in range(9):
        voters.vote(1)
        shipper.upload_changes()
    assert len(snapshot_names(storage)) == 3
    restore(storage, tmp_path / "new")
    assert votes_in(tmp_path / "new") == voters.given


def test_a_delta_whose_pages_were_changed_with_care_is_found_by_the_hash_of_the_whole(
    voters: Voters, storage: Switch, tmp_path: Path
) -> None:
    shipper = shipper_of(voters.store.home, storage)
    for _ in range(4):
        voters.vote(2)
        shipper.upload_changes()
    [*_, last] = [tmp_path / "storage" / name for name in storage.names("snapshots/") if "/log/" in name]
    content = bytearray(gzip.decompress(last.read_bytes()))
    content[-1] ^= 1
    last.write_bytes(gzip.compress(bytes(content)))
    restored = restore(storage, tmp_path / "new")
    assert restored is not None
    assert restored.rebuilt.num_deltas == 2
    assert votes_in(tmp_path / "new") == voters.given[:6]


def damage(storage: Switch, root: Path, ending: str, how: str) -> None:
    [*_, name] = [name for name in storage.names("snapshots/") if name.endswith(ending)]
    path = root / name
    content = path.read_bytes()
    match how:
        case "flip":
            # In the tables of compressed data: a page that is damaged further on may be written anew by a later delta.
            place = 24 if name.endswith(".gz") else 200
            path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        case "cut":
            path.write_bytes(content[: len(content) // 2])
        case "remove":
            path.unlink()
        case _:
            path.write_bytes(b"something else")


@pytest.mark.parametrize("ending", ["database.gz", "manifest.json"])
@pytest.mark.parametrize("how", ["flip", "cut", "remove", "replace"])
def test_the_snapshot_before_is_taken_when_the_newest_is_damaged(
    voters: Voters, storage: Switch, tmp_path: Path, ending: str, how: str
) -> None:
    every = BackupSettings(url="unused", interval_seconds=0.001)
    shipper = shipper_of(voters.store.home, storage, every)
    voters.vote(4)
    shipper.upload_changes()
    voters.vote(4)
    shipper.upload_changes()
    damage(storage, tmp_path / "storage", ending, how)
    restored = restore(storage, tmp_path / "new")
    assert restored is not None
    assert votes_in(tmp_path / "new") == voters.given[:4]


@pytest.mark.parametrize("how", ["flip", "cut", "remove", "replace"])
def test_a_damaged_log_counts_up_to_the_damage(voters: Voters, storage: Switch, tmp_path: Path, how: str) -> None:
    shipper = shipper_of(voters.store.home, storage)
    for _ in range(4):
        voters.vote(2)
        shipper.upload_changes()
    damage(storage, tmp_path / "storage", "000002.gz", how)
    restored = restore(storage, tmp_path / "new")
    assert restored is not None
    assert restored.rebuilt.num_deltas == 1
    assert votes_in(tmp_path / "new") == voters.given[:4]
    assert integrity_of(tmp_path / "new") == "ok"


def test_a_backup_of_which_nothing_is_whole_says_so_and_leaves_no_database(
    voters: Voters, storage: Switch, tmp_path: Path
) -> None:
    shipper_of(voters.store.home, storage).upload_changes()
    damage(storage, tmp_path / "storage", "database.gz", "cut")
    with pytest.raises(BackupDamagedError, match="no snapshot"):
        restore(storage, tmp_path / "new")
    assert not (tmp_path / "new" / "studio.db").exists()


def test_a_home_with_a_database_is_not_restored_over(voters: Voters, storage: Switch) -> None:
    shipper_of(voters.store.home, storage).upload_changes()
    with pytest.raises(SetupError, match="has a database already"):
        restore(storage, voters.store.home)


def test_a_restore_that_was_cut_off_goes_on(voters: Voters, storage: Switch, tmp_path: Path) -> None:
    shipper_of(voters.store.home, storage).upload_changes()
    restore(storage, tmp_path / "new")
    (tmp_path / "new" / "studio.db").unlink()
    shutil.rmtree(tmp_path / "new" / "latents")
    again = restore(storage, tmp_path / "new")
    assert again is not None
    assert again.num_files == len(list((voters.store.home / "latents").rglob("*.safetensors")))


def test_a_damaged_file_in_the_backup_is_named_and_not_put_in_place(
    voters: Voters, storage: Switch, tmp_path: Path
) -> None:
    shipper_of(voters.store.home, storage).upload_changes()
    [name, *_] = storage.names("files/images/")
    (tmp_path / "storage" / name).write_bytes(b"not that image")
    restored = restore(storage, tmp_path / "new")
    assert restored is not None
    [fault] = restored.faults
    assert name.removeprefix("files/") in fault
    assert not (tmp_path / "new" / name.removeprefix("files/")).exists()


def test_old_snapshots_go_and_the_last_of_each_day_stays(storage: Switch) -> None:
    start = datetime(2026, 3, 1, tzinfo=UTC)
    names = [snapshot_name(1, n + 1, start + timedelta(hours=6 * n)) for n in range(40)]
    for name in names:
        storage.put([(f"snapshots/{name}/manifest.json", b""), (f"snapshots/{name}/log/000001.gz", b"")])
    torn = snapshot_name(1, 3, start)[:-1] + "Z"
    storage.put([(f"snapshots/{torn}/database.gz", b"")])
    prune(storage, keep_snapshots=3, keep_days=4, now=start + timedelta(hours=6 * 39))
    kept = snapshot_names(storage)
    assert kept == [*names[27:37:4], *names[37:]]
    assert {name.split("/")[1] for name in storage.names("snapshots/")} == set(kept)


def test_images_that_the_home_let_go_leave_the_backup_with_the_last_snapshot_that_shows_them(
    voters: Voters, storage: Switch
) -> None:
    day = [datetime(2026, 3, 1, tzinfo=UTC)]
    often = BackupSettings(url="unused", interval_seconds=0.001, keep_snapshots=2, keep_days=0)
    shipper = shipper_of(voters.store.home, storage, often, now=lambda: day[0])
    image = voters.store.images.add(voters.base, new_image(png=b"a render"), ImageKind.RENDER)
    name = f"files/images/{image.sha256[:2]}/{image.sha256}.png"
    shipper.upload_changes()
    voters.store.images.purge_renders(voters.base, datetime(2100, 1, 1, tzinfo=UTC))
    there = []
    for _ in range(4):
        day[0] += timedelta(hours=1)
        voters.vote(1)
        shipper.upload_changes()
        there.append(name in storage.names("files/"))
    assert there == [True, True, False, False]


def test_it_works_through_s3(voters: Voters, s3_url: str, tmp_path: Path) -> None:
    remote = open_remote(s3_url + "/whole")
    shipper = shipper_of(voters.store.home, remote, OFTEN)
    for _ in range(3):
        voters.vote(5)
        shipper.upload_changes()
    restored = restore(remote, tmp_path / "new")
    assert restored is not None
    assert (restored.rebuilt.num_deltas, list(restored.faults)) == (2, [])
    assert votes_in(tmp_path / "new") == voters.given
