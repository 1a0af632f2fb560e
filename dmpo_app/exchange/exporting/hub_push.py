"""Uploads to the Hugging Face Hub: exported data sets and adapters."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Literal

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError

from dmpo_app.errors import BadInput, pushing_to
from dmpo_app.exchange.exporting.folders import MANIFEST, read_manifest

_MESSAGE = "Update of the votes"


def push(folder: Path, repo_id: str, *, private: bool, api: HfApi | None = None) -> int:
    """Make a data set repository hold this export; returns how many files went there or were deleted, 0: it is so.

    Files that are the same as in the last export stay, those it had and this one has not are deleted, files of others
    are left alone; README.md is this export's. Raises BadInput for a folder without a licence or that is no export,
    and StudioError when the hub cannot be reached or refuses.
    """
    manifest = (folder / MANIFEST).read_text(encoding="utf-8")
    here = {**read_manifest(manifest), MANIFEST: ""}
    require_licence((folder / "README.md").read_text(encoding="utf-8").startswith("---\nlicense:"))
    api = api or HfApi()
    with pushing_to(repo_id):
        api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
        published = _published(api, repo_id)
        if published == manifest:
            return 0
        there = read_manifest(published) if published is not None else {}
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            CommitOperationAdd(name, folder / name)
            for name, sha256 in here.items()
            if name == MANIFEST or there.get(name) != sha256
        ]
        operations += [CommitOperationDelete(name) for name in there if name not in here]
        api.create_commit(repo_id, operations, commit_message=_MESSAGE, repo_type="dataset")
    return len(operations)


def require_licence(is_there: object) -> None:
    """Raises BadInput where there is none."""
    if not is_there:
        raise BadInput(
            "what is pushed needs a licence: --licence cc-by-4.0, or DMPO_LABELING__LICENCE; the annotators must have "
            "agreed to it"
        )


def _published(api: HfApi, repo_id: str) -> str | None:
    """The manifest of the export that is on the hub; None: there is none."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = api.hf_hub_download(repo_id, MANIFEST, repo_type="dataset", local_dir=folder)
        except EntryNotFoundError:
            return None
        return Path(path).read_text(encoding="utf-8")


Pushed = Literal["pushed", "there already"]


def tag_of(version: int) -> str:
    return f"v{version}"


def push_adapter(folder: Path, repo_id: str, version: int, *, private: bool, api: HfApi | None = None) -> Pushed:
    """Make a version of a model repository out of a folder's files, tagged `v<version>`, in one commit.

    The newest version is what `main` holds; an older one that comes later gets a branch of its own. A version that is
    tagged there already is left as it is. Raises StudioError when the Hub cannot be reached or refuses.
    """
    api = api or HfApi()
    with pushing_to(repo_id):
        tags = _tags(api, repo_id)
        if tag_of(version) in tags:
            return "there already"
        api.create_repo(repo_id, repo_type="model", private=private, exist_ok=True)
        newest = max((int(tag[1:]) for tag in tags if tag[1:].isdigit() and tag[0] == "v"), default=0)
        branch = "main" if version > newest else f"version-{version}"
        if branch != "main":
            api.create_branch(repo_id, branch=branch, exist_ok=True)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        operations = [CommitOperationAdd(path.relative_to(folder).as_posix(), path) for path in files]
        commit = api.create_commit(repo_id, operations, commit_message=f"Version {version}", revision=branch)
        api.create_tag(repo_id, tag=tag_of(version), revision=commit.oid, exist_ok=True)
    return "pushed"


def _tags(api: HfApi, repo_id: str) -> set[str]:
    try:
        return {tag.name for tag in api.list_repo_refs(repo_id, repo_type="model").tags}
    except RepositoryNotFoundError:
        return set()
