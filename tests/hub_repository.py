"""One repository of the hub server that tests start: commits, branches, tags, and what a Space has beside them."""

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

LFS_ENDINGS = (
    *("safetensors", "bin", "parquet", "arrow", "png", "jpg", "jpeg", "webp", "zip", "zst", "gz", "xz", "npz"),
    *("sqlite", "db", "ttf", "woff2"),
)
REGULAR_BYTES = 10 * 1024 * 1024


class HubProblem(Exception):
    """A refusal by the Hub: an HTTP status, its error code and a message."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


@dataclass(frozen=True)
class HubFile:
    """A file of a commit. `lfs`: it was uploaded by its sha256 and the repository holds a pointer."""

    data: bytes
    lfs: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.blob_id

    @property
    def blob_id(self) -> str:
        content = self.data
        if self.lfs:
            pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {}\n"
            content = pointer.format(self.sha256, len(self.data)).encode()
        return hashlib.sha1(f"blob {len(content)}\0".encode() + content, usedforsecurity=False).hexdigest()

    def listed(self, path: str) -> dict[str, Any]:
        entry: dict[str, Any] = {"type": "file", "path": path, "size": len(self.data), "oid": self.blob_id}
        if self.lfs:
            entry["lfs"] = {"oid": self.sha256, "size": len(self.data), "pointerSize": 134}
        return entry


@dataclass(frozen=True)
class HubCommit:
    oid: str
    parent: str | None
    title: str
    files: dict[str, HubFile]
    at: datetime


@dataclass
class HubRepository:
    """`kind` is model, dataset or space; `id` is user/name."""

    kind: str
    id: str
    private: bool = False
    sdk: str | None = None
    commits: dict[str, HubCommit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, dict[str, Any]] = field(default_factory=dict)
    variables: dict[str, dict[str, Any]] = field(default_factory=dict)
    hardware: str = "cpu-basic"
    sleep_seconds: int | None = None
    volumes: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.commit("main", {".gitattributes": HubFile(b"*.safetensors filter=lfs\n", lfs=False)}, "initial commit")

    def commit(self, branch: str, files: dict[str, HubFile], title: str) -> HubCommit:
        parent = self.branches.get(branch)
        listing = "".join(f"{path} {file.blob_id}\n" for path, file in sorted(files.items()))
        oid = hashlib.sha1(f"{self.id}{parent}{title}{len(self.commits)}\n{listing}".encode()).hexdigest()
        self.commits[oid] = HubCommit(oid, parent, title, files, datetime.now(UTC))
        self.branches[branch] = oid
        return self.commits[oid]

    def at(self, revision: str) -> HubCommit:
        """The commit of a branch, a tag or an id."""
        oid = self.branches.get(revision) or self.tags.get(revision) or revision
        if oid not in self.commits:
            raise HubProblem(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return self.commits[oid]

    def history(self, revision: str) -> list[HubCommit]:
        """Newest first."""
        commits = [self.at(revision)]
        while (parent := commits[-1].parent) is not None:
            commits.append(self.commits[parent])
        return commits

    def info(self, revision: str) -> dict[str, Any]:
        commit = self.at(revision)
        facts = {
            "id": self.id,
            "sha": commit.oid,
            "private": self.private,
            "author": self.id.split("/")[0],
            "lastModified": f"{commit.at:%Y-%m-%dT%H:%M:%S}.000Z",
            "tags": [],
            "siblings": [{"rfilename": path} for path in sorted(commit.files)],
        }
        return facts | ({"sdk": self.sdk, "runtime": self.runtime()} if self.kind == "space" else {})

    def runtime(self) -> dict[str, Any]:
        return {
            "stage": "RUNNING" if "app.py" in self.at("main").files else "NO_APP_FILE",
            "hardware": {"current": self.hardware, "requested": self.hardware},
            "gcTimeout": self.sleep_seconds,
            "volumes": self.volumes,
        }

    def tree(self, revision: str, folder: str, *, recursive: bool) -> list[dict[str, Any]]:
        """Files, and without `recursive` the folders beside them, under `folder`."""
        prefix = f"{folder.strip('/')}/" if folder.strip("/") else ""
        files = {path: file for path, file in self.at(revision).files.items() if path.startswith(prefix)}
        if prefix and not files:
            raise HubProblem(404, "EntryNotFound", f"{folder} does not exist on {revision!r}")
        entries: dict[str, dict[str, Any]] = {}
        for path, file in sorted(files.items()):
            parts = path[len(prefix) :].split("/")
            for depth in range(1, len(parts) if recursive else min(len(parts), 2)):
                name = prefix + "/".join(parts[:depth])
                entries[name] = {
                    "type": "directory",
                    "path": name,
                    "oid": hashlib.sha1(name.encode()).hexdigest(),
                    "size": 0,
                }
            if recursive or len(parts) == 1:
                entries[path] = file.listed(path)
        return list(entries.values())


def upload_mode(path: str, size: int, sample: bytes) -> str:
    """The Hub's upload mode of a file: binaries and large ones go through LFS."""
    binary = path.rsplit(".", 1)[-1].lower() in LFS_ENDINGS or b"\0" in sample
    return "lfs" if binary or size > REGULAR_BYTES else "regular"
