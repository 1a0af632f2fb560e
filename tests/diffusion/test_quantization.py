from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from dmpo_app.diffusion.live_model import LiveModel, Shot
from dmpo_app.diffusion.loading import load_denoiser, load_pipeline
from dmpo_app.diffusion.lora import LoraSpec, attach
from dmpo_app.diffusion.placement import quantization_config
from dmpo_app.errors import SetupError
from dmpo_app.settings import RenderSettings
from tests.adapters import random_adapter
from tests.tiny_models.cases import Case

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_without_it_nothing_is_asked_of_any_library() -> None:
    assert quantization_config("none", CPU, torch.float32) is None


def test_four_bits_without_a_gpu_are_refused_before_anything_is_loaded(tiny_model: Path) -> None:
    for load in (load_pipeline, load_denoiser):
        with pytest.raises(SetupError, match=r"nf4 needs bitsandbytes and a CUDA GPU.*cpu.*QUANTIZE=none"):
            load(str(tiny_model), device="cpu", quantize="nf4")


@pytest.mark.skipif(find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed here")
def test_a_library_that_is_not_installed_is_named_with_the_way_to_get_it() -> None:
    with pytest.raises(SetupError, match=r"pip install -U bitsandbytes"):
        quantization_config("nf4", CUDA, torch.bfloat16)


@pytest.mark.skipif(find_spec("torchao") is not None, reason="torchao is installed here")
def test_eight_bits_on_a_cpu_point_to_the_library_that_can() -> None:
    with pytest.raises(SetupError, match=r"pip install torchao"):
        quantization_config("int8", CPU, torch.float32)


@pytest.mark.skipif(find_spec("torchao") is None, reason="torchao is not installed")
def test_eight_bits_render_and_train_beside_an_adapter_in_full_precision(case: Case, folder: Path) -> None:
    settings = RenderSettings(num_steps=2, resolution=case.resolution, device="cpu", dtype="float32", quantize="int8")
    denoiser = load_denoiser(str(folder), device="cpu", dtype="float32", quantize="int8")
    family = denoiser.family
    spec = LoraSpec(4, 6.0, family.targets["attention"], family.component)
    model = LiveModel.load(str(folder), settings, spec)
    model.swap(1, random_adapter(model._denoiser, 1, spec))
    base, adapted = model.render([Shot("a red fox", 1, 0), Shot("a red fox", 1, 1)])
    assert not torch.equal(base.latents, adapted.latents)
    assert base.provenance.dtype == denoiser.precision == "float32+int8"
    parameters = attach(denoiser.module, spec, seed=0)
    conditioning = {name: torch.randn(2, *shape) for name, shape in case.conditioning.items()}
    prediction = denoiser.predict(torch.randn(2, *case.latent_shape), torch.tensor([10, 500]), conditioning)
    prediction.square().mean().backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None for parameter in parameters.values())
