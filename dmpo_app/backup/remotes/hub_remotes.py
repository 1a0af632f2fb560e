"""Private storage on the Hugging Face Hub: a bucket keeps no history, in a data set every write is a commit."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import BucketFile, CommitOperationAdd, CommitOperationDelete, HfApi, RepoFile
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

from dmpo_app.backup.remotes.remote import Item
from dmpo_app.errors import BackupUnreachableError, NotFoundError, SetupError

_WRITE_RACE_SECONDS = 1.0
"""Concurrent writers of one name have written it after so long."""


class BucketRemote:
    """A folder of one bucket, which is made (private) by the first use. A public one is refused."""

    shortest_pause = 0.0

    def __init__(self, place: str, *, endpoint: str | None = None, token: str | None = None) -> None:
        """`place`: user/name or user/name/folder. Endpoint and token: those of `huggingface_hub` unless given.

        Raises SetupError.
        """
        parts = place.strip("/").split("/")
        if len(parts) < 2 or not all(parts):
            raise SetupError(f"hf://buckets/{place} names no bucket; expected hf://buckets/user/name")
        self.url = f"hf://buckets/{'/'.join(parts)}"
        self._bucket = "/".join(parts[:2])
        self._folder = "".join(f"{part}/" for part in parts[2:])
        self._api = HfApi(endpoint=endpoint, token=token)
        self._ready = False

    def names(self, prefix: str) -> list[str]:
        with self._translate_errors():
            try:
                tree = self._api.list_bucket_tree(
                    self._bucket, (self._folder + prefix).rstrip("/") or None, recursive=True
                )
                paths = [entry.path for entry in tree if isinstance(entry, BucketFile)]
            except EntryNotFoundError:
                return []
            full_prefix = self._folder + prefix
            return sorted(path.removeprefix(self._folder) for path in paths if path.startswith(full_prefix))

    def read(self, name: str) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "content"
            self.fetch([(name, target)])
            return target.read_bytes()

    def fetch(self, items: Sequence[tuple[str, Path]]) -> None:
        with self._translate_errors():
            files = [(self._folder + name, path) for name, path in items]
            try:
                self._api.download_bucket_files(self._bucket, files, raise_on_missing_files=True)  # type: ignore[arg-type]
            except EntryNotFoundError as error:
                raise NotFoundError(f"{items[0][0]} or one after it is not in the storage at {self.url}") from error

    def put(self, items: Sequence[Item]) -> None:
        with self._translate_errors():
            self._api.batch_bucket_files(self._bucket, add=[(content, self._folder + name) for name, content in items])

    def create(self, name: str, content: bytes) -> bool:
        """Create by write and read back: a bucket has no conditional write, the last of several writers wins."""
        if name in self.names(name.rpartition("/")[0] + "/"):
            return False
        self.put([(name, content)])
        time.sleep(_WRITE_RACE_SECONDS)
        return self.read(name) == content

    def delete(self, names: Sequence[str]) -> None:
        if not names:
            return
        existing_names = set(self.names(""))
        paths = [self._folder + name for name in names if name in existing_names]
        with self._translate_errors():
            if paths:
                self._api.batch_bucket_files(self._bucket, delete=paths)

    def _ensure_private_bucket(self) -> None:
        if self._ready:
            return
        self._api.create_bucket(self._bucket, private=True, exist_ok=True)
        if not self._api.bucket_info(self._bucket).private:
            raise SetupError(
                f"{self.url} is public, and a backup holds names and keys; make it private in its settings, or set "
                "DMPO_BACKUP__URL to another"
            )
        self._ready = True

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Translate errors to BackupUnreachableError.

        The Hub's client raises its own, those of httpx and hf_xet, and OSError.
        """
        try:
            self._ensure_private_bucket()
            yield
        except (NotFoundError, SetupError, BackupUnreachableError):
            raise
        except Exception as error:
            message = f"{type(error).__name__}: {str(error)[:200]}"
            raise BackupUnreachableError(f"the storage at {self.url} is out of reach ({message})") from error


_MOST_FILES_A_COMMIT = 500
_DOWNLOADS = 8
_TRIES = 5
_HUB_FILE = ".gitattributes"


