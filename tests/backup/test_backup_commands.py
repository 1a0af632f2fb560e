"""`dmpo backup`, `dmpo restore` and `dmpo verify` as they are typed."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dmpo_app.cli.doctor import CheckStatus, _backup
from dmpo_app.cli.main import app
from dmpo_app.domain.lineage import BaseModelRef, NewAdapter
from dmpo_app.io.files import sha256_hex
from dmpo_app.server.wiring import home_lock
from dmpo_app.settings import Settings
from dmpo_app.store import Store
from tests.backup.backup_data import Voters, votes_in
from tests.store.store_data import start_round


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DMPO_BACKUP__URL", raising=False)


def dmpo(*words: object) -> tuple[int, str]:
    """Exit code and everything printed, on one line."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    return result.exit_code, " ".join(result.output.split())


def test_a_home_is_stored_restored_and_found_whole(voters: Voters, tmp_path: Path) -> None:
    home, storage, new = voters.store.home, tmp_path / "storage", tmp_path / "new"
    voters.vote(5)
    assert dmpo("backup", storage, "--home", home)[0] == 0
    voters.vote(2)
    assert dmpo("backup", storage, "--home", home)[0] == 0
    code, listed = dmpo("restore", storage, new, "--snapshot", "list")
    assert (code, len(listed.split())) == (0, 2)
    code, said = dmpo("restore", storage, new)
    assert code == 0, said
    assert "7 votes" in said
    assert votes_in(new) == voters.given
    code, said = dmpo("verify", "--home", new, "--url", storage)
    assert code == 0, said
    assert "everything is whole" in said
    code, said = dmpo("restore", storage, tmp_path / "first", "--snapshot", listed.split()[0])
    assert code == 0, said
    assert votes_in(tmp_path / "first") == voters.given[:5]


def test_a_damaged_home_is_told_and_mended(voters: Voters, tmp_path: Path) -> None:
    home, storage = voters.store.home, tmp_path / "storage"
    assert dmpo("backup", storage, "--home", home)[0] == 0
    shutil.rmtree(home / "embeds")
    code, said = dmpo("verify", "--home", home)
    assert code == 1
    assert "is missing" in said
    code, said = dmpo("verify", "--home", home, "--url", storage, "--repair")
    assert code == 0, said
    assert "fetched from the backup" in said
    assert dmpo("verify", "--home", home)[0] == 0


@pytest.mark.parametrize("folder", ["images", "latents", "embeds"])
def test_pairs_whose_files_are_damaged_are_listed_and_come_back_with_them(
    voters: Voters, tmp_path: Path, folder: str
) -> None:
    home, storage, store = voters.store.home, tmp_path / "storage", voters.store
    voters.vote(2)
    assert dmpo("backup", storage, "--home", home)[0] == 0
    some = sorted((home / folder).rglob("*.*"))[0]
    some.write_bytes(b"<html>not what it was</html>")
    code, said = dmpo("verify", "--home", home)
    assert code == 1
    listed = store.damage.list(voters.base)
    assert len(listed) > 0
    for one in listed:
        assert f"pair {one.pair_id} ({one.prompt}) has lost {'images' if folder == 'images' else 'tensors'}" in said
    assert store.damage.count(voters.base) == (len(listed) if folder == "images" else 0)
    assert dmpo("verify", "--home", home)[0] == 1, "it is still so"
    code, said = dmpo("verify", "--home", home, "--url", storage, "--repair")
    assert code == 0, said
    assert "has lost" not in said
    assert store.damage.list(voters.base) == []
    assert dmpo("verify", "--home", home)[0] == 0
    assert len(store.vote_records.all(voters.base)) == 2


def test_the_backup_of_a_running_studio_is_left_to_it(
    voters: Voters, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = voters.store.home
    monkeypatch.setenv("DMPO_BACKUP__URL", str(tmp_path / "storage"))
    with home_lock(Settings(home=home), "http://127.0.0.1:7860"):
        code, said = dmpo("backup", "--home", home)
        assert code == 1
        assert "http://127.0.0.1:7860" in said
        assert dmpo("backup", tmp_path / "elsewhere", "--home", home)[0] == 0
    assert dmpo("backup", "--home", home)[0] == 0


def test_versions_that_learned_from_votes_taken_back_are_named_and_are_no_fault(voters: Voters) -> None:
    store, base, home = voters.store, voters.base, voters.store.home
    voters.vote(3)
    for _ in range(2):
        publish_files(store, base, voters.given)
    assert "taken back" not in dmpo("verify", "--home", home)[1]
    [[annotator]] = store.read("SELECT DISTINCT annotator_id FROM votes")
    for vote_id in voters.given[:2]:
        store.own_votes.withdraw(vote_id, annotator)
    code, said = dmpo("verify", "--home", home)
    assert code == 0, said
    assert "version 1 of pocket learned from 2 votes taken back since, and is not live" in said
    assert "version 2 of pocket learned from 2 votes taken back since, and is live until the next" in said
    assert "everything is whole" in said


def publish_files(store: Store, base: BaseModelRef, votes: Sequence[int]) -> None:
    """A live version of these votes, with files that are whole."""
    token = store.lease.acquire(base, "publisher", lease_seconds=30)
    assert token is not None
    version, weights = store.adapters.next_version(base), sha256_hex(b"weights")
    name = f"{version:05d}-{weights[:8]}"
    folder = store.adapters.root(base) / name
    folder.mkdir()
    (folder / "pytorch_lora_weights.safetensors").write_bytes(b"weights")
    (folder / "manifest.json").write_text(json.dumps({"version": version, "weights_sha256": weights}))
    adapter = NewAdapter(0, name, weights, proven=False, metrics={}, vote_ids=votes)
    store.rounds.publish(start_round(store, base, token, list(votes)).id, adapter, token=token)
    store.lease.release(base, token)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["backup"], "DMPO_BACKUP__URL"),
        (["backup", "storage", "--home", "nowhere"], "has no database"),
        (["restore", "storage", "new"], "no snapshot"),
        (["restore", "gopher://there", "new"], "gopher"),
        (["restore", "hf://datasets/alone", "new"], "hf://datasets/user/name"),
        (["verify", "--home", "nowhere"], "no database"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(words: list[str], expected: str, tmp_path: Path) -> None:
    code, said = dmpo(*words)
    assert code == 1
    assert expected in said
    assert "Traceback" not in said


def test_a_backup_of_another_home_is_not_written_over(voters: Voters, empty_home: Path, tmp_path: Path) -> None:
    other = shutil.copytree(empty_home, tmp_path / "other")
    assert dmpo("backup", tmp_path / "storage", "--home", other)[0] == 0
    code, said = dmpo("backup", tmp_path / "storage", "--home", voters.store.home)
    assert code == 1
    assert "another home's" in said


def test_the_doctor_says_whether_the_backup_can_be_reached(voters: Voters, tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    assert dmpo("backup", storage, "--home", voters.store.home)[0] == 0
    findings = [_backup(str(url)) for url in (storage, tmp_path / "empty", tmp_path / "not" / "mounted")]
    assert [finding.status for finding in findings] == [CheckStatus.OK, CheckStatus.OK, CheckStatus.PROBLEM]
    assert "00000001-000001-" in findings[0].detail
    assert "no snapshot yet" in findings[1].detail
    assert "out of reach" in findings[2].detail
