"""Versions as they are named in a comparison: of a home, the base model, folders of adapters, LoRA files of others."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from dmpo_app.diffusion.adapter_files import MANIFEST_FILE, WEIGHTS_FILE, AdapterWeights, read_adapter
from dmpo_app.diffusion.live_model import LiveModel
from dmpo_app.domain.lineage import BASE_VERSION, BaseModelRef
from dmpo_app.errors import AdapterCorruptError, BadInputError, NotFoundError
from dmpo_app.io.files import sha256_of_file
from dmpo_app.store import Store

BASE, LIVE = "base", "live"
_ADAPTER_FOLDER = re.compile(r"\d{5}-[0-9a-f]{8}")


@dataclass(frozen=True, slots=True)
class JudgedVersion:
    """One side of a comparison. `sha256` is of its weights file, None for the base model.

    `path` is the folder of an adapter of the studio's, or the LoRA file of somebody else (`is_foreign`).
    """

    label: str
    sha256: str | None = None
    path: Path | None = None
    is_foreign: bool = False

    @property
    def identity(self) -> str:
        """The name by which a run is compared with an earlier one: the content, wherever it lies."""
        return self.sha256 or BASE

    def read(self, model: LiveModel) -> AdapterWeights | None:
        """The adapter for `LiveModel.swap`, None for the base model. Raises AdapterError."""
        if self.path is None:
            return None
        if not self.is_foreign:
            return read_adapter(self.path, self.identity)
        return model.read_foreign_lora(self.path)


def is_of_home(name: str) -> bool:
    """True for a name that only a home can resolve: `live`, or a number that is not the base model's."""
    return name == LIVE or (name.isdecimal() and int(name) != BASE_VERSION)


def find_home_version(name: str, store: Store, base: BaseModelRef) -> JudgedVersion:
    """The version of a home by its number, or the live one. Raises NotFoundError."""
    version = store.adapters.live_version(base) if name == LIVE else int(name)
    if version == BASE_VERSION:
        return JudgedVersion("base")
    versions = {adapter.version: adapter for adapter in store.adapters.list(base)}
    if version not in versions:
        there = ", ".join(["base", *map(str, sorted(versions))])
        raise NotFoundError(f"there is no version {version} in {store.home}; there are: {there}")
    adapter = versions[version]
    return JudgedVersion(f"version {version}", adapter.sha256, adapter.folder)


def find_file_version(name: str) -> JudgedVersion:
    """The version that a path names, or the base model.

    A folder is that of an adapter, the output of a training (its newest adapter), or holds one LoRA file. Raises
    NotFoundError, BadInputError or AdapterCorruptError.
    """
    if name == BASE or name.isdecimal():
        return JudgedVersion("base")
    path = Path(name).expanduser()
    if not path.exists():
        raise NotFoundError(
            f"there is no version {name!r}; expected the number of a version, live, base, the folder of an adapter, or "
            "a LoRA file"
        )
    if path.is_file():
        return _foreign(path, path.stem)
    adapters = sorted(folder for folder in path.iterdir() if _ADAPTER_FOLDER.fullmatch(folder.name) and folder.is_dir())
    if adapters:
        return _of_studio(adapters[-1], f"{path.resolve().name}/{adapters[-1].name}")
    if (path / MANIFEST_FILE).is_file() and (path / WEIGHTS_FILE).is_file():
        return _of_studio(path, path.resolve().name)
    files = [path / WEIGHTS_FILE] if (path / WEIGHTS_FILE).is_file() else sorted(path.glob("*.safetensors"))
    if len(files) != 1:
        there = ", ".join(file.name for file in files) or "none"
        raise BadInputError(f"{path} holds no single LoRA file ({there} of .safetensors); name the file")
    return _foreign(files[0], path.resolve().name)


def _of_studio(folder: Path, label: str) -> JudgedVersion:
    """An adapter that the studio wrote, known by the hash in its manifest; without one it is as anybody's."""
    try:
        digest = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8")).get("weights_sha256")
    except (OSError, ValueError, AttributeError) as error:
        raise AdapterCorruptError(f"{folder / MANIFEST_FILE} cannot be read: {error}") from error
    if not isinstance(digest, str):
        return _foreign(folder / WEIGHTS_FILE, label)
    return JudgedVersion(label, digest, folder)


def _foreign(file: Path, label: str) -> JudgedVersion:
    if file.suffix != ".safetensors":
        raise BadInputError(
            f"{file} is no safetensors file; other files of weights can run code when they are loaded: convert it once "
            "where you trust it"
        )
    try:
        digest = sha256_of_file(file)
    except OSError as error:
        raise AdapterCorruptError(f"{file} cannot be read: {error}") from error
    return JudgedVersion(label, digest, file, is_foreign=True)
