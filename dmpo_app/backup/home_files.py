"""The files of a home beside its database: which there are, which the database needs, and whether they are whole.

Their names in a backup are `files/` and their path below the home.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dmpo_app.store.files import sha256_of_file

PREFIX = "files/"
KEY_NAME = "secret.key"
ADAPTER_WEIGHTS = "pytorch_lora_weights.safetensors"
ADAPTER_MANIFEST = "manifest.json"

_SUFFIXES = {"images": ".png", "latents": ".safetensors", "embeds": ".safetensors"}
_BY_HASH = re.compile(r"(images|latents|embeds)/([0-9a-f]{2})/(\2[0-9a-f]{62})(\.png|\.safetensors)")
_ADAPTER = re.compile(r"adapters/[0-9a-f]{12}/(\d{5}-[0-9a-f]{8})/([^/]+)")
_SETTLED_SECONDS = 2.0
"""A folder that changed no later than this before it was read may change again without its time stamp telling."""


@dataclass(frozen=True, slots=True)
class NeededFile:
    """A file that a database needs. `sha256` None: known by its form alone."""

    path: str
    sha256: str | None
    why: str


def is_home_file(path: str) -> bool:
    """Whether a path below a home is of a file that is kept; nothing else is ever restored."""
    if path == KEY_NAME:
        return True
    by_hash, adapter = _BY_HASH.fullmatch(path), _ADAPTER.fullmatch(path)
    if by_hash is not None:
        return by_hash[4] == _SUFFIXES[by_hash[1]]
    return adapter is not None and adapter[2] in (ADAPTER_WEIGHTS, ADAPTER_MANIFEST)


def needed_files(connection: Any) -> Iterator[NeededFile]:
    """What the rows of a database name, through a DBAPI connection; each path once."""
    queries = (
        ("images", "SELECT DISTINCT sha256 FROM images", "an image"),
        ("latents", "SELECT DISTINCT latents_sha256 FROM images WHERE latents_sha256 IS NOT NULL", "latents of images"),
        ("embeds", "SELECT DISTINCT sha256 FROM prompt_embeds", "a prompt's embeddings"),
    )
    for folder, query, why in queries:
        for (sha256,) in connection.execute(query):
            yield NeededFile(f"{folder}/{sha256[:2]}/{sha256}{_SUFFIXES[folder]}", sha256, why)
    adapters = connection.execute(
        "SELECT b.fingerprint, a.folder, a.sha256, a.version FROM adapters a JOIN base_models b ON b.id = a.base_id "
        "WHERE a.version > 0"
    )
    for fingerprint, folder, sha256, version in adapters:
        start = f"adapters/{fingerprint[:12]}/{folder}"
        yield NeededFile(f"{start}/{ADAPTER_WEIGHTS}", sha256, f"version {version}")
        yield NeededFile(f"{start}/{ADAPTER_MANIFEST}", None, f"version {version}")


def fault_of(home: Path, needed: NeededFile) -> str | None:
    """What is wrong with a file of a home; None: it is there and whole."""
    path = home / needed.path
    if not path.is_file():
        return "is missing"
    if needed.sha256 is not None:
        found = sha256_of_file(path)
        return None if found == needed.sha256 else f"has sha256 {found[:12]}..., not {needed.sha256[:12]}..."
    return _fault_of_manifest(path)


def _fault_of_manifest(path: Path) -> str | None:
    try:
        manifest = json.loads(path.read_bytes())
        version, weights = int(manifest["version"]), str(manifest["weights_sha256"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        return f"is no manifest of an adapter ({type(error).__name__}: {error})"
    named = f"{version:05d}-{weights[:8]}"
    return None if named == path.parent.name else f"is the manifest of {named}"


class HomeFiles:
    """The files a home has, found again and again at little cost: folders that have not changed are not read anew."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._known: dict[Path, tuple[int, list[str]]] = {}

    def paths(self) -> set[str]:
        """Paths below the home, with `/`. A file being written has another name and is not among them."""
        found = {KEY_NAME} if (self._home / KEY_NAME).is_file() else set()
        for folder in _SUFFIXES:
            for part in _folders(self._home / folder):
                found.update(f"{folder}/{part.name}/{name}" for name in self._names(part))
        for lineage in _folders(self._home / "adapters"):
            for adapter in _folders(lineage):
                found.update(f"adapters/{lineage.name}/{adapter.name}/{name}" for name in self._names(adapter))
        return {path for path in found if is_home_file(path)}

    def _names(self, folder: Path) -> list[str]:
        changed_ns = folder.stat().st_mtime_ns
        known = self._known.get(folder)
        if known is not None and known[0] == changed_ns:
            return known[1]
        names = [path.name for path in folder.iterdir()]
        if time.time() - changed_ns / 1e9 > _SETTLED_SECONDS:
            self._known[folder] = (changed_ns, names)
        return names


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
