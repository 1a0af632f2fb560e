from collections.abc import Callable

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from dmpo_app.diffusion import lora
from dmpo_app.diffusion.fused_lora import fuse, is_fusible, reference_mode
from dmpo_app.diffusion.lora import LoraSpec
from tests.adapters import SPEC, random_adapter

HALF_SCALE = LoraSpec(SPEC.rank, SPEC.lora_alpha / 2, SPEC.target_modules)


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    latents = torch.randn(3, 4, 8, 8, generator=generator)
    return latents, torch.tensor([300] * 3), torch.randn(3, 16, 16, generator=generator)


def predict(unet: UNet2DConditionModel) -> Tensor:
    with torch.no_grad():
        prediction: Tensor = unet(*inputs()).sample
    return prediction


def gradients(unet: UNet2DConditionModel, dtype: torch.dtype | None = None) -> tuple[Tensor, dict[str, Tensor]]:
    """Prediction and the gradient of its mean square in every tensor of the adapter."""
    with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
        prediction = unet(*inputs()).sample
    parameters = lora.lora_parameters(unet, "unet")
    grads = torch.autograd.grad(prediction.float().square().mean(), list(parameters.values()))
    return prediction.detach(), dict(zip(parameters, grads, strict=True))


def distance(grads: dict[str, Tensor], others: dict[str, Tensor]) -> float:
    return float(torch.stack([(grad - others[key]).norm() for key, grad in grads.items()]).norm())


def load(unet: UNet2DConditionModel, spec: LoraSpec) -> None:
    lora.load_state_in_place(lora.attach(unet, spec, seed=0), random_adapter(unet, 3, spec).tensors)


@pytest.mark.parametrize("spec", [SPEC, HALF_SCALE])
def test_prediction_and_gradients_are_those_of_peft(unet: UNet2DConditionModel, spec: LoraSpec) -> None:
    load(unet, spec)
    expected, expected_grads = gradients(unet)
    fuse(unet)
    prediction, grads = gradients(unet)
    torch.testing.assert_close(prediction, expected, rtol=1e-4, atol=1e-5)
    for key, grad in grads.items():
        scale = float(expected_grads[key].abs().max())
        assert scale > 0
        torch.testing.assert_close(grad, expected_grads[key], rtol=1e-3, atol=1e-4 * scale)


def test_in_mixed_precision_gradients_are_float32_and_no_further_off_than_those_of_peft(
    unet: UNet2DConditionModel,
) -> None:
    load(unet, SPEC)
    _, exact = gradients(unet)
    _, of_peft = gradients(unet, torch.bfloat16)
    fuse(unet)
    prediction, grads = gradients(unet, torch.bfloat16)
    assert prediction.dtype == torch.bfloat16
    assert {grad.dtype for grad in grads.values()} == {torch.float32}
    assert 0 < distance(grads, exact) < 1.25 * distance(of_peft, exact)


def test_a_fresh_adapter_changes_no_bit_and_neither_does_one_that_is_switched_off(unet: UNet2DConditionModel) -> None:
    lora.attach(unet, SPEC, seed=1)
    with reference_mode(unet):
        before = predict(unet)
    fuse(unet)
    assert torch.equal(predict(unet), before)
    load(unet, SPEC)
    fuse(unet)
    assert not torch.equal(predict(unet), before)
    with reference_mode(unet):
        assert torch.equal(predict(unet), before)


def test_nothing_is_left_of_it_when_the_adapter_is_detached(unet: UNet2DConditionModel) -> None:
    before = predict(unet)
    load(unet, SPEC)
    fuse(unet)
    lora.detach(unet)
    assert torch.equal(predict(unet), before)
    assert not [name for name, module in unet.named_modules() if "forward" in vars(module)]


@pytest.mark.parametrize(
    "layer",
    [
        lambda: nn.Conv2d(6, 4, 3, padding=1, groups=2),
        lambda: nn.Conv2d(6, 4, 3, padding=2, dilation=2),
        lambda: nn.Conv2d(6, 4, 3, padding=1, padding_mode="circular"),
        lambda: nn.Conv2d(6, 4, 3, padding="same"),
    ],
)
def test_unusual_layers_stay_as_peft_has_them(layer: Callable[[], nn.Conv2d]) -> None:
    assert not is_fusible(layer())
    assert is_fusible(nn.Conv2d(6, 4, 3, padding=1, stride=2))
