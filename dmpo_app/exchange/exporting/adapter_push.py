"""Adapters on the Hub: a version is a tagged revision of a model repository, and pushed once."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import RepositoryNotFoundError

from dmpo_app.hub_errors import pushing_to

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
