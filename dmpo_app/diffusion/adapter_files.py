"""Adapters on disk: immutable folders that plain diffusers loads, files for other programs, merged pipelines.

    <version, 5 digits>-<first 8 of the weights' sha256>/
        pytorch_lora_weights.safetensors    the tensors; rank, lora_alpha and targets in its metadata
        manifest.json                       written last: hash, spec, library versions and what the caller adds

A folder is staged under another name, every file and the folder itself are fsynced, then it is renamed: whoever sees it
sees all of it. Reading goes the other way round: hash, format, names and finiteness are checked on a copy on the
CPU before anything live is touched, because safetensors itself loads flipped bits and NaN without a word.
"""

import json
import platform
import shutil
import struct
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version as library_version
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers.utils.state_dict_utils import convert_state_dict_to_kohya
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from dmpo_app.diffusion.loading import load_pipeline
from dmpo_app.diffusion.lora import LoraSpec
from dmpo_app.errors import AdapterCorruptError, AdapterMismatchError, BadInputError, SetupError
from dmpo_app.io.files import full_disk_reported, make_folder, publish_folder, sha256_hex

WEIGHTS_FILE = "pytorch_lora_weights.safetensors"
MANIFEST_FILE = "manifest.json"
_METADATA_KEY = "lora_adapter_metadata"
_STAGING_PREFIX = ".staging-"
_FLOATS = (torch.float32, torch.float16, torch.bfloat16)
_LIBRARIES = ("torch", "diffusers", "transformers", "peft", "safetensors")


@dataclass(frozen=True, slots=True)
class AdapterWeights:
    """A checked adapter on the CPU: float tensors by file key, all finite."""

    spec: LoraSpec
    tensors: Mapping[str, Tensor]

    @property
    def num_bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors.values())


@dataclass(frozen=True, slots=True)
class StagedAdapter:
    """A folder on disk that no database knows yet. `sha256` is of the weights file."""

    folder_name: str
    sha256: str


def write_adapter(
    root: Path, version: int, tensors: Mapping[str, Tensor], spec: LoraSpec, manifest: Mapping[str, Any]
) -> StagedAdapter:
    """Write an adapter below `root` and return its folder's name and its hash; durable on return.

    `tensors` by file key (`lora.lora_state`); stored as float32. `manifest` is what the caller wants recorded: parent,
    configuration, seed, votes. Writing the same tensors as the same version again finds the folder there and leaves it
    alone, so a publisher killed in between can simply start over. Raises AdapterCorruptError for values that are not
    finite: such an adapter is not written at all; StorageFullError.
    """
    data = _serialize(tensors, spec)
    digest = sha256_hex(data)
    folder = root / f"{version:05d}-{digest[:8]}"
    if folder.is_dir():
        read_adapter(folder, digest)
        return StagedAdapter(folder.name, digest)
    text = json.dumps(_manifest(version, digest, spec, manifest), indent=2, sort_keys=True, default=str)
    staging = root / f"{_STAGING_PREFIX}{uuid.uuid4().hex}"
    try:
        with full_disk_reported(folder):
            make_folder(root)
            staging.mkdir()
            (staging / WEIGHTS_FILE).write_bytes(data)
            (staging / MANIFEST_FILE).write_bytes(text.encode())
            publish_folder(staging, folder)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return StagedAdapter(folder.name, digest)


def read_adapter(folder: Path, sha256: str) -> AdapterWeights:
    """Read and check an adapter; nothing but a copy on the CPU is made.

    Raises AdapterCorruptError for a missing or unreadable file, another hash, another format (only safetensors is ever
    parsed, whatever the file is called), tensors that are not LoRA floats, or values that are not finite. Whether the
    shapes fit a model is checked against that model (`lora.expected_shapes`, `lora.check_fit`).
    """
    path = folder / WEIGHTS_FILE
    try:
        data = path.read_bytes()
    except OSError as error:
        raise AdapterCorruptError(f"adapter {folder.name}: {WEIGHTS_FILE} cannot be read: {error}") from error
    actual_sha256 = sha256_hex(data)
    if actual_sha256 != sha256:
        raise AdapterCorruptError(
            f"adapter {folder.name}: {WEIGHTS_FILE} has sha256 {actual_sha256[:12]}..., recorded was {sha256[:12]}...; "
            "the file was truncated or changed after it was published"
        )
    return parse_adapter(data, folder.name)


def parse_adapter(data: bytes, name: str) -> AdapterWeights:
    """Parse and check the bytes of a weights file: all of `read_adapter` but the hash; `name` is for messages."""
    try:
        tensors: dict[str, Tensor] = load(data)
        metadata = _metadata(data)
    except (SafetensorError, ValueError, KeyError, struct.error) as error:
        raise AdapterCorruptError(f"adapter {name}: {WEIGHTS_FILE} is no valid safetensors file: {error}") from error
    text = metadata.get(_METADATA_KEY)
    if not isinstance(text, str):
        raise AdapterCorruptError(f"adapter {name}: rank and lora_alpha are missing from the file's metadata")
    try:
        spec = LoraSpec.from_metadata(text)
    except AdapterMismatchError as error:
        raise AdapterCorruptError(f"adapter {name}: {error}") from error
    _check_values(tensors, spec, name)
    return AdapterWeights(spec=spec, tensors=tensors)


