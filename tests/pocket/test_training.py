"""Training goes on after an interruption as if there had been none, and the parts fit together as a pipeline."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from examples.pocket_model import checkpoint
from examples.pocket_model.autoencoder import AutoencoderPlan, train_autoencoder
from examples.pocket_model.decoder import DecoderPlan, train_decoder
from examples.pocket_model.denoiser import DenoiserPlan, DenoiserTraining, train_denoiser
from examples.pocket_model.export import build_pipeline, save_pipeline
from examples.pocket_model.latents import LatentCache
from examples.pocket_model.muon import orthogonalize
from examples.pocket_model.networks import build_autoencoder
from examples.pocket_model.progress import ReportIntervals, learning_rate
from examples.pocket_model.render import render
from examples.pocket_model.renders import Renders, generate_scenes

ALWAYS_SAVE = ReportIntervals(save_seconds=-1.0)
SCENES = generate_scenes(1, 0, 12)


class Interrupted(Exception):
    """Stands for a killed process."""


def rhythm_that_stops_after(saves: int) -> ReportIntervals:
    """Asks the clock after every step; the clock breaks when `saves` checkpoints have been written."""
    ticks = iter(range(10_000))

    def now() -> float:
        tick = next(ticks)
        # The clock is read once before the loop and twice in a step that saves.
        if tick > 2 * saves:
            raise Interrupted
        return float(tick)

    return ReportIntervals(print_every=10_000, save_seconds=-1.0, now=now)


@pytest.fixture
def cache() -> LatentCache:
    generator = torch.Generator().manual_seed(0)
    return LatentCache(torch.randn((len(SCENES), 8, 16, 16), generator=generator).half(), 1.0)


def test_a_resumed_denoiser_equals_an_uninterrupted_one(tmp_path: Path, cache: LatentCache) -> None:
    plan = DenoiserPlan(steps=3, batch=2, warmup=1)
    whole = train_denoiser(cache, SCENES, tmp_path / "whole.pt", plan, ALWAYS_SAVE)
    with pytest.raises(Interrupted):
        train_denoiser(cache, SCENES, tmp_path / "parts.pt", plan, rhythm_that_stops_after(1))
    state = checkpoint.load(tmp_path / "parts.pt")
    assert state is not None
    assert 0 < state["step"] < plan.steps
    resumed = train_denoiser(cache, SCENES, tmp_path / "parts.pt", plan, ALWAYS_SAVE)
    for name, value in whole.ema.state_dict().items():
        assert torch.equal(value, resumed.ema.state_dict()[name]), name


def test_a_resumed_autoencoder_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    np.save(tmp_path / "renders.npy", np.stack([render(scene) for scene in SCENES]))
    renders = Renders([tmp_path / "renders.npy"])
    plan = AutoencoderPlan(steps=2, batch=2, warmup=1)
    whole = train_autoencoder(renders, tmp_path / "whole.pt", plan, ALWAYS_SAVE)
    with pytest.raises(Interrupted):
        train_autoencoder(renders, tmp_path / "parts.pt", plan, rhythm_that_stops_after(1))
    resumed = train_autoencoder(renders, tmp_path / "parts.pt", plan, ALWAYS_SAVE)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_the_last_stage_changes_the_decoder_and_leaves_the_encoder(tmp_path: Path, cache: LatentCache) -> None:
    np.save(tmp_path / "renders.npy", np.stack([render(scene) for scene in SCENES]))
    autoencoder = build_autoencoder()
    before = {name: value.clone() for name, value in autoencoder.state_dict().items()}
    plan = DecoderPlan(steps=1, batch=2, warmup=1)
    train_decoder(autoencoder, cache, Renders([tmp_path / "renders.npy"]), tmp_path / "d.pt", plan, ALWAYS_SAVE)
    changed = {name for name, value in autoencoder.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.startswith(("decoder.", "post_quant_conv.")) for name in changed)


def test_a_checkpoint_is_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    assert checkpoint.load(path) is None
    checkpoint.save_atomically({"step": 1}, path)
    checkpoint.save_atomically({"step": 2}, path)
    assert checkpoint.load(path) == {"step": 2}
    assert [file.name for file in tmp_path.iterdir()] == ["state.pt"]


def test_captions_are_sometimes_empty_and_sometimes_carry_unknown_words() -> None:
    training = DenoiserTraining(replace(DenoiserPlan(), empty_share=0.5, filler_share=0.0))
    captions = training.captions(SCENES * 20)
    assert 0.3 < np.mean([caption == "" for caption in captions]) < 0.7


def test_the_learning_rate_warms_up_and_ends_near_zero() -> None:
    rates = [learning_rate(step, 100, 1.0, 10) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0, abs=0.02)
    assert rates[-1] < 0.02


def test_orthogonalised_gives_every_direction_about_the_same_length() -> None:
    matrix = torch.randn((24, 60), generator=torch.Generator().manual_seed(0)) * torch.logspace(-1, 0, 24)[:, None]
    lengths = torch.linalg.svdvals(orthogonalize(matrix))
    assert float(lengths.min()) > 0.5
    assert float(lengths.max()) < 1.5


def test_an_exported_pipeline_loads_and_keeps_its_weights(tmp_path: Path) -> None:
    training = DenoiserTraining(DenoiserPlan())
    save_pipeline(build_pipeline(build_autoencoder(), training.ema, 0.5), tmp_path / "pocket")
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "pocket", torch_dtype=torch.float32)
    assert pipeline.vae.config.scaling_factor == 0.5
    weight = training.ema.unet.conv_in.weight
    assert torch.equal(pipeline.unet.conv_in.weight, weight.half().float())
    assert not (tmp_path / "pocket.unfinished").exists()
