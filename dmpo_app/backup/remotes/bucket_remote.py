"""A private storage bucket of the Hugging Face Hub as storage: files are replaced and removed, and have no history."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

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
        from huggingface_hub import HfApi

        parts = place.strip("/").split("/")
        if len(parts) < 2 or not all(parts):
            raise SetupError(f"hf://buckets/{place} names no bucket; expected hf://buckets/user/name")
        self.url = f"hf://buckets/{'/'.join(parts)}"
        self._bucket = "/".join(parts[:2])
        self._folder = "".join(f"{part}/" for part in parts[2:])
        self._api = HfApi(endpoint=endpoint, token=token)
        self._ready = False

    def names(self, prefix: str) -> list[str]:
        from huggingface_hub import BucketFile
        from huggingface_hub.errors import EntryNotFoundError

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
        from huggingface_hub.errors import EntryNotFoundError

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
