"""`dmpo verify` finds what is wrong with a home and mends what the backup can mend."""

import os
import time
from pathlib import Path

import pytest
from sqlalchemy import text

from dmpo_app.backup.restoring import IssueKind, repair_home, verify, verify_backup
from dmpo_app.errors import SetupError
from dmpo_app.store.db.sqlite import safe_driver
from tests.backup.backup_data import Switch, Voters, shipper_of
from tests.store.store_data import publish_version


def kinds(home: Path) -> list[IssueKind]:
    return [finding.kind for finding in verify(home).issues]


def some_file(home: Path, folder: str) -> Path:
    return sorted((home / folder).rglob("*.*"))[0]


def make_old(path: Path) -> None:
    long_ago = time.time() - 24 * 3600
    os.utime(path, (long_ago, long_ago))


def test_a_whole_home_has_no_findings(voters: Voters) -> None:
    voters.vote(3)
    verified = verify(voters.store.home)
    assert (verified.issues, verified.votes) == ([], 3)
    assert verified.num_files == len([path for path in voters.store.home.rglob("*.*") if path.parent.name.isalnum() and
                                      len(path.parent.name) == 2])  # fmt: skip


@pytest.mark.parametrize("folder", ["images", "latents", "embeds"])
@pytest.mark.parametrize("how", ["missing", "changed"])
def test_a_file_that_is_gone_or_changed_is_found_and_fetched_from_the_backup(
    voters: Voters, storage: Switch, folder: str, how: str
) -> None:
    home = voters.store.home
    shipper_of(home, storage).upload_changes()
    file = some_file(home, folder)
    content = file.read_bytes()
    if how == "missing":
        file.unlink()
    else:
        file.write_bytes(b"something else")
    found = verify(home).issues
    assert [finding.kind for finding in found] == [IssueKind.FILE]
    assert file.name in found[0].description
    assert repair_home(home, found, None) == [(found[0], "not mended: there is no backup to fetch it from")]
    assert repair_home(home, found, storage) == [(found[0], "fetched from the backup")]
    assert file.read_bytes() == content
    assert kinds(home) == []


def test_what_the_backup_does_not_have_is_said_not_to_be_mended(voters: Voters, storage: Switch) -> None:
    home = voters.store.home
    some_file(home, "images").write_bytes(b"something else")
    [(_, outcome)] = repair_home(home, verify(home).issues, storage)
    assert outcome == "not in the backup"


def test_versions_without_their_weights_or_manifest_are_found(voters: Voters) -> None:
    version = publish_version(voters.store, voters.base)
    folder = voters.store.adapters.get(voters.base, version).folder
    folder.mkdir(parents=True)
    (folder / "pytorch_lora_weights.safetensors").write_bytes(b"not those")
    (folder / "manifest.json").write_text('{"version": 2, "weights_sha256": "' + "b" * 64 + '"}')
    words = [finding.description for finding in verify(voters.store.home).issues]
    assert len(words) == 2
    assert "version 1" in words[0]
    assert "has sha256" in words[0]
    assert "is the manifest of 00002-bbbbbbbb" in words[1]


def test_what_nothing_names_and_what_was_never_finished_is_found_once_it_is_old(voters: Voters) -> None:
    home = voters.store.home
    orphan = home / "images" / "ab" / ("ab" + "0" * 62 + ".png")
    orphan.parent.mkdir(parents=True, exist_ok=True)
    orphan.write_bytes(b"nobody's")
    leftover = home / "tmp" / "half"
    leftover.write_bytes(b"half an image")
    assert kinds(home) == []
    make_old(orphan)
    make_old(leftover)
    found = verify(home).issues
    assert [finding.kind for finding in found] == [IssueKind.LEFTOVER, IssueKind.ORPHAN]
    repair_home(home, found, None)
    assert kinds(home) == []
    assert not leftover.exists()
    assert (home / "damaged" / orphan.relative_to(home)).read_bytes() == b"nobody's"


def test_counts_that_are_wrong_are_found(voters: Voters) -> None:
    voters.vote(2)
    database = voters.store.database
    database.write(
        lambda connection: connection.execute(text("UPDATE pairs SET num_taken = 9, num_votes = 9 WHERE id = 1"))
    )
    [finding] = verify(voters.store.home).issues
    assert finding.description == "1 pairs do not count their votes right"
    database.write(
        lambda connection: connection.execute(
            text("UPDATE pairs SET num_votes = n, num_taken = n FROM (SELECT count(*) n FROM votes WHERE pair_id = 1) "
                 "WHERE id = 1")
        )
    )  # fmt: skip


def test_a_damaged_database_is_found(voters: Voters, tmp_path: Path, storage: Switch) -> None:
    home = tmp_path / "home"
    voters.vote(12)
    voters.store.close()
    database = home / "studio.db"
    content = bytearray(database.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 4096] = b"\x55" * 4096
    database.write_bytes(content)
    [finding] = verify(home).issues
    assert finding.kind is IssueKind.DATABASE
    [(_, outcome)] = repair_home(home, [finding], storage)
    assert "dmpo restore" in outcome


def test_a_file_that_is_no_database_is_found(voters: Voters) -> None:
    home = voters.store.home
    voters.store.close()
    (home / "studio.db").write_bytes(b"not a database, but long enough to look at. " * 100)
    assert kinds(home) == [IssueKind.DATABASE]


def test_rows_that_refer_to_nothing_are_found(voters: Voters) -> None:
    home = voters.store.home
    voters.vote(1)
    voters.store.close()
    raw = safe_driver().connect(str(home / "studio.db"))
    raw.execute("UPDATE assignments SET pair_id = 999999 WHERE id = 1")
    raw.commit()
    raw.close()
    [finding] = verify(home).issues
    assert "assignments" in finding.description


def test_a_folder_without_a_database_is_no_home(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="no database"):
        verify(tmp_path)


def test_a_backup_is_put_together_to_see_whether_it_is_whole(voters: Voters, storage: Switch, tmp_path: Path) -> None:
    found = verify_backup(storage)
    assert found is not None
    assert "no snapshot" in found.description
    shipper = shipper_of(voters.store.home, storage)
    for _ in range(3):
        voters.vote(2)
        shipper.upload_changes()
    assert verify_backup(storage) is None
    [first] = [name for name in storage.names("snapshots/") if name.endswith("000001.gz")]
    (tmp_path / "storage" / first).write_bytes(b"")
    found = verify_backup(storage)
    assert found is not None
    assert "after 0 of 2 changes" in found.description
