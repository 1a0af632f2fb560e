"""The Hub that tests start behaves as `huggingface_hub` expects of the real one."""

from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, RepoFile, SpaceHardware, Volume
from huggingface_hub.errors import (
    BadRequestError,
    EntryNotFoundError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tests.hub_fixtures import HubProcess, hub, hub_process

__all__ = ["hub", "hub_process"]


def test_files_are_committed_listed_downloaded_and_deleted(hub: HubProcess, tmp_path: Path) -> None:
    api = hub.api()
    assert api.whoami()["name"] == hub.user
    assert api.create_repo("tester/things", repo_type="dataset", private=True).repo_id == "tester/things"
    api.create_repo("tester/things", repo_type="dataset", exist_ok=True)
    files = {"a.txt": b"text", "deep/er/b.safetensors": b"\0" * 2000} | {
        f"many/{n:03}.txt": b"%d" % n for n in range(70)
    }
    add = [CommitOperationAdd(name, data) for name, data in files.items()]
    first = api.create_commit("tester/things", add, commit_message="all", repo_type="dataset")
    listed = [
        entry
        for entry in api.list_repo_tree("tester/things", recursive=True, repo_type="dataset")
        if isinstance(entry, RepoFile)
    ]
    assert {entry.path for entry in listed} == {*files, ".gitattributes"}
    assert [entry.path for entry in listed if entry.lfs] == ["deep/er/b.safetensors"]
    for name in ("a.txt", "deep/er/b.safetensors"):
        got = api.hf_hub_download("tester/things", name, repo_type="dataset", cache_dir=tmp_path)
        assert Path(got).read_bytes() == files[name]
    uploads = hub.asked(method="PUT /lfs")
    same = [CommitOperationAdd(name, data) for name, data in files.items()]
    again = api.create_commit("tester/things", same, commit_message="again", repo_type="dataset")
    assert (again.oid, hub.asked(method="PUT /lfs")) == (first.oid, uploads)
    api.create_commit("tester/things", [CommitOperationDelete("many/")], commit_message="less", repo_type="dataset")
    assert api.list_repo_files("tester/things", repo_type="dataset") == [
        ".gitattributes",
        "a.txt",
        "deep/er/b.safetensors",
    ]
    assert len(api.list_repo_files("tester/things", repo_type="dataset", revision=first.oid)) == len(listed)


def test_branches_tags_and_parents_of_commits_are_kept(hub: HubProcess) -> None:
    api = hub.api()
    api.create_repo("tester/lora")
    one = api.create_commit("tester/lora", [CommitOperationAdd("f", b"1")], commit_message="one")
    api.create_tag("tester/lora", tag="v1", revision=one.oid)
    api.create_branch("tester/lora", branch="side", revision="v1")
    two = api.create_commit("tester/lora", [CommitOperationAdd("f", b"2")], commit_message="two")
    refs = api.list_repo_refs("tester/lora")
    assert {tag.name: tag.target_commit for tag in refs.tags} == {"v1": one.oid}
    assert {branch.name: branch.target_commit for branch in refs.branches} == {"main": two.oid, "side": one.oid}
    stale = [CommitOperationAdd("f", b"3")]
    with pytest.raises(HfHubHTTPError, match="412"):
        api.create_commit("tester/lora", stale, commit_message="stale", parent_commit=one.oid)
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_tag("tester/lora", tag="v1")
    assert api.repo_info("tester/lora", revision="v1").sha == one.oid


def test_what_is_not_there_is_said_in_the_hubs_own_errors(hub: HubProcess) -> None:
    api = hub.api()
    with pytest.raises(RepositoryNotFoundError):
        api.repo_info("tester/none")
    api.create_repo("tester/some")
    with pytest.raises(EntryNotFoundError):
        api.hf_hub_download("tester/some", "none.txt")
    with pytest.raises(RevisionNotFoundError):
        api.repo_info("tester/some", revision="v9")
    with pytest.raises(HfHubHTTPError, match="401"):
        api.create_repo("tester/other", token="hf_wrong")
    hub.fail(503, times=1)
    with pytest.raises(HfHubHTTPError, match="503"):
        api.repo_info("tester/some")
    readme = CommitOperationAdd("README.md", f"---\nshort_description: {'x' * 61}\n---\n".encode())
    with pytest.raises(ValueError, match="short_description"):
        api.create_commit("tester/some", [readme], commit_message="too long")


def test_a_space_has_secrets_variables_hardware_and_volumes(hub: HubProcess) -> None:
    api = hub.api()
    api.create_repo("tester/app", repo_type="space", space_sdk="gradio")
    api.add_space_secret("tester/app", "S", "hidden")
    api.add_space_variable("tester/app", "V", "seen")
    assert [(name, secret.key) for name, secret in api.get_space_secrets("tester/app").items()] == [("S", "S")]
    assert api.get_space_variables("tester/app")["V"].value == "seen"
    assert hub.secrets("tester/app") == {"S": "hidden"}
    api.request_space_hardware("tester/app", SpaceHardware.T4_SMALL, sleep_time=600)
    volume = Volume(type="bucket", source="tester/votes", mount_path="/data")
    with pytest.raises((RepositoryNotFoundError, BadRequestError)):
        api.set_space_volumes("tester/app", [volume])
    api.create_bucket("tester/votes", private=True)
    api.create_bucket("tester/votes", private=True, exist_ok=True)
    api.set_space_volumes("tester/app", [volume])
    runtime = api.get_space_runtime("tester/app")
    assert (runtime.hardware, runtime.sleep_time, runtime.volumes) == ("t4-small", 600, [volume])
    api.delete_space_secret("tester/app", "S")
    api.delete_space_variable("tester/app", "V")
    assert (api.get_space_secrets("tester/app"), api.get_space_variables("tester/app")) == ({}, {})
