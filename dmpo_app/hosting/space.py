"""Deployment to a Hugging Face Space: compare the Space with its specification and plan the steps."""

import hashlib
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, RepoFile, SpaceHardware
from huggingface_hub.errors import BucketNotFoundError, RepositoryNotFoundError

from dmpo_app.errors import BadInputError, SetupError
from dmpo_app.io.files import sha256_hex

_EXCLUDED_PREFIXES = ("tests/", "benchmarks/", "scripts/", ".ci/", "Makefile", "Dockerfile", "compose", ".dockerignore")
_HUB_FILES = (".gitattributes",)
BACKUP_VARIABLE = "DMPO_BACKUP__URL"


@dataclass(frozen=True, slots=True)
class SpaceSpec:
    """Specification of a Space. `secrets` by name, never shown; `bucket` user/name, which keeps the backup."""

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
class DeploymentStep:
    """One deployment step: its description, which names no secret's value, and the function that does it."""

    description: str
    run: Callable[[], object]


def space_files(root: Path) -> dict[str, Path]:
    """Files of a checkout that go to a Space, by name: those git tracks, without what only developers need.

    Raises SetupError where there is no checkout.
    """
    listed = subprocess.run(["git", "-C", str(root), "ls-files", "-z"], capture_output=True, check=False)
    names = [name for name in listed.stdout.decode().split("\0") if name and not name.startswith(_EXCLUDED_PREFIXES)]
    if listed.returncode != 0 or "app.py" not in names:
        raise SetupError(f"{root} is no git checkout of DMPO Studio; a Space is made of one: git clone it first")
    return {name: root / name for name in names if (root / name).is_file()}


def exists(api: HfApi, repo_id: str) -> bool:
    """True when there is such a Space that this token may see."""
    try:
        api.repo_info(repo_id, repo_type="space")
    except RepositoryNotFoundError:
        return False
    return True


def plan_steps(api: HfApi, spec: SpaceSpec, files: Mapping[str, Path]) -> list[DeploymentStep]:
    """Plan the steps that bring the Space to its specification, in order; none for what is so already.

    The Hub tells nobody a secret's value, so those of the specification are always set. Raises BadInputError for
    hardware there is not, and what the Hub's client raises.
    """
    is_existing = exists(api, spec.repo_id)
    steps = list(_creation_steps(api, spec, is_existing))
    steps += _settings(api, spec, is_existing)
    remote_files = _list_files(api, spec.repo_id) if is_existing else {}
    changed = {
        name: path for name, path in files.items() if name not in remote_files or not _is_same(remote_files[name], path)
    }
    deleted = sorted(name for name in remote_files if name not in files and name not in _HUB_FILES)
    if changed or deleted:
        total = sum(path.stat().st_size for path in changed.values())
        words = f"upload {len(changed)} files ({total / 1e6:.1f} MB)" + (f", delete {len(deleted)}" if deleted else "")
        steps.append(DeploymentStep(words, lambda: _commit(api, spec.repo_id, changed, deleted)))
    if spec.hardware is not None and (not is_existing or spec.hardware != _hardware(api, spec.repo_id)):
        hardware = _parse_hardware(spec.hardware)
        steps.append(
            DeploymentStep(f"run on {spec.hardware}", lambda: api.request_space_hardware(spec.repo_id, hardware))
        )
    return steps


def _creation_steps(api: HfApi, spec: SpaceSpec, is_existing: bool) -> Iterator[DeploymentStep]:
    if not is_existing:
        kind = "private" if spec.private else "public"

        def make() -> object:
            return api.create_repo(spec.repo_id, repo_type="space", space_sdk="gradio", private=spec.private)

        yield DeploymentStep(f"make the {kind} Space {spec.repo_id}", make)
    if (bucket := spec.bucket) is not None and not _bucket_exists(api, bucket):
        yield DeploymentStep(
            f"make the private bucket {bucket}", lambda: api.create_bucket(bucket, private=True, exist_ok=True)
        )


def _settings(api: HfApi, spec: SpaceSpec, is_existing: bool) -> Iterator[DeploymentStep]:
    variables = {key: one.value for key, one in api.get_space_variables(spec.repo_id).items()} if is_existing else {}
    for key, value in spec.all_variables.items():
        if variables.get(key) != value:
            yield DeploymentStep(
                f"set the variable {key}={value}",
                lambda key=key, value=value: api.add_space_variable(spec.repo_id, key, value),  # type: ignore[misc]
            )
    for key, value in spec.secrets.items():
        yield DeploymentStep(
            f"set the secret {key}",
            lambda key=key, value=value: api.add_space_secret(spec.repo_id, key, value),  # type: ignore[misc]
        )


def _bucket_exists(api: HfApi, bucket: str) -> bool:
    try:
        api.bucket_info(bucket)
    except BucketNotFoundError:
        return False
    return True


def _hardware(api: HfApi, repo_id: str) -> str | None:
    runtime = api.get_space_runtime(repo_id)
    hardware = runtime.requested_hardware or runtime.hardware
    return None if hardware is None else str(getattr(hardware, "value", hardware))


def _parse_hardware(name: str) -> SpaceHardware:
    try:
        return SpaceHardware(name)
    except ValueError:
        available = ", ".join(one.value for one in SpaceHardware)
        raise BadInputError(f"Spaces have no hardware {name!r}; they have {available}") from None


def _list_files(api: HfApi, repo_id: str) -> dict[str, RepoFile]:
    tree = api.list_repo_tree(repo_id, recursive=True, repo_type="space")
    return {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}


def _is_same(remote_file: RepoFile, path: Path) -> bool:
    """Compare a file with the Space's by the hash that the Hub tells: of large files sha256, of others git's."""
    content = path.read_bytes()
    if remote_file.lfs is not None:
        return remote_file.lfs.sha256 == sha256_hex(content)
    blob = hashlib.sha1(f"blob {len(content)}\0".encode() + content, usedforsecurity=False)
    return remote_file.blob_id == blob.hexdigest()


def _commit(api: HfApi, repo_id: str, changed: Mapping[str, Path], deleted: Sequence[str]) -> object:
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        CommitOperationAdd(name, path) for name, path in changed.items()
    ]
    operations += [CommitOperationDelete(name) for name in deleted]
    return api.create_commit(repo_id, operations, commit_message="Update the studio", repo_type="space")
