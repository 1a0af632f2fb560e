import pytest
import torch
from diffusers import UNet2DConditionModel
from peft.utils import get_peft_model_state_dict
from torch import Tensor

from dmpo_app.diffusion import lora
from dmpo_app.diffusion.families.components import UNET_ATTENTION as ATTENTION_LAYERS
from dmpo_app.diffusion.families.components import UNET_WIDE
from dmpo_app.diffusion.fused_lora import ADAPTER_NAME, reference_mode
from dmpo_app.diffusion.lora import LoraSpec
from dmpo_app.errors import AdapterCorruptError, AdapterMismatchError
from tests.adapters import SPEC, random_adapter
from tests.tiny_pipeline import tiny_unet
from tests.tolerance import assert_latents_agree

UNET_ATTENTION = LoraSpec(rank=2, lora_alpha=2.0, target_modules=ATTENTION_LAYERS)


def predict(unet: UNet2DConditionModel, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    latents = torch.randn(batch, 4, 8, 8, generator=generator)
    embeds = torch.randn(batch, 16, 16, generator=generator)
    with torch.no_grad():
        prediction: Tensor = unet(latents, torch.tensor([300] * batch), embeds).sample
    return prediction


def load(unet: UNet2DConditionModel, seed: int, spec: LoraSpec = SPEC) -> None:
    parameters = lora.attach(unet, spec, seed=0)
    lora.load_state_in_place(parameters, random_adapter(unet, seed, spec).tensors)


@pytest.mark.parametrize("spec", [SPEC, UNET_ATTENTION])
def test_a_fresh_adapter_changes_nothing(unet: UNet2DConditionModel, spec: LoraSpec) -> None:
    before = predict(unet)
    lora.attach(unet, spec, seed=1)
    assert torch.equal(predict(unet), before)


def test_only_the_adapter_is_trainable_and_in_float32(unet: UNet2DConditionModel) -> None:
    unet.to(torch.bfloat16)
    parameters = lora.attach(unet, SPEC, seed=1)
    trainable = {id(parameter) for parameter in unet.parameters() if parameter.requires_grad}
    assert trainable == {id(parameter) for parameter in parameters.values()}
    assert {parameter.dtype for parameter in parameters.values()} == {torch.float32}


def test_the_seed_decides_the_start_and_the_global_random_state_is_left_alone(unet: UNet2DConditionModel) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    lora.attach(unet, SPEC, seed=1)
    assert torch.equal(torch.rand(2), expected)
    first = lora.lora_state(unet, "unet")
    lora.attach(unet, SPEC, seed=1)
    again = lora.lora_state(unet, "unet")
    lora.attach(unet, SPEC, seed=2)
    other = lora.lora_state(unet, "unet")
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not any(torch.equal(first[key], other[key]) for key in first if "lora_A" in key)


def test_wide_adds_convolutions_and_projections_to_attention(unet: UNet2DConditionModel) -> None:
    attention = lora.expected_shapes(unet, UNET_ATTENTION).keys()
    wide = lora.expected_shapes(unet, SPEC).keys()
    assert attention < wide
    for part in ("attn1.to_q", "attn2.to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "resnets.0.conv1"):
        assert any(part in key for key in wide), part
    assert not any("time_emb" in key or "conv_in" in key for key in wide)


@pytest.mark.parametrize("spec", [SPEC, UNET_ATTENTION])
def test_expected_shapes_are_those_of_an_attached_adapter(unet: UNet2DConditionModel, spec: LoraSpec) -> None:
    without = lora.expected_shapes(unet, spec)
    parameters = lora.attach(unet, spec, seed=1)
    assert without == {key: tuple(parameter.shape) for key, parameter in parameters.items()}
    assert lora.expected_shapes(unet, spec) == without
    assert {f"unet.{key}" for key in get_peft_model_state_dict(unet, adapter_name=ADAPTER_NAME)} == without.keys()


def test_taking_the_adapter_out_gives_the_base_model_back(unet: UNet2DConditionModel) -> None:
    before = predict(unet)
    load(unet, 1)
    assert not torch.equal(predict(unet), before)
    lora.detach(unet)
    assert torch.equal(predict(unet), before)
    assert lora.lora_parameters(unet, "unet") == {}


def test_the_reference_is_the_base_model_and_the_adapter_comes_back(unet: UNet2DConditionModel) -> None:
    base = predict(unet)
    load(unet, 1)
    adapted = predict(unet)
    with reference_mode(unet):
        assert torch.equal(predict(unet), base)
    assert torch.equal(predict(unet), adapted)


def test_the_adapter_comes_back_when_the_reference_pass_fails(unet: UNet2DConditionModel) -> None:
    load(unet, 1)
    unet.requires_grad_(False)
    adapted = predict(unet)
    with pytest.raises(RuntimeError, match="inside"), reference_mode(unet):
        raise RuntimeError("inside")
    assert torch.equal(predict(unet), adapted)
    assert not any(parameter.requires_grad for parameter in unet.parameters())


def test_a_gate_of_zero_is_exactly_the_base_model_beside_adapted_images(unet: UNet2DConditionModel) -> None:
    base = predict(unet)
    load(unet, 1)
    adapted = predict(unet)
    with lora.gate(unet, SPEC, [0.0, 1.0]):
        mixed = predict(unet)
    assert torch.equal(mixed[0], base[0])
    assert torch.equal(mixed[1], adapted[1])
    assert torch.equal(predict(unet), adapted), "the plain scaling is back"


def test_a_gate_of_zeros_alone_is_exactly_the_base_model(unet: UNet2DConditionModel) -> None:
    base = predict(unet)
    load(unet, 1)
    with lora.gate(unet, SPEC, [0.0, 0.0]):
        assert torch.equal(predict(unet), base)


def test_each_image_gets_its_own_strength(unet: UNet2DConditionModel) -> None:
    load(unet, 1)
    half = LoraSpec(SPEC.rank, SPEC.lora_alpha / 2, SPEC.target_modules)
    with lora.gate(unet, half, [1.0, 1.0]):
        expected = predict(unet)
    with lora.gate(unet, SPEC, [0.5, 1.5]):
        mixed = predict(unet)
    assert_latents_agree(mixed[0], expected[0])
    assert not torch.allclose(mixed[1], expected[1], atol=1e-3)


def test_the_gate_is_open_again_after_a_failure_inside(unet: UNet2DConditionModel) -> None:
    load(unet, 1)
    adapted = predict(unet)
    with pytest.raises(RuntimeError, match="inside"), lora.gate(unet, SPEC, [0.0, 0.5]):
        raise RuntimeError("inside")
    assert torch.equal(predict(unet), adapted)


def test_the_gate_works_on_models_with_linear_projections() -> None:
    torch.manual_seed(0)
    unet = tiny_unet(use_linear_projection=True).eval()
    unet.requires_grad_(False)  # as loaded; torch takes another path, with other last bits, for weights that want one
    base = predict(unet)
    load(unet, 1)
    with lora.gate(unet, SPEC, [0.0, 1.0]):
        mixed = predict(unet)
    assert torch.equal(mixed[0], base[0])
    assert not torch.allclose(mixed[1], base[1], atol=1e-3)


def _transposed(tensors: dict[str, Tensor], key: str) -> dict[str, Tensor]:
    return {**tensors, key: tensors[key].new_zeros(tensors[key].shape[::-1])}


def test_tensors_that_do_not_fit_change_nothing(unet: UNet2DConditionModel) -> None:
    parameters = lora.attach(unet, SPEC, seed=0)
    before = lora.lora_state(unet, "unet")
    good = dict(random_adapter(unet, 1).tensors)
    last = list(good)[-1]
    bad = [
        _transposed(good, last),
        {key: value for key, value in good.items() if key != last},
        {**good, "unet.other.lora_A.weight": torch.zeros(1)},
        dict(random_adapter(unet, 1, LoraSpec(8, 8.0, UNET_WIDE)).tensors),
    ]
    for tensors in bad:
        with pytest.raises(AdapterMismatchError, match="does not fit the model"):
            lora.load_state_in_place(parameters, tensors)
        assert all(torch.equal(value, before[key]) for key, value in lora.lora_state(unet, "unet").items())


def test_loading_keeps_the_parameters_identity_and_training_works_on(unet: UNet2DConditionModel) -> None:
    parameters = lora.attach(unet, UNET_ATTENTION, seed=0)
    with torch.inference_mode():
        pass
    lora.load_state_in_place(parameters, random_adapter(unet, 1, UNET_ATTENTION).tensors)
    assert all(lora.lora_parameters(unet, "unet")[key] is parameter for key, parameter in parameters.items())
    loss = unet(torch.zeros(1, 4, 8, 8), torch.tensor([5]), torch.zeros(1, 16, 16)).sample.square().mean()
    loss.backward()
    assert all(parameter.grad is not None for parameter in parameters.values())


def test_nonsense_in_a_spec_is_refused_with_the_value() -> None:
    with pytest.raises(AdapterMismatchError, match="rank of 0"):
        LoraSpec(0, 1.0, UNET_WIDE)
    with pytest.raises(AdapterMismatchError, match="nan"):
        LoraSpec(4, float("nan"), UNET_WIDE)
    with pytest.raises(AdapterMismatchError, match="attention"):
        LoraSpec(4, 4.0, "attention")  # type: ignore[arg-type]
    with pytest.raises(AdapterMismatchError, match="text_encoder"):
        LoraSpec(4, 4.0, UNET_WIDE, "text_encoder")


def test_a_spec_survives_the_files_metadata_and_strange_metadata_is_refused() -> None:
    assert LoraSpec.from_metadata(SPEC.to_metadata()) == SPEC
    for text in ("", "[]", "{}", '{"unet.r": 4, "unet.lora_alpha": 4, "unet.target_modules": 3}'):
        with pytest.raises(AdapterCorruptError):
            LoraSpec.from_metadata(text)
