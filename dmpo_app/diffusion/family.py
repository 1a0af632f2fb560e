"""Which model family a base model is of, where its files are, and what identifies it.

Plain files only: no torch, no diffusers, so that the page can be up before those have been imported.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from pathlib import Path
from typing import Any

from dmpo_app.diffusion.hub import cached_snapshot, fetch_index, fetch_snapshot
from dmpo_app.errors import ModelUnavailable, UnknownFamily

_log = logging.getLogger(__name__)

STABLE_DIFFUSION = "stable_diffusion"
FAMILIES = {"StableDiffusionPipeline": STABLE_DIFFUSION}
COMPONENTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
_OPTIONAL = ("safety_checker",)
_WEIGHTS = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
    "safety_checker": "model",
}
_EDGE_BYTES = 1 << 20
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


def family_of(source: str) -> str:
    """The family of a folder or hub id, by the pipeline class its `model_index.json` names.

    Raises ModelUnavailable when there is no such model, UnknownFamily when it is of a kind that is not supported.
    A hub id costs one small download, not the weights.
    """
    folder = _folder(source)
    path = folder / "model_index.json" if folder else fetch_index(source)
    return _family_in(_read_json(path, source), source)


def locate(source: str) -> Path:
    """The folder with the model's files, complete and of a supported family; a hub id is downloaded first.

    Only JSON, text and safetensors files of the parts that are used are fetched. Raises ModelUnavailable or
    UnknownFamily.
    """
    family_of(source)
    folder = _folder(source)
    if folder is not None:
        _check_complete(folder, source)
        return folder
    cached = cached_snapshot(source)
    if cached is not None:
        try:
            _check_complete(cached, source)
        except ModelUnavailable as error:  # an interrupted download; what is missing is fetched below
            _log.info("the cached copy is not complete, downloading the rest: %s", error)
        else:
            return cached
    fetched = fetch_snapshot(source, [f"{component}/{stem}" for component, stem in _WEIGHTS.items()])
    _check_complete(fetched, source)
    return fetched


def fingerprint(source: str) -> str:
    """A sha256 (hex) that tells base models apart: the same files give the same one wherever they are.

    Over the parts that make images: configurations and vocabularies whole; weights by name, size, first and last MiB,
    so that gigabytes take milliseconds. The safety checker does not count: without it the lineage is the same.
    """
    folder = locate(source)
    index = _read_json(folder / "model_index.json", source)
    digest = hashlib.sha256()
    for component in COMPONENTS:
        digest.update(f"{component}\0{json.dumps(index.get(component))}\0".encode())
        for path in _texts(folder / component):
            _feed(digest, f"{component}/{path.name}", path.read_bytes())
        for path in _weights(folder, component, source):
            _feed(digest, f"{component}/{path.name}\0{path.stat().st_size}", _edges(path))
    return digest.hexdigest()


def uses(index: dict[str, Any], component: str) -> bool:
    """Whether a `model_index.json` names a class for `component`; `[null, null]` means it is left out."""
    entry = index.get(component)
    return isinstance(entry, list) and len(entry) == 2 and entry[1] is not None


def _family_in(index: dict[str, Any], source: str) -> str:
    name = index.get("_class_name")
    if name not in FAMILIES:
        raise UnknownFamily(
            f"{source} is a {name}, which is not supported; supported are Stable Diffusion 1.x models "
            f"({', '.join(FAMILIES)}), for example stable-diffusion-v1-5/stable-diffusion-v1-5. "
            "Set DMPO_BASE_MODEL to such a model."
        )
    return FAMILIES[name]


def _folder(source: str) -> Path | None:
    """The folder `source` names, or None for something that can only be a hub id."""
    path = Path(source).expanduser()
    if path.is_dir():
        return path.resolve()
    if _HUB_ID.fullmatch(source) and not path.exists() and ".." not in source:
        return None
    what = "is a file, not a folder" if path.exists() else "does not exist"
    raise ModelUnavailable(
        f"the base model {source} {what}; set DMPO_BASE_MODEL to a folder written by save_pretrained or to a hub id"
    )


def _read_json(path: Path, source: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelUnavailable(
            f"{source} holds no {path.name}; a folder in the diffusers format is needed "
            "(single-file checkpoints can be converted: StableDiffusionPipeline.from_single_file(...).save_pretrained)"
        ) from error
    except (OSError, ValueError) as error:
        raise ModelUnavailable(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise ModelUnavailable(f"{path} is not a JSON object; is the model complete?")
    return value


def _check_complete(folder: Path, source: str) -> None:
    """Raise ModelUnavailable unless every part that `from_pretrained` will read is there, weights as safetensors."""
    index = _read_json(folder / "model_index.json", source)
    for component in (*COMPONENTS, *_OPTIONAL):
        if component in COMPONENTS or uses(index, component):
            if not (folder / component).is_dir():
                raise ModelUnavailable(f"{source} is incomplete: it has no {component} folder")
            _weights(folder, component, source)


def _weights(folder: Path, component: str, source: str) -> list[Path]:
    """The safetensors files that from_pretrained reads, sorted by name; empty for parts without weights."""
    stem = _WEIGHTS.get(component)
    if stem is None:
        return []
    single, index = folder / component / f"{stem}.safetensors", folder / component / f"{stem}.safetensors.index.json"
    if single.is_file():
        return [single]
    if index.is_file():
        shards = sorted(set(_read_json(index, source).get("weight_map", {}).values()))
        paths = [folder / component / Path(str(shard)).name for shard in shards]
        absent = [path.name for path in paths if not path.is_file()]
        if absent:
            raise ModelUnavailable(f"{source} is incomplete: {component} lacks {absent[0]}")
        return paths
    pickled = sorted(path.name for path in (folder / component).glob("*") if path.suffix in {".bin", ".pt", ".ckpt"})
    if pickled:
        raise ModelUnavailable(
            f"{source} holds {component}/{pickled[0]}, a pickle file that could run code when it is loaded, and no "
            f"{single.name}; convert it once where you trust it: "
            "StableDiffusionPipeline.from_pretrained(...).save_pretrained(folder, safe_serialization=True)"
        )
    raise ModelUnavailable(f"{source} is incomplete: {component}/{single.name} is missing")


def _texts(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix in {".json", ".txt"} and not path.name.endswith(".safetensors.index.json")
    )


def _feed(digest: Any, name: str, content: bytes) -> None:
    digest.update(f"{name}\0{len(content)}\0".encode())
    digest.update(content)


def _edges(path: Path) -> bytes:
    size = path.stat().st_size
    with path.open("rb") as file:
        first = file.read(_EDGE_BYTES)
        file.seek(max(len(first), size - _EDGE_BYTES))
        return first + file.read(_EDGE_BYTES)
