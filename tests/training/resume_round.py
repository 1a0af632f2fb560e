"""Script that runs a round on to its end: `python -m tests.training.resume_round <home> <model> <round> <token>`."""

import sys
from pathlib import Path

import torch

from dmpo_app.diffusion.loading import load_denoiser
from tests.model_fixtures import NUM_THREADS
from tests.training.training_studio import TrainingStudio

if __name__ == "__main__":
    home, model, round_id, token = sys.argv[1:]
    torch.set_num_threads(NUM_THREADS)
    studio = TrainingStudio.open(Path(home), Path(model))
    studio.run(load_denoiser(model, device="cpu", dtype="float32"), int(round_id), int(token))
    studio.store.close()
