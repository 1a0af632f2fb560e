"""Exports on the hub: one commit of what changed, and nothing of anybody else's touched."""

import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi

from dmpo_app.domain.vote import Outcome
from dmpo_app.errors import BadInputError, StudioError
from dmpo_app.exchange.exporting.hub_push import push_export
from tests.exchange.exporting.campaign import Campaign, rows_of
from tests.hub_fixtures import HubProcess, hub, hub_process
from tests.patience import PATIENCE
from tests.studio_process import free_port

__all__ = ["hub", "hub_process"]

REPO = "tester/votes"
LICENCE = "cc-by-4.0"


def test_what_is_on_the_hub_is_the_export_and_the_same_again_changes_nothing(
    campaign: Campaign, hub: HubProcess, tmp_path: Path
) -> None:
    for pair in range(4):
        campaign.vote("anna", pair, Outcome.A)
    folder, _ = campaign.export("pick-a-pic", licence=LICENCE)
    api = hub.api()
    assert push_export(folder, REPO, private=True, api=api) == 3
    there = Path(api.snapshot_download(REPO, repo_type="dataset", local_dir=tmp_path / "there"))
    assert rows_of(there) == rows_of(folder)
    assert (there / "README.md").read_bytes() == (folder / "README.md").read_bytes()
    commit = api.dataset_info(REPO).sha
    campaign.export("pick-a-pic", licence=LICENCE)
    assert push_export(folder, REPO, private=True, api=api) == 0
    assert api.dataset_info(REPO).sha == commit


def test_new_votes_upload_their_files_alone(
    campaign: Campaign, hub: HubProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dmpo_app.exchange.exporting.output_files.PAIRS_WITH_IMAGES", 3)
    api = hub.api()
    votes = [campaign.vote("anna", pair, Outcome.A) for pair in range(5)]
    folder, _ = campaign.export("chosen-rejected", licence=LICENCE)
    assert push_export(folder, REPO, private=False, api=api) == 4
    theirs = [CommitOperationAdd("notes.md", b"mine")]
    api.create_commit(REPO, theirs, commit_message="a note", repo_type="dataset")
    campaign.vote("anna", 7, Outcome.B)
    campaign.store.own_votes.withdraw(votes[0], campaign.person("anna").id)
    campaign.store.own_votes.withdraw(votes[1], campaign.person("anna").id)
    folder, _ = campaign.export("chosen-rejected", licence=LICENCE)
    assert (
        push_export(folder, REPO, private=False, api=api) == 4
    )  # the new file, the one that is gone, card and manifest
    assert sorted(api.list_repo_files(REPO, repo_type="dataset")) == [
        ".gitattributes",
        "README.md",
        "data/train-000001-00.parquet",
        "data/train-000002-00.parquet",
        "manifest.json",
        "notes.md",
    ]


def test_without_a_licence_or_a_hub_nothing_is_pushed(campaign: Campaign, hub: HubProcess) -> None:
    campaign.vote("anna", 0, Outcome.A)
    folder, _ = campaign.export("chosen-rejected")
    with pytest.raises(BadInputError, match="needs a licence"):
        push_export(folder, REPO, private=False, api=hub.api())
    assert hub.asked(containing="api") == 0
    folder, _ = campaign.export("chosen-rejected", licence=LICENCE)
    hub.fail(403, times=1)
    with pytest.raises(StudioError, match="tester/votes could not be pushed to"):
        push_export(folder, REPO, private=False, api=hub.api())
    nobody = HfApi(endpoint=f"http://127.0.0.1:{free_port()}", token=hub.token)
    with pytest.raises(StudioError, match="is the name right, the network up"):
        push_export(folder, REPO, private=False, api=nobody)


def test_the_command_pushes(hub: HubProcess, tmp_path: Path) -> None:
    environment = hub.environment(DMPO_HOME=str(tmp_path / "home"), DMPO_LABELING__LICENCE="cc-by-4.0")
    command = [sys.executable, "-m", "dmpo_app.cli", "export", "votes-jsonl", "--push", REPO]
    for words in ("files changed", "nothing changed"):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr
        assert words in done.stdout
    assert hub.token not in done.stdout + done.stderr
