"""A base model with an adapter merged into its weights: a whole pipeline that knows nothing of adapters."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

from dmpo_app.diffusion.adapter_files import WEIGHTS_FILE, read_adapter
from dmpo_app.diffusion.loading import load_pipeline
from dmpo_app.errors import BadInput, SetupProblem


def merge_adapter(source: str, adapter: Path, sha256: str, target: Path, *, strength: float = 1.0) -> None:
    """Write the pipeline of a base model with an adapter's weights added, as a folder for `from_pretrained`.

    Merged in float32 by diffusers' own means. `strength`: how much of the adapter, 0 to 1.5. The folder appears whole
    or not at all. Raises BadInput for a folder that is there, ModelUnavailable, AdapterCorrupt, SetupProblem.
    """
    if target.exists():
        raise BadInput(f"{target} is there already; name a folder that is not")
    read_adapter(adapter, sha256)
    pipeline = load_pipeline(source, device="cpu", dtype="float32")
    pipeline.load_lora_weights(adapter, weight_name=WEIGHTS_FILE, adapter_name="dmpo")
    pipeline.fuse_lora(lora_scale=strength, safe_fusing=True)
    pipeline.unload_lora_weights()
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.with_name(f".{target.name}-{uuid.uuid4().hex[:8]}")
    try:
        pipeline.save_pretrained(staging, safe_serialization=True)
        staging.rename(target)
    except OSError as error:
        raise SetupProblem(f"{target} could not be written: {error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