def remove_staging_folders(root: Path) -> int:
    """Delete staging folders of publishers that died; return how many. Only the holder of the lease may call this."""
    leftovers = [path for path in root.glob(f"{_STAGING_PREFIX}*") if path.is_dir()]
    for path in leftovers:
        shutil.rmtree(path, ignore_errors=True)
    return len(leftovers)


def _serialize(tensors: Mapping[str, Tensor], spec: LoraSpec) -> bytes:
    on_cpu = {key: tensors[key].detach().to("cpu", torch.float32).contiguous() for key in sorted(tensors)}
    _check_values(on_cpu, spec, "to be published")
    # One metadata entry only: the order of several is not fixed, and the same tensors must give the same bytes.
    data: bytes = save(on_cpu, metadata={_METADATA_KEY: spec.to_metadata()})
    return data


def _check_values(tensors: Mapping[str, Tensor], spec: LoraSpec, name: str) -> None:
    if not tensors:
        raise AdapterCorruptError(f"adapter {name}: the file holds no tensors")
    for key, tensor in tensors.items():
        is_lora = key.startswith(f"{spec.component}.") and key.endswith((".lora_A.weight", ".lora_B.weight"))
        if not is_lora or tensor.dtype not in _FLOATS:
            raise AdapterCorruptError(f"adapter {name}: {key} ({tensor.dtype}) is not a LoRA tensor of the denoiser")
        if not bool(torch.isfinite(tensor).all()):
            raise AdapterCorruptError(f"adapter {name}: {key} holds values that are not finite; the training diverged")


def _metadata(data: bytes) -> dict[str, Any]:
    """The metadata of a safetensors file: 8 bytes of length, little endian, then a JSON header."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    metadata = header.get("__metadata__", {})
    return metadata if isinstance(metadata, dict) else {}


def _manifest(version: int, digest: str, spec: LoraSpec, fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **fields,
        "format": 1,
        "version": version,
        "weights_file": WEIGHTS_FILE,
        "weights_sha256": digest,
        "spec": asdict(spec),
        "libraries": {name: library_version(name) for name in _LIBRARIES} | {"python": platform.python_version()},
    }


AdapterFormat = Literal["diffusers", "kohya"]


def export_adapter(folder: Path, file_format: AdapterFormat) -> bytes:
    """Convert the weights file of an adapter's folder to another format.

    diffusers: as it is; for `load_lora_weights`, and for ComfyUI in the families with a transformer. kohya: the naming
    of sd-scripts (`lora_unet_..._to_q.lora_down.weight`), which Automatic1111, Forge, ComfyUI and InvokeAI read; from
    diffusers there is a way to it for denoisers that are a UNet. Raises BadInputError for others, AdapterCorruptError
    for a damaged file.
    """
    data = (folder / WEIGHTS_FILE).read_bytes()
    adapter = parse_adapter(data, folder.name)
    if file_format == "diffusers":
        return data
    spec = adapter.spec
    if spec.component != "unet":
        raise BadInputError(
            f"diffusers cannot convert an adapter of a {spec.component} (Stable Diffusion 3, Flux) to kohya's naming; "
            "use --format diffusers, which ComfyUI and diffusers read"
        )
    converted = convert_state_dict_to_kohya(dict(adapter.tensors))
    # The converter writes the rank where lora_alpha belongs, which would change the adapter's strength.
    alphas = {key: torch.tensor(spec.lora_alpha) for key in converted if key.endswith(".alpha")}
    tensors = {key: tensor.contiguous() for key, tensor in (converted | alphas).items()}
    metadata = {"ss_network_dim": str(spec.rank), "ss_network_alpha": str(spec.lora_alpha)}
    result: bytes = save(tensors, metadata=metadata)
    return result


def merge_adapter(source: str, adapter: Path, sha256: str, target: Path, *, strength: float = 1.0) -> None:
    """Write a base model with an adapter merged into its weights, as a folder for `from_pretrained`.

    Merged in float32 by diffusers' own means. `strength`: how much of the adapter, 0 to 1.5. The folder appears whole
    or not at all. Raises BadInputError for a folder that is there, ModelUnavailableError, AdapterCorruptError,
    SetupError, StorageFullError.
    """
    if target.exists():
        raise BadInputError(f"{target} is there already; name a folder that is not")
    read_adapter(adapter, sha256)
    pipeline = load_pipeline(source, device="cpu", dtype="float32")
    pipeline.load_lora_weights(adapter, weight_name=WEIGHTS_FILE, adapter_name="dmpo")
    pipeline.fuse_lora(lora_scale=strength, safe_fusing=True)
    pipeline.unload_lora_weights()
    staging = target.with_name(f".{target.name}-{uuid.uuid4().hex[:8]}")
    try:
        with full_disk_reported(target):
            make_folder(target.parent)
            pipeline.save_pretrained(staging, safe_serialization=True)
            publish_folder(staging, target)
    except OSError as error:
        raise SetupError(f"{target} could not be written: {error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
