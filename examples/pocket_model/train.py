"""Training of the pocket model: all stages in order, each skipped when its result is there already."""

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path

from examples.pocket_model import checkpoint
from examples.pocket_model.autoencoder import AutoencoderPlan, train_autoencoder
from examples.pocket_model.decoder import DecoderPlan, train_decoder
from examples.pocket_model.denoiser import DenoiserPlan, DenoiserTraining, train_denoiser
from examples.pocket_model.export import build_pipeline, save_pipeline
from examples.pocket_model.latents import encode_all
from examples.pocket_model.networks import build_autoencoder
from examples.pocket_model.progress import ReportIntervals
from examples.pocket_model.renders import Renders, generate_scenes, render_all

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """The whole training; the defaults take about an hour and a half on two processor cores."""

    files: int = 48  # of a thousand images each
    seed: int = 1
    autoencoder: AutoencoderPlan = field(default_factory=AutoencoderPlan)
    denoiser: DenoiserPlan = field(default_factory=DenoiserPlan)
    decoder: DecoderPlan = field(default_factory=DecoderPlan)
    intervals: ReportIntervals = field(default_factory=ReportIntervals)


def train(work: Path, out: Path, plan: Plan) -> None:
    """Train in `work` (kept, so that an interrupted run goes on) and leave the finished pipeline in `out`."""
    paths = render_all(work / "renders", seed=plan.seed, files=plan.files, processes=os.cpu_count() or 1)
    renders = Renders(paths)
    autoencoder = train_autoencoder(renders, work / "autoencoder.pt", plan.autoencoder, plan.intervals)
    cache = encode_all(autoencoder, renders, work / "latents.pt")
    scenes = [scene for number in range(plan.files) for scene in generate_scenes(plan.seed, number)]
    train_denoiser(cache, scenes, work / "denoiser.pt", plan.denoiser, plan.intervals)
    train_decoder(autoencoder, cache, renders, work / "decoder.pt", plan.decoder, plan.intervals)
    export(work, out)


def export(work: Path, out: Path) -> None:
    """Export the pipeline of the newest checkpoints in `work`, with the averaged weights; also while training runs."""
    autoencoder_state = checkpoint.load(work / "decoder.pt") or checkpoint.load(work / "autoencoder.pt")
    latents_state = checkpoint.load(work / "latents.pt")
    denoiser_state = checkpoint.load(work / "denoiser.pt")
    if autoencoder_state is None or latents_state is None or denoiser_state is None:
        raise FileNotFoundError(f"{work} holds no denoiser checkpoint yet (autoencoder.pt, latents.pt and denoiser.pt)")
    autoencoder = build_autoencoder()
    autoencoder.load_state_dict(autoencoder_state["model"])
    training = DenoiserTraining(DenoiserPlan())
    training.load_state_dict(denoiser_state)
    save_pipeline(build_pipeline(autoencoder, training.ema, latents_state["scaling_factor"]), out)
    logger.info(f"exported step {training.step} to {out}")
