"""Files of a home beside its database: listing them, finding those the database needs, checking their hashes.

Their names in a backup are `files/` and their path below the home.
"""

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dmpo_app.io.files import sha256_of_file
from dmpo_app.store.home import SECRET_KEY_NAME

PREFIX = "files/"
ADAPTER_WEIGHTS = "pytorch_lora_weights.safetensors"
ADAPTER_MANIFEST = "manifest.json"

_SUFFIXES = {"images": ".png", "latents": ".safetensors", "embeds": ".safetensors"}
_BY_HASH = re.compile(r"(images|latents|embeds)/([0-9a-f]{2})/(\2[0-9a-f]{62})(\.png|\.safetensors)")
_ADAPTER = re.compile(r"adapters/[0-9a-f]{12}/(\d{5}-[0-9a-f]{8})/([^/]+)")
_MTIME_RESOLUTION_SECONDS = 2.0
"""A folder that changed less than this before it was read may change again under the same time stamp."""


@dataclass(frozen=True, slots=True)
class ReferencedFile:
    """A file that a database needs. `sha256` None: checked by its form alone."""

    path: str
    sha256: str | None
    purpose: str


def is_home_file(path: str) -> bool:
    """True for the path below a home of a file that backups hold; nothing else is ever restored."""
    if path == SECRET_KEY_NAME:
        return True
    by_hash, adapter = _BY_HASH.fullmatch(path), _ADAPTER.fullmatch(path)
    if by_hash is not None:
        return by_hash[4] == _SUFFIXES[by_hash[1]]
    return adapter is not None and adapter[2] in (ADAPTER_WEIGHTS, ADAPTER_MANIFEST)


def referenced_files(connection: Any) -> Iterator[ReferencedFile]:
    """Files that the rows of a database name, through a DBAPI connection; each path once."""
    queries = (
        ("images", "SELECT DISTINCT sha256 FROM images", "an image"),
        ("latents", "SELECT DISTINCT latents_sha256 FROM images WHERE latents_sha256 IS NOT NULL", "latents of images"),
        ("embeds", "SELECT DISTINCT sha256 FROM prompt_embeds", "a prompt's embeddings"),
    )
    for folder, query, why in queries:
        for (sha256,) in connection.execute(query):
            yield ReferencedFile(f"{folder}/{sha256[:2]}/{sha256}{_SUFFIXES[folder]}", sha256, why)
    adapters = connection.execute(
        "SELECT b.fingerprint, a.folder, a.sha256, a.version FROM adapters a JOIN base_models b ON b.id = a.base_id "
        "WHERE a.version > 0"
    )
    for fingerprint, folder, sha256, version in adapters:
        start = f"adapters/{fingerprint[:12]}/{folder}"
        yield ReferencedFile(f"{start}/{ADAPTER_WEIGHTS}", sha256, f"version {version}")
        yield ReferencedFile(f"{start}/{ADAPTER_MANIFEST}", None, f"version {version}")


def check_file(home: Path, file: ReferencedFile) -> str | None:
    """Check a file of a home: the fault found, or None where it is there and whole."""
    path = home / file.path
    if not path.is_file():
        return "is missing"
    if file.sha256 is not None:
        actual_sha256 = sha256_of_file(path)
        return (
            None if actual_sha256 == file.sha256 else f"has sha256 {actual_sha256[:12]}..., not {file.sha256[:12]}..."
        )
    return _check_manifest(path)


def _check_manifest(path: Path) -> str | None:
    try:
        manifest = json.loads(path.read_bytes())
        version, weights = int(manifest["version"]), str(manifest["weights_sha256"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        return f"is no manifest of an adapter ({type(error).__name__}: {error})"
    expected_name = f"{version:05d}-{weights[:8]}"
    return None if expected_name == path.parent.name else f"is the manifest of {expected_name}"


class HomeFileScanner:
    """Lists the files of a home again and again at little cost: folders that have not changed are not read anew."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._listings: dict[Path, tuple[int, list[str]]] = {}

    def list_paths(self) -> set[str]:
        """List the paths below the home, with `/`. A file being written has another name and is not among them."""
        paths = {SECRET_KEY_NAME} if (self._home / SECRET_KEY_NAME).is_file() else set()
        for folder in _SUFFIXES:
            for part in _folders(self._home / folder):
                paths.update(f"{folder}/{part.name}/{name}" for name in self._list_names(part))
        for lineage in _folders(self._home / "adapters"):
            for adapter in _folders(lineage):
                paths.update(f"adapters/{lineage.name}/{adapter.name}/{name}" for name in self._list_names(adapter))
        return {path for path in paths if is_home_file(path)}

    def _list_names(self, folder: Path) -> list[str]:
        changed_ns = folder.stat().st_mtime_ns
        cached = self._listings.get(folder)
        if cached is not None and cached[0] == changed_ns:
            return cached[1]
        names = [path.name for path in folder.iterdir()]
        if time.time() - changed_ns / 1e9 > _MTIME_RESOLUTION_SECONDS:
            self._listings[folder] = (changed_ns, names)
        return names


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
