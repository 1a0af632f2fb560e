"""Optimizers: the usual one is torch's AdamW to the bit, every one can be interrupted, what is missing is said."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.errors import SetupError
from dmpo_app.settings import RoundSettings
from dmpo_app.training.loop.optimizers import OptimizerName, OptimizerState, check_optimizer, make_optimizer
from dmpo_app.training.loop.step import learning_rate_factor, set_learning_rate
from dmpo_app.training.rounds.round_runner import SliceOutcome
from tests.training.training_studio import FAST, TrainingStudio, assert_equal, twin_of, weights_of

RUNNING_HERE: tuple[OptimizerName, ...] = ("adamw", "prodigy", "adafactor")


def parameters_of(seed: int) -> dict[str, nn.Parameter]:
    """One matrix, one convolution and one that is zero, as LoRA's B is at first."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "unet.a.lora_A.weight": nn.Parameter(torch.randn(3, 5, generator=generator)),
        "unet.a.lora_B.weight": nn.Parameter(torch.zeros(4, 3)),
        "unet.c.lora_A.weight": nn.Parameter(torch.randn(3, 2, 3, 3, generator=generator)),
    }


def walk(optimizer: torch.optim.Optimizer, parameters: dict[str, nn.Parameter], steps: range) -> None:
    for step in steps:
        for parameter in parameters.values():
            parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(step))
        optimizer.step()


@pytest.mark.parametrize("name", RUNNING_HERE)
def test_a_restored_optimizer_goes_on_to_the_bit(name: OptimizerName) -> None:
    whole = parameters_of(0)
    walk(make_optimizer(whole, learning_rate=1e-2, name=name, weight_decay=0.1), whole, range(6))
    first = parameters_of(0)
    optimizer = make_optimizer(first, learning_rate=1e-2, name=name, weight_decay=0.1)
    walk(optimizer, first, range(3))
    state = OptimizerState.from_optimizer(optimizer, first)
    second = {key: nn.Parameter(parameter.detach().clone()) for key, parameter in first.items()}
    resumed = make_optimizer(second, learning_rate=1e-2, name=name, weight_decay=0.1)
    state.restore(resumed, second)
    walk(resumed, second, range(3, 6))
    for key, parameter in whole.items():
        assert torch.equal(parameter, second[key]), key


@pytest.mark.parametrize("name", RUNNING_HERE)
def test_a_round_cut_into_slices_ends_where_an_uninterrupted_one_does_with_any_optimizer(
    name: OptimizerName, studio: TrainingStudio, denoiser: Denoiser, tmp_path: Path
) -> None:
    settings = RoundSettings.model_validate(
        {
            **FAST.model_dump(exclude={"learning_rate"}),
            "optimizer": name,
            "num_steps": 4,
            "weight_decay": 0.01,
            "lr_schedule": "cosine",
            "warmup_steps": 2,
        }
    )
    studio.add_pairs(8)
    studio.vote(8)
    round_id, token = studio.start(settings=settings)
    studio.run(denoiser, round_id, token)
    twin = twin_of(studio, tmp_path)
    round_id, token = twin.start(settings=settings)
    assert twin.run(denoiser, round_id, token, slices=[0.0] * 4) is SliceOutcome.FINISHED
    assert_equal(weights_of(studio), weights_of(twin))
    assert any(tensor.any() for key, tensor in weights_of(studio).items() if "lora_B" in key), "nothing was learned"
    twin.store.close()


def test_an_optimizer_that_keeps_something_else_than_tensors_and_numbers_is_refused() -> None:
    parameters = parameters_of(0)
    optimizer = make_optimizer(parameters, learning_rate=1e-2)
    walk(optimizer, parameters, range(1))
    optimizer.state[next(iter(parameters.values()))]["history"] = [1, 2]
    with pytest.raises(TypeError, match=r"history of unet\.a\.lora_A\.weight is a list"):
        OptimizerState.from_optimizer(optimizer, parameters)


def test_adafactor_takes_full_steps_from_a_matrix_that_is_zero() -> None:
    parameters = parameters_of(0)
    walk(make_optimizer(parameters, learning_rate=1e-2, name="adafactor"), parameters, range(1))
    step = parameters["unet.a.lora_B.weight"].detach().square().mean().sqrt()
    assert 0.5e-2 < float(step) <= 1.01e-2


def test_eight_bits_without_a_gpu_are_refused_with_what_to_set() -> None:
    with pytest.raises(SetupError, match=r"adamw8bit needs a CUDA GPU.*adafactor"):
        make_optimizer(parameters_of(0), learning_rate=1e-3, name="adamw8bit")


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "meta_path", [])
    monkeypatch.delitem(sys.modules, "prodigyopt", raising=False)
    with pytest.raises(SetupError, match="pip install prodigyopt"):
        check_optimizer("prodigy", torch.device("cpu"))


def test_prodigy_has_a_factor_of_one_unless_another_is_set() -> None:
    assert RoundSettings(optimizer="prodigy").learning_rate == 1.0
    assert RoundSettings(optimizer="prodigy", learning_rate=0.5).learning_rate == 0.5
    assert RoundSettings().learning_rate == 1e-3


def test_the_learning_rate_warms_up_and_then_stays_or_falls_to_near_zero() -> None:
    def factors(**named: object) -> list[float]:
        settings = RoundSettings.model_validate({"num_steps": 10, **named})
        return [learning_rate_factor(step, settings) for step in range(10)]

    assert factors() == [1.0] * 10
    assert factors(warmup_steps=4)[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert factors(lr_schedule="linear", warmup_steps=2)[2:] == pytest.approx([1 - i / 8 for i in range(8)])
    cosine = factors(lr_schedule="cosine")
    assert cosine[0] == 1.0
    assert cosine[5] == pytest.approx(0.5)
    assert 0 < cosine[9] < 0.03
    assert factors(warmup_steps=20)[9] == 0.5


def test_the_learning_rate_is_set_for_all_parameters() -> None:
    optimizer = make_optimizer(parameters_of(0), learning_rate=1.0)
    set_learning_rate(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25]
