"""Adapters in the file formats of other programs, and merged into the weights of a pipeline."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path
from typing import Literal

import torch
from diffusers.utils.state_dict_utils import convert_state_dict_to_kohya
from safetensors.torch import save

from dmpo_app.diffusion.adapter_files import WEIGHTS_FILE, parse_adapter, read_adapter
from dmpo_app.diffusion.loading import load_pipeline
from dmpo_app.errors import BadInputError, SetupError
from dmpo_app.io import full_disk_reported, make_folder, publish_folder

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
