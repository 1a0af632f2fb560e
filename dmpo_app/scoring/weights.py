"""Location and identity of the files of a scorer's weights. Plain files only: no torch.

A source is a safetensors file, a folder, or a hub id. Pickle files are never read: they could run code. Messages give
the command that converts one, for somebody who trusts it.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from dmpo_app.diffusion.hub import cached_snapshot, fetch_files
from dmpo_app.errors import ModelUnavailableError

LAION_CLIP_H = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
OPENAI_CLIP_L = "openai/clip-vit-large-patch14"
BERT = "google-bert/bert-base-uncased"


def _command(published: str, target: str, part: str = "") -> str:
    """The command that converts a published pickle.

    Tensors are cloned, because safetensors refuses two names for the same memory. `weights_only` makes torch refuse a
    pickle that does more than hold tensors.
    """
    return (
        'python -c "import torch; from safetensors.torch import save_file; '
        f"found = torch.load('{published}', map_location='cpu', weights_only=True){part}; "
        f"save_file({{name: value.contiguous().clone() for name, value in found.items()}}, '{target}')\""
    )


HPSV2 = _command("HPS_v2.1_compressed.pt", "hpsv2.1.safetensors", "['state_dict']")
AESTHETIC = _command("sac+logos+ava1-l14-linearMSE.pth", "sac+logos+ava1-l14-linearMSE.safetensors")
IMAGEREWARD = _command("ImageReward.pt", "ImageReward.safetensors")
CLIP_FOLDER = (
    "python -c \"from transformers import CLIPModel; CLIPModel.from_pretrained('SOURCE').save_pretrained('FOLDER')\""
)


_SETTING = "the scorer's source"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
_MODEL = ("config.json", "preprocessor_config.json", "model.safetensors*", "model-*.safetensors")
_VOCABULARY = ("tokenizer.json", "vocab.json", "merges.txt", "vocab.txt")
_TOKENIZER = (*_VOCABULARY, "tokenizer_config.json", "special_tokens_map.json")
_CLIP_VOCABULARIES = (("tokenizer.json",), ("vocab.json", "merges.txt"))
_BERT_VOCABULARIES = (("tokenizer.json",), ("vocab.txt",))
_PICKLE_SUFFIXES = {".bin", ".pt", ".pth", ".ckpt", ".pkl"}


def find_model_folder(source: str) -> Path:
    """Find a folder in the layout of `save_pretrained` with safetensors weights; a hub id is downloaded first.

    Raises ModelUnavailableError when there is none, or when it is incomplete or holds pickle files only.
    """
    folder = _find(source, (*_MODEL, *_TOKENIZER), is_complete=_has_model)
    if not folder.is_dir():
        raise ModelUnavailableError(f"{source} is a single file; a folder with its config.json or a hub id is needed")
    model_files(folder, source)
    return folder


def model_files(folder: Path, source: str) -> list[Path]:
    """`config.json` and the safetensors files of the model in `folder`, whole or in shards.

    Raises ModelUnavailableError.
    """
    config = folder / "config.json"
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if not config.is_file():
        raise ModelUnavailableError(
            f"{source} holds no config.json; a model in the layout of save_pretrained is needed"
        )
    if single.is_file():
        return [config, single]
    if index.is_file():
        shards = [folder / Path(str(name)).name for name in sorted(set(read_json(index)["weight_map"].values()))]
        absent = [shard.name for shard in shards if not shard.is_file()]
        if absent:
            raise ModelUnavailableError(f"{source} is incomplete: it lacks {absent[0]}")
        return [config, *shards]
    raise ModelUnavailableError(
        f"{source} holds no model.safetensors. If it has a pickle file instead (pytorch_model.bin), convert it once "
        f"where you trust it: {CLIP_FOLDER}"
    )


def find_weights_file(source: str, *, conversion: str, besides: Sequence[str] = ()) -> Path:
    """Find the safetensors file that `source` is, or the only one in that folder or hub repository.

    `besides` are names that do not count. `conversion` is the command that makes such a file out of what is published.
    Raises ModelUnavailableError.
    """

    def candidates(folder: Path) -> list[Path]:
        return sorted(path for path in folder.glob("*.safetensors") if path.name not in besides)

    where = _find(
        source,
        ("*.safetensors", "*.json", *_TOKENIZER),
        is_complete=lambda folder: bool(candidates(folder)),
        conversion=conversion,
    )
    if where.is_file():
        return where
    weight_files = candidates(where)
    if not weight_files:
        raise ModelUnavailableError(
            f"{source} holds no safetensors file with the weights. Pickle files are not read; convert the published "
            f"one once where you trust it: {conversion}"
        )
    if len(weight_files) > 1:
        names = ", ".join(path.name for path in weight_files)
        raise ModelUnavailableError(f"{source} holds several safetensors files ({names}); name the one to use")
    return weight_files[0]


def clip_tokenizer_folder(folder: Path, *, otherwise: str | None) -> Path:
    """The folder with the tokenizer: `folder`, or the hub repository `otherwise`. Raises ModelUnavailableError."""
    return _tokenizer_folder(folder, _CLIP_VOCABULARIES, otherwise)


def bert_tokenizer_folder(folder: Path) -> Path:
    """The folder with BERT's vocabulary: `folder`, or google-bert/bert-base-uncased. Raises ModelUnavailableError."""
    return _tokenizer_folder(folder, _BERT_VOCABULARIES, BERT)


