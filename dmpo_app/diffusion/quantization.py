"""A denoiser in fewer bits, for base models that do not fit otherwise. The adapter on top stays as it is.

nf4 is bitsandbytes' 4-bit NormalFloat (Dettmers et al. 2023, arXiv 2305.14314); int8 is torchao's weight-only format
or, where torchao is not installed, bitsandbytes' (Dettmers et al. 2022, arXiv 2208.07339). Neither is a dependency.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

import torch
from packaging.version import Version

from dmpo_app.errors import SetupProblem

Quantize = Literal["none", "nf4", "int8"]
_OLDEST = {"bitsandbytes": Version("0.48"), "torchao": Version("0.15")}


def quantization_config(quantize: Quantize, device: torch.device, dtype: torch.dtype) -> Any | None:
    """What `from_pretrained` takes as `quantization_config`; None for "none".

    Raises SetupProblem when the library is not installed, too old, or does not serve the device.
    """
    if quantize == "none":
        return None
    if quantize == "int8" and _installed("torchao"):
        from diffusers import TorchAoConfig
        from torchao.quantization import Int8WeightOnlyConfig

        return TorchAoConfig(Int8WeightOnlyConfig())
    if device.type != "cuda":
        other = "; int8 with torchao runs elsewhere too (`pip install torchao`)" if quantize == "int8" else ""
        raise SetupProblem(
            f"a base model in {quantize} needs bitsandbytes and a CUDA GPU, and the device is {device}{other}. "
            "Set DMPO_RENDER__QUANTIZE=none or another DMPO_RENDER__DEVICE"
        )
    if not _installed("bitsandbytes"):
        wanted = "bitsandbytes" if quantize == "nf4" else "torchao or bitsandbytes"
        raise SetupProblem(
            f"DMPO_RENDER__QUANTIZE={quantize} needs {wanted}, which is not installed or older than "
            f"{_OLDEST['bitsandbytes']}: `pip install -U bitsandbytes`, or set DMPO_RENDER__QUANTIZE=none"
        )
    from diffusers import BitsAndBytesConfig

    if quantize == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


def precision_name(dtype: torch.dtype, quantize: Quantize) -> str:
    """`float32`, `bfloat16+nf4`: what a denoiser computes in and, where its weights are smaller, in which format."""
    name = str(dtype).removeprefix("torch.")
    return name if quantize == "none" else f"{name}+{quantize}"


def _installed(package: str) -> bool:
    """Whether a recent enough version of it is there."""
    try:
        return Version(version(package)) >= _OLDEST[package]
    except PackageNotFoundError:
        return False