class DatasetRemote:
    """The files of one repository, on its main branch; made (private) by the first write.

    A backup holds names, sessions' keys and votes, so a public repository is refused.
    """

    shortest_pause = 60.0
    """The Hub takes about 128 commits an hour from one person."""

    def __init__(self, repository: str, *, endpoint: str | None = None, token: str | None = None) -> None:
        """`repository`: user/name. Endpoint and token: those of `huggingface_hub` unless given. Raises SetupError."""
        if repository.strip("/").count("/") != 1:
            raise SetupError(f"hf://datasets/{repository} names no repository; expected hf://datasets/user/name")
        self._repository = repository.strip("/")
        self.url = f"hf://datasets/{self._repository}"
        self._api = HfApi(endpoint=endpoint, token=token)
        self._ready = False

    def names(self, prefix: str) -> list[str]:
        with self._translate_errors():
            self._ensure_private_repository()
            return self._list_files(prefix, None)

    def read(self, name: str) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "content"
            self.fetch([(name, target)])
            return target.read_bytes()

    def fetch(self, items: Sequence[tuple[str, Path]]) -> None:
        with self._translate_errors(), tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(_DOWNLOADS) as pool:
            self._ensure_private_repository()
            downloads = [pool.submit(self._download, name, target, folder) for name, target in items]
            for download in downloads:
                download.result()

    def put(self, items: Sequence[Item]) -> None:
        with self._translate_errors():
            self._ensure_private_repository()
            for start in range(0, len(items), _MOST_FILES_A_COMMIT):
                some = items[start : start + _MOST_FILES_A_COMMIT]
                self._commit([CommitOperationAdd(name, content) for name, content in some], f"{len(some)} files")

    def create(self, name: str, content: bytes) -> bool:
        with self._translate_errors():
            self._ensure_private_repository()
            for _ in range(_TRIES):
                head = self._api.repo_info(self._repository, repo_type="dataset").sha
                if name in self._list_files(name.rpartition("/")[0] + "/", head):
                    return False
                try:
                    self._commit([CommitOperationAdd(name, content)], name, parent=head)
                except HfHubHTTPError as error:
                    if error.response.status_code in (409, 412):  # somebody else's commit came first: check again
                        continue
                    raise
                return True
        raise BackupUnreachableError(f"others write to {self.url} all the time; it must be this studio's alone")

    def delete(self, names: Sequence[str]) -> None:
        with self._translate_errors():
            existing_names = set(self._list_files("", None))
            deletions = [CommitOperationDelete(name) for name in names if name in existing_names]
            if deletions:
                self._commit(deletions, f"remove {len(deletions)} files")

    def _ensure_private_repository(self) -> None:
        if self._ready:
            return
        self._api.create_repo(self._repository, repo_type="dataset", private=True, exist_ok=True)
        if not self._api.repo_info(self._repository, repo_type="dataset").private:
            raise SetupError(
                f"{self.url} is public, and a backup holds names and keys; make it private in its settings, or set "
                "DMPO_BACKUP__URL to another"
            )
        self._ready = True

    def _list_files(self, prefix: str, revision: str | None) -> list[str]:
        try:
            tree = self._api.list_repo_tree(
                self._repository, prefix.rstrip("/") or None, recursive=True, revision=revision, repo_type="dataset"
            )
            return sorted(one.path for one in tree if isinstance(one, RepoFile) and one.path != _HUB_FILE)
        except EntryNotFoundError:
            return []

    def _download(self, name: str, target: Path, folder: str) -> None:
        try:
            downloaded_path = self._api.hf_hub_download(
                self._repository, name, repo_type="dataset", local_dir=folder, force_download=True
            )
        except EntryNotFoundError as error:
            raise NotFoundError(f"{name} is not in the storage at {self.url}") from error
        Path(downloaded_path).replace(target)

    def _commit(self, operations: list[Any], message: str, parent: str | None = None) -> None:
        self._api.create_commit(
            self._repository, operations, commit_message=f"Backup: {message}", repo_type="dataset", parent_commit=parent
        )

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Translate errors to BackupUnreachableError: the Hub's client raises those of httpx, its own, and OSError."""
        try:
            yield
        except (NotFoundError, SetupError, BackupUnreachableError):
            raise
        except Exception as error:
            kind = type(error).__name__
            raise BackupUnreachableError(
                f"the storage at {self.url} is out of reach ({kind}: {str(error)[:200]})"
            ) from error