def tokenizer_files(folder: Path) -> list[Path]:
    """The tokenizer's files in a folder, which decide how a prompt is cut into tokens."""
    return [folder / name for name in _TOKENIZER if (folder / name).is_file()]


def identify(name: str, code_version: int, files: Iterable[Path]) -> str:
    """Compute an identity that changes with the code's version and with any byte of the files (their sha256, in order).

    Where the files are and what they are called does not count. Gigabytes take seconds; that is once a process.
    """
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return f"{name}/{code_version}/{digest.hexdigest()}"


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises ModelUnavailableError for any other file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelUnavailableError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise ModelUnavailableError(f"{path} is not a JSON object; is the download complete?")
    return value


def _find(
    source: str, patterns: Sequence[str], *, is_complete: Callable[[Path], bool], conversion: str | None = None
) -> Path:
    """Resolve a source to its file or folder; a hub repository comes from the cache where that is complete."""
    path = Path(source).expanduser()
    if path.is_dir() or (path.is_file() and path.suffix == ".safetensors"):
        return path.resolve()
    if path.is_file():
        what = (
            "a pickle file that could run code when it is loaded"
            if path.suffix in _PICKLE_SUFFIXES
            else "not safetensors"
        )
        advice = f"; convert it once where you trust it: {conversion}" if conversion else ""
        raise ModelUnavailableError(f"{source} is {what}, and only safetensors files are read{advice}")
    if not _HUB_ID.fullmatch(source) or ".." in source or path.suffix in {*_PICKLE_SUFFIXES, ".safetensors"}:
        raise ModelUnavailableError(f"{source} does not exist; set {_SETTING} to a file, a folder or a hub id")
    return _hub_folder(source, patterns, is_complete)


def _hub_folder(repo_id: str, patterns: Sequence[str], is_complete: Callable[[Path], bool]) -> Path:
    cached = cached_snapshot(repo_id, setting=_SETTING)
    if cached is not None and is_complete(cached):
        return cached
    return fetch_files(repo_id, patterns, setting=_SETTING)


def _has_model(folder: Path) -> bool:
    try:
        model_files(folder, str(folder))
    except ModelUnavailableError:  # an interrupted download, or only parts were asked for before; the rest is fetched
        return False
    return True


def _tokenizer_folder(folder: Path, vocabularies: tuple[tuple[str, ...], ...], otherwise: str | None) -> Path:
    def has_vocabulary(where: Path) -> bool:
        return any(all((where / name).is_file() for name in names) for names in vocabularies)

    if has_vocabulary(folder):
        return folder
    hub_folder = None if otherwise is None else _hub_folder(otherwise, _TOKENIZER, has_vocabulary)
    if hub_folder is None or not has_vocabulary(hub_folder):
        expected_files = " or ".join(" and ".join(names) for names in vocabularies)
        raise ModelUnavailableError(
            f"{otherwise or folder} holds no tokenizer ({expected_files}); put its files beside the weights"
        )
    return hub_folder
