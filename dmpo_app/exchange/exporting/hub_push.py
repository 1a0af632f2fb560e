"""Uploads to the Hugging Face Hub: exported data sets and adapters."""

import tempfile
from pathlib import Path
from typing import Literal

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError

from dmpo_app.errors import BadInputError, translate_push_errors
from dmpo_app.exchange.exporting.output_files import MANIFEST, read_manifest

_MESSAGE = "Update of the votes"


def push_export(folder: Path, repo_id: str, *, private: bool, api: HfApi | None = None) -> int:
    """Push an export to a data set repository; returns the number of files uploaded or deleted, 0: nothing changed.

    Files that are the same as in the last export stay, those it had and this one has not are deleted, files of others
    are left alone; README.md is this export's. Raises BadInputError for a folder without a licence or that is no
    export, and StudioError when the hub cannot be reached or refuses.
    """
    manifest = (folder / MANIFEST).read_text(encoding="utf-8")
    local_files = {**read_manifest(manifest), MANIFEST: ""}
    require_licence((folder / "README.md").read_text(encoding="utf-8").startswith("---\nlicense:"))
    api = api or HfApi()
    with translate_push_errors(repo_id):
        api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
        remote_manifest = _fetch_manifest(api, repo_id)
        if remote_manifest == manifest:
            return 0
        remote_files = read_manifest(remote_manifest) if remote_manifest is not None else {}
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            CommitOperationAdd(name, folder / name)
            for name, sha256 in local_files.items()
            if name == MANIFEST or remote_files.get(name) != sha256
        ]
        operations += [CommitOperationDelete(name) for name in remote_files if name not in local_files]
        api.create_commit(repo_id, operations, commit_message=_MESSAGE, repo_type="dataset")
    return len(operations)


def require_licence(licence: object) -> None:
    """Raise BadInputError without a licence."""
    if not licence:
        raise BadInputError(
            "what is pushed needs a licence: --licence cc-by-4.0, or DMPO_LABELING__LICENCE; the annotators must have "
            "agreed to it"
        )


def _fetch_manifest(api: HfApi, repo_id: str) -> str | None:
    """The manifest of the export on the hub; None: there is none."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = api.hf_hub_download(repo_id, MANIFEST, repo_type="dataset", local_dir=folder)
        except EntryNotFoundError:
            return None
        return Path(path).read_text(encoding="utf-8")


PushResult = Literal["pushed", "there already"]


def version_tag(version: int) -> str:
    """The git tag of a version on the Hub."""
    return f"v{version}"


def push_adapter(folder: Path, repo_id: str, version: int, *, private: bool, api: HfApi | None = None) -> PushResult:
    """Push a folder's files as a version of a model repository, tagged `v<version>`, in one commit.

    The newest version is what `main` holds; an older one that comes later gets a branch of its own. A version that is
    tagged there already is left as it is. Raises StudioError when the Hub cannot be reached or refuses.
    """
    api = api or HfApi()
    with translate_push_errors(repo_id):
        tags = _tags(api, repo_id)
        if version_tag(version) in tags:
            return "there already"
        api.create_repo(repo_id, repo_type="model", private=private, exist_ok=True)
        newest = max((int(tag[1:]) for tag in tags if tag[1:].isdigit() and tag[0] == "v"), default=0)
        branch = "main" if version > newest else f"version-{version}"
        if branch != "main":
            api.create_branch(repo_id, branch=branch, exist_ok=True)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        operations = [CommitOperationAdd(path.relative_to(folder).as_posix(), path) for path in files]
        commit = api.create_commit(repo_id, operations, commit_message=f"Version {version}", revision=branch)
        api.create_tag(repo_id, tag=version_tag(version), revision=commit.oid, exist_ok=True)
    return "pushed"


def _tags(api: HfApi, repo_id: str) -> set[str]:
    try:
        return {tag.name for tag in api.list_repo_refs(repo_id, repo_type="model").tags}
    except RepositoryNotFoundError:
        return set()
