"""A Hugging Face Space of this studio: what it lacks of what is wanted, and making it so."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, RepoFile, SpaceHardware
from huggingface_hub.errors import BucketNotFoundError, RepositoryNotFoundError

from dmpo_app.errors import BadInput, SetupProblem

_LEFT_AT_HOME = ("tests/", "benchmarks/", "scripts/", ".ci/", "Makefile", "Dockerfile", "compose", ".dockerignore")
_MADE_BY_THE_HUB = (".gitattributes",)
BACKUP_VARIABLE = "DMPO_BACKUP__URL"


@dataclass(frozen=True, slots=True)
class SpaceWish:
    """What a Space is to be. `secrets` by name, never shown; `bucket` user/name, which keeps the backup."""

    repo_id: str
    private: bool = False
    hardware: str | None = None
    bucket: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def all_variables(self) -> dict[str, str]:
        backup = {} if self.bucket is None else {BACKUP_VARIABLE: f"hf://buckets/{self.bucket}"}
        return backup | dict(self.variables)


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to be done, in words that name no secret's value, and the doing of it."""

    words: str
    do: Callable[[], object]


def space_files(root: Path) -> dict[str, Path]:
    """What of a checkout goes to a Space, by its name there: what git tracks, but for what only developers need.

    Raises SetupProblem where there is no checkout.
    """
    listed = subprocess.run(["git", "-C", str(root), "ls-files", "-z"], capture_output=True, check=False)
    names = [name for name in listed.stdout.decode().split("\0") if name and not name.startswith(_LEFT_AT_HOME)]
    if listed.returncode != 0 or "app.py" not in names:
        raise SetupProblem(f"{root} is no git checkout of DMPO Studio; a Space is made of one: git clone it first")
    return {name: root / name for name in names if (root / name).is_file()}


def exists(api: HfApi, repo_id: str) -> bool:
    """Whether there is such a Space that this token may see."""
    try:
        api.repo_info(repo_id, repo_type="space")
    except RepositoryNotFoundError:
        return False
    return True


def steps_to(api: HfApi, wish: SpaceWish, files: Mapping[str, Path]) -> list[Step]:
    """What has to be done until the Space is as wished, in order; nothing for what is so already.

    The Hub tells nobody a secret's value, so those that are wished for are always set. Raises BadInput for hardware
    there is not, and what the Hub's client raises.
    """
    there = exists(api, wish.repo_id)
    steps = list(_housing(api, wish, there))
    steps += _settings(api, wish, there)
    listed = _listed(api, wish.repo_id) if there else {}
    changed = {name: path for name, path in files.items() if name not in listed or not _is_same(listed[name], path)}
    gone = sorted(name for name in listed if name not in files and name not in _MADE_BY_THE_HUB)
    if changed or gone:
        total = sum(path.stat().st_size for path in changed.values())
        words = f"upload {len(changed)} files ({total / 1e6:.1f} MB)" + (f", delete {len(gone)}" if gone else "")
        steps.append(Step(words, lambda: _commit(api, wish.repo_id, changed, gone)))
    if wish.hardware is not None and (not there or wish.hardware != _hardware(api, wish.repo_id)):
        hardware = _known_hardware(wish.hardware)
        steps.append(Step(f"run on {wish.hardware}", lambda: api.request_space_hardware(wish.repo_id, hardware)))
    return steps


def _housing(api: HfApi, wish: SpaceWish, there: bool) -> Iterator[Step]:
    if not there:
        kind = "private" if wish.private else "public"

        def make() -> object:
            return api.create_repo(wish.repo_id, repo_type="space", space_sdk="gradio", private=wish.private)

        yield Step(f"make the {kind} Space {wish.repo_id}", make)
    if (bucket := wish.bucket) is not None and not _bucket_exists(api, bucket):
        yield Step(f"make the private bucket {bucket}", lambda: api.create_bucket(bucket, private=True, exist_ok=True))


def _settings(api: HfApi, wish: SpaceWish, there: bool) -> Iterator[Step]:
    variables = {key: one.value for key, one in api.get_space_variables(wish.repo_id).items()} if there else {}
    for key, value in wish.all_variables.items():
        if variables.get(key) != value:
            yield Step(
                f"set the variable {key}={value}",
                lambda key=key, value=value: api.add_space_variable(wish.repo_id, key, value),  # type: ignore[misc]
            )
    for key, value in wish.secrets.items():
        yield Step(
            f"set the secret {key}",
            lambda key=key, value=value: api.add_space_secret(wish.repo_id, key, value),  # type: ignore[misc]
        )


def _bucket_exists(api: HfApi, bucket: str) -> bool:
    try:
        api.bucket_info(bucket)
    except BucketNotFoundError:
        return False
    return True


def _hardware(api: HfApi, repo_id: str) -> str | None:
    runtime = api.get_space_runtime(repo_id)
    wanted = runtime.requested_hardware or runtime.hardware
    return None if wanted is None else str(getattr(wanted, "value", wanted))


def _known_hardware(name: str) -> SpaceHardware:
    try:
        return SpaceHardware(name)
    except ValueError:
        known = ", ".join(one.value for one in SpaceHardware)
        raise BadInput(f"Spaces have no hardware {name!r}; they have {known}") from None


def _listed(api: HfApi, repo_id: str) -> dict[str, RepoFile]:
    tree = api.list_repo_tree(repo_id, recursive=True, repo_type="space")
    return {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}


def _is_same(there: RepoFile, path: Path) -> bool:
    """By the hash that the Hub tells: of large files sha256, of others git's."""
    content = path.read_bytes()
    if there.lfs is not None:
        return there.lfs.sha256 == hashlib.sha256(content).hexdigest()
    blob = hashlib.sha1(f"blob {len(content)}\0".encode() + content, usedforsecurity=False)
    return there.blob_id == blob.hexdigest()


def _commit(api: HfApi, repo_id: str, changed: Mapping[str, Path], gone: Sequence[str]) -> object:
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        CommitOperationAdd(name, path) for name, path in changed.items()
    ]
    operations += [CommitOperationDelete(name) for name in gone]
    return api.create_commit(repo_id, operations, commit_message="Update the studio", repo_type="space")
