"""What the autoencoder's and the decoder's training have in common: one network, its optimizers, its random numbers."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from examples.pocket_model import checkpoint
from examples.pocket_model.muon import Optimizers
from examples.pocket_model.parallel import SHARES, set_gradients


class Stage:
    """Training of `trained`, part of `saved` or all of it; goes on from the checkpoint at `path` if there is one."""

    def __init__(self, trained: nn.Module, *, saved: nn.Module, path: Path, seed: int, rate: float) -> None:
        self._trained, self._saved, self._path = trained, saved, path
        self._threads = ThreadPoolExecutor(SHARES)
        self._optimizers = Optimizers(trained, self._threads, lr=rate)
        self.generator = torch.Generator().manual_seed(seed)
        self.picker = np.random.default_rng(seed)
        self.step = 0
        self.mean_loss = 0.0
        if (state := checkpoint.load(path)) is not None:
            saved.load_state_dict(state["model"])
            self._optimizers.load_state_dict(state["optimizers"])
            checkpoint.restore_random_state(state["random"], self.generator, self.picker)
            self.step = state["step"]

    def update(self, rate: float, loss_of: Callable[..., Tensor], *batch: Tensor) -> None:
        """One step at this learning rate on `loss_of(*batch)`, a mean over the batch."""
        loss = set_gradients(self._trained, self._threads, loss_of, *batch)
        nn.utils.clip_grad_norm_(self._trained.parameters(), 1.0)
        self._optimizers.step(rate)
        self.step += 1
        self.mean_loss += (1.0 if self.mean_loss == 0 else 0.05) * (loss - self.mean_loss)

    def save(self, step: int) -> None:
        parts = {"model": self._saved.state_dict(), "optimizers": self._optimizers.state_dict()}
        random = checkpoint.random_state(self.generator, self.picker)
        checkpoint.save_atomically({**parts, "random": random, "step": step}, self._path)
