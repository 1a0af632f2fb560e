"""The moving average of the adapter: right from the first step, judged and published, and resumed to the bit."""

from pathlib import Path

import pytest
import torch
from torch import nn

from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.training.loop.optimizers import AdapterEma
from tests.training.training_studio import FAST, TrainingStudio, assert_equal, twin_of, weights_of

AVERAGED = FAST.model_copy(update={"num_steps": 4, "ema_decay": 0.5})


def test_after_any_number_of_steps_the_weights_of_the_average_add_up_to_one() -> None:
    parameter = nn.Parameter(torch.zeros(2, 3))
    average = AdapterEma({"a": parameter}, decay=0.9)
    values = [1.0, 3.0, -2.0]
    for value in values:
        with torch.no_grad():
            parameter.fill_(value)
        average.update()
    shares = [0.9**2, 0.9, 1.0]
    expected = sum(s * v for s, v in zip(shares, values, strict=True)) / sum(shares)
    with average.average_parameters():
        torch.testing.assert_close(parameter.detach(), torch.full((2, 3), expected))
    assert torch.equal(parameter, torch.full((2, 3), -2.0)), "the parameters are back"


def test_the_parameters_are_back_when_looking_at_the_average_fails() -> None:
    parameter = nn.Parameter(torch.ones(2))
    average = AdapterEma({"a": parameter}, decay=0.9)
    average.update()
    with torch.no_grad():
        parameter.fill_(5.0)
    with pytest.raises(KeyError), average.average_parameters():
        raise KeyError
    assert torch.equal(parameter, torch.full((2,), 5.0))


def test_what_is_published_is_the_average_of_the_steps(
    studio: TrainingStudio, denoiser: Denoiser, tmp_path: Path
) -> None:
    studio.add_pairs(8)
    studio.vote(8)
    settings = AVERAGED.model_copy(update={"held_out_share": 0.0, "num_steps": 2})
    after: list[dict[str, torch.Tensor]] = []
    for number, steps in enumerate((1, 2)):  # without an average: the adapter after one step and after two
        plain = twin_of(studio, tmp_path / str(number))
        round_id, token = plain.start(settings=settings.model_copy(update={"ema_decay": None, "num_steps": steps}))
        plain.run(denoiser, round_id, token)
        after.append(weights_of(plain))
        plain.store.close()
    round_id, token = studio.start(settings=settings)
    studio.run(denoiser, round_id, token)
    for key, tensor in weights_of(studio).items():
        torch.testing.assert_close(tensor, (after[0][key] * 0.5 + after[1][key]) / 1.5)


def test_an_averaged_round_cut_into_slices_ends_where_an_uninterrupted_one_does(
    studio: TrainingStudio, denoiser: Denoiser, tmp_path: Path
) -> None:
    studio.add_pairs(8)
    studio.vote(8)
    round_id, token = studio.start(settings=AVERAGED)
    studio.run(denoiser, round_id, token)
    twin = twin_of(studio, tmp_path)
    round_id, token = twin.start(settings=AVERAGED)
    twin.run(denoiser, round_id, token, slices=[0.0] * 4)
    assert_equal(weights_of(studio), weights_of(twin))
    twin.store.close()
