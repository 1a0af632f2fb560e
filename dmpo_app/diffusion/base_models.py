"""The family, the files, the fingerprint and the default sampling of a base model.

Plain files only: no torch, no diffusers, so that the page can be up before those have been imported.
"""

import hashlib
import json
import logging
import re
from pathlib import Path
from typing import Any

from dmpo_app.diffusion.families.registry import FAMILIES, FamilyEntry
from dmpo_app.diffusion.hub import cached_snapshot, fetch_index, fetch_snapshot
from dmpo_app.domain.lineage import Sampling
from dmpo_app.errors import ModelUnavailableError, SetupError, UnknownFamilyError
from dmpo_app.settings import RenderSettings

_log = logging.getLogger(__name__)

SAMPLING_FILE = "sampling.json"
"""The file beside `model_index.json` in which a model may state its default sampling: num_steps and guidance."""
_WEIGHTS = {"diffusers": "diffusion_pytorch_model", "transformers": "model", "stable_diffusion": "model"}
"""The weights' file without ending, by the library that `model_index.json` names for a part."""
_WITHOUT_WEIGHTS = ("tokenizer", "scheduler", "feature_extractor", "image_processor")
_NEEDED = ("vae", "text_encoder", "tokenizer", "scheduler")
_EDGE_BYTES = 1 << 20
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


def detect_family(source: str) -> str:
    """The family of a folder or hub id, by the pipeline class its `model_index.json` names.

    Raises ModelUnavailableError when there is no such model, UnknownFamilyError when it is of a kind that is not
    supported. A hub id costs one small download, not the weights.
    """
    folder = _folder(source)
    path = folder / "model_index.json" if folder else fetch_index(source)
    return _entry_in(_read_json(path, source), source).name


def locate(source: str) -> Path:
    """The folder with the model's files, complete and of a supported family; a hub id is downloaded first.

    Only JSON, text and safetensors files of the parts that are used are fetched. Raises ModelUnavailableError or
    UnknownFamilyError.
    """
    detect_family(source)
    folder = _folder(source)
    if folder is not None:
        _check_complete(folder, source)
        return folder
    cached = cached_snapshot(source)
    if cached is not None:
        try:
            _check_complete(cached, source)
        except ModelUnavailableError as error:  # an interrupted download; what is missing is fetched below
            _log.info("the cached copy is not complete, downloading the rest: %s", error)
        else:
            return cached
    parts = _parts(_read_json(fetch_index(source), source))
    fetched = fetch_snapshot(source, [f"{part}/{stem}" for part, stem in parts.items() if stem is not None])
    _check_complete(fetched, source)
    return fetched


def require_safety_checker(source: str) -> None:
    """Raise SetupError for a model without a safety checker of its own; raises like `locate` too."""
    if "safety_checker" not in _parts(_read_json(locate(source) / "model_index.json", source)):
        raise SetupError(
            f"DMPO_RENDER__SAFETY_CHECKER=on, but {source} comes without a safety checker; use a model that has one, "
            "such as stable-diffusion-v1-5/stable-diffusion-v1-5, or set it to auto or off"
        )


def fingerprint(source: str) -> str:
    """A sha256 (hex) that tells base models apart: the same files give the same one wherever they are.

    Over the parts that make images: configurations and vocabularies whole; weights by name, size, first and last MiB,
    so that gigabytes take milliseconds. The safety checker does not count: without it the lineage is the same.
    """
    folder = locate(source)
    index = _read_json(folder / "model_index.json", source)
    digest = hashlib.sha256()
    for component in _components_of_images(index, source):
        digest.update(f"{component}\0{json.dumps(index.get(component))}\0".encode())
        for path in _texts(folder / component):
            _update_digest(digest, f"{component}/{path.name}", path.read_bytes())
        for path in _weights(folder, component, _parts(index).get(component), source):
            _update_digest(digest, f"{component}/{path.name}\0{path.stat().st_size}", _edges(path))
    return digest.hexdigest()


def resolve_sampling(source: str, settings: RenderSettings) -> Sampling:
    """The number of steps and the guidance of this model's images: from the settings, else the model's defaults.

    Those are in its own `sampling.json` or, without one, its family's custom. Raises like `locate`.
    """
    usual = _default_sampling(source)
    return Sampling(
        num_steps=usual.num_steps if settings.num_steps is None else settings.num_steps,
        guidance=usual.guidance if settings.guidance is None else settings.guidance,
    )


