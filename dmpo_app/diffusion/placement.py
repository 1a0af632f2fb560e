"""Placement of a model's weights: the device they go to, and 4 or 8 bits.

nf4 is bitsandbytes' 4-bit NormalFloat (Dettmers et al. 2023, arXiv 2305.14314); int8 is torchao's weight-only format
or, where torchao is not installed, bitsandbytes' (Dettmers et al. 2022, arXiv 2208.07339). Neither is a dependency.
"""

from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

import torch
from packaging.version import Version

from dmpo_app.errors import SetupError


def resolve_device(name: str) -> torch.device:
    """The torch device of a setting; `auto` is cuda, then mps, then cpu.

    Raises SetupError for a device this machine or this torch lacks.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch built without CUDA asserts
        raise SetupError(f"the device {name!r} cannot be used: {error}; set DMPO_RENDER__DEVICE=auto") from error
    return device


Quantize = Literal["none", "nf4", "int8"]
_MIN_VERSIONS = {"bitsandbytes": Version("0.48"), "torchao": Version("0.15")}


def quantization_config(quantize: Quantize, device: torch.device, dtype: torch.dtype) -> Any | None:
    """The `quantization_config` for `from_pretrained`; None for "none".

    Raises SetupError when the library is not installed, too old, or does not serve the device.
    """
    if quantize == "none":
        return None
    if quantize == "int8" and _is_installed("torchao"):
        from diffusers import TorchAoConfig
        from torchao.quantization import Int8WeightOnlyConfig

        return TorchAoConfig(Int8WeightOnlyConfig())
    if device.type != "cuda":
        other = "; int8 with torchao runs elsewhere too (`pip install torchao`)" if quantize == "int8" else ""
        raise SetupError(
            f"a base model in {quantize} needs bitsandbytes and a CUDA GPU, and the device is {device}{other}. "
            "Set DMPO_RENDER__QUANTIZE=none or another DMPO_RENDER__DEVICE"
        )
    if not _is_installed("bitsandbytes"):
        package_names = "bitsandbytes" if quantize == "nf4" else "torchao or bitsandbytes"
        raise SetupError(
            f"DMPO_RENDER__QUANTIZE={quantize} needs {package_names}, which is not installed or older than "
            f"{_MIN_VERSIONS['bitsandbytes']}: `pip install -U bitsandbytes`, or set DMPO_RENDER__QUANTIZE=none"
        )
    from diffusers import BitsAndBytesConfig

    if quantize == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


def precision_name(dtype: torch.dtype, quantize: Quantize) -> str:
    """The name of a denoiser's dtype and, if quantised, of the weights' format: `float32`, `bfloat16+nf4`."""
    name = str(dtype).removeprefix("torch.")
    return name if quantize == "none" else f"{name}+{quantize}"


def _is_installed(package: str) -> bool:
    """True when a recent enough version of the package is installed."""
    try:
        return Version(version(package)) >= _MIN_VERSIONS[package]
    except PackageNotFoundError:
        return False
