"""Training stage of the autoencoder and of the decoder: one network, its optimizers, its random numbers."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from examples.pocket_model import checkpoint
from examples.pocket_model.muon import Optimizers
from examples.pocket_model.parallel import NUM_SHARDS, set_gradients


class Stage:
    """Training of `trained_module`, a part of `saved_module` or all of it.

    Goes on from the checkpoint at `path` if there is one.
    """

    def __init__(
        self, trained_module: nn.Module, *, saved_module: nn.Module, path: Path, seed: int, rate: float
    ) -> None:
        self._trained_module, self._saved_module, self._path = trained_module, saved_module, path
        self._threads = ThreadPoolExecutor(NUM_SHARDS)
        self._optimizers = Optimizers(trained_module, self._threads, lr=rate)
        self.generator = torch.Generator().manual_seed(seed)
        self.index_generator = np.random.default_rng(seed)
        self.step = 0
        self.mean_loss = 0.0
        if (state := checkpoint.load(path)) is not None:
            saved_module.load_state_dict(state["model"])
            self._optimizers.load_state_dict(state["optimizers"])
            checkpoint.restore_random_state(state["random"], self.generator, self.index_generator)
            self.step = state["step"]

    def update(self, rate: float, loss_fn: Callable[..., Tensor], *batch: Tensor) -> None:
        """One step at this learning rate on `loss_fn(*batch)`, a mean over the batch."""
        loss = set_gradients(self._trained_module, self._threads, loss_fn, *batch)
        nn.utils.clip_grad_norm_(self._trained_module.parameters(), 1.0)
        self._optimizers.step(rate)
        self.step += 1
        self.mean_loss += (1.0 if self.mean_loss == 0 else 0.05) * (loss - self.mean_loss)

    def save(self, step: int) -> None:
        parts = {"model": self._saved_module.state_dict(), "optimizers": self._optimizers.state_dict()}
        random = checkpoint.random_state(self.generator, self.index_generator)
        checkpoint.save_atomically({**parts, "random": random, "step": step}, self._path)