def _default_sampling(source: str) -> Sampling:
    folder = locate(source)
    own = folder / SAMPLING_FILE
    if own.is_file():
        try:
            fields = _read_json(own, source)
            return Sampling(num_steps=int(fields["num_steps"]), guidance=float(fields["guidance"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ModelUnavailableError(f"{own} must hold num_steps and guidance as numbers ({error!r})") from error
    entry = _entry_in(_read_json(folder / "model_index.json", source), source)
    if entry.unguided_sampling is None:
        return entry.default_sampling
    config = _read_json(folder / entry.component / "config.json", source)
    return entry.default_sampling if config.get("guidance_embeds") else entry.unguided_sampling


def _parts(index: dict[str, Any]) -> dict[str, str | None]:
    """The parts that a `model_index.json` names, each with its weights' file without ending; None has no weights.

    `[null, null]` means that a part is left out.
    """
    parts: dict[str, str | None] = {}
    for name, entry in index.items():
        if isinstance(entry, list) and len(entry) == 2 and None not in entry:
            parts[name] = None if name.startswith(_WITHOUT_WEIGHTS) else _WEIGHTS.get(entry[0])
    return parts


def _components_of_images(index: dict[str, Any], source: str) -> list[str]:
    """The parts that an image depends on, in a fixed order; a safety checker is none."""
    parts = _parts(index)
    encoders = sorted({"text_encoder", *(name for name in parts if name.startswith("text_encoder"))})
    tokenizers = sorted({"tokenizer", *(name for name in parts if name.startswith("tokenizer"))})
    return [_entry_in(index, source).component, "vae", *encoders, *tokenizers, "scheduler"]


def _entry_in(index: dict[str, Any], source: str) -> FamilyEntry:
    name = index.get("_class_name")
    if not isinstance(name, str) or name not in FAMILIES:
        raise UnknownFamilyError(
            f"{source} is a {name}, which is not supported; supported are {', '.join(FAMILIES)}, "
            "for example stable-diffusion-v1-5/stable-diffusion-v1-5. Set DMPO_BASE_MODEL to such a model."
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
    raise ModelUnavailableError(
        f"the base model {source} {what}; set DMPO_BASE_MODEL to a folder written by save_pretrained or to a hub id"
    )


def _read_json(path: Path, source: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelUnavailableError(
            f"{source} holds no {path.name}; a folder in the diffusers format is needed "
            "(single-file checkpoints can be converted: StableDiffusionPipeline.from_single_file(...).save_pretrained)"
        ) from error
    except (OSError, ValueError) as error:
        raise ModelUnavailableError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise ModelUnavailableError(f"{path} is not a JSON object; is the model complete?")
    return value


def _check_complete(folder: Path, source: str) -> None:
    """Check that every part that `from_pretrained` will read is there, weights as safetensors.

    Raises ModelUnavailableError.
    """
    index = _read_json(folder / "model_index.json", source)
    parts = _parts(index)
    for component in dict.fromkeys((_entry_in(index, source).component, *_NEEDED, *parts)):
        if not (folder / component).is_dir():
            raise ModelUnavailableError(f"{source} is incomplete: it has no {component} folder")
        _weights(folder, component, parts.get(component), source)


def _weights(folder: Path, component: str, stem: str | None, source: str) -> list[Path]:
    """The safetensors files that from_pretrained reads, sorted by name; empty for parts without weights."""
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
            raise ModelUnavailableError(f"{source} is incomplete: {component} lacks {absent[0]}")
        return paths
    pickle_files = sorted(
        path.name for path in (folder / component).glob("*") if path.suffix in {".bin", ".pt", ".ckpt"}
    )
    if pickle_files:
        raise ModelUnavailableError(
            f"{source} holds {component}/{pickle_files[0]}, a pickle file that could run code when it is loaded, and "
            f"no {single.name}; convert it once where you trust it: "
            "DiffusionPipeline.from_pretrained(...).save_pretrained(folder, safe_serialization=True)"
        )
    raise ModelUnavailableError(f"{source} is incomplete: {component}/{single.name} is missing")


def _texts(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix in {".json", ".txt", ".model"} and not path.name.endswith(".safetensors.index.json")
    )


def _update_digest(digest: Any, name: str, content: bytes) -> None:
    digest.update(f"{name}\0{len(content)}\0".encode())
    digest.update(content)


def _edges(path: Path) -> bytes:
    size = path.stat().st_size
    with path.open("rb") as file:
        first = file.read(_EDGE_BYTES)
        file.seek(max(len(first), size - _EDGE_BYTES))
        return first + file.read(_EDGE_BYTES)
