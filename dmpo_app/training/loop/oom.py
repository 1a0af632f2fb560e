"""Retry of work in smaller pieces when memory runs out (OOM)."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from typing import Literal, TypeVar

import torch
from diffusers import ModelMixin

from dmpo_app.errors import RoundFailedError
from dmpo_app.training.distributed.process_group import is_out_of_memory

_Result = TypeVar("_Result")
_log = logging.getLogger(__name__)
_OUT_OF_MEMORY = (
    "out of memory with {smallest} at a time; free memory that other programs hold, or set a smaller "
    "DMPO_ROUND__RANK, DMPO_ROUND__TARGET_MODULES=attention, DMPO_RENDER__QUANTIZE=nf4 or a smaller base model"
)
_RANKINGS_HINT = "; DMPO_ROUND__RANKINGS=pairs takes rankings apart"
_CHECKPOINTING_HINT = "; DMPO_ROUND__GRADIENT_CHECKPOINTING=auto would save the most"


class OomRetrier:
    """Memory budget of the `denoiser`: the pairs that go through it at once, and gradient checkpointing.

    `on_smaller` is called with the new number of pairs whenever it shrinks. That stays a multiple of `block`, as
    `micro_pairs` is one: of the pairs that a ranking takes, which cannot go one by one.
    """

    def __init__(
        self,
        denoiser: ModelMixin,
        *,
        micro_pairs: int,
        gradient_checkpointing: Literal["auto", "on", "off"],
        on_smaller: Callable[[int], None],
        block: int = 1,
    ) -> None:
        self._denoiser = denoiser
        self._gradient_checkpointing = gradient_checkpointing
        self._on_smaller = on_smaller
        self._block = block
        self.micro_pairs = micro_pairs
        if gradient_checkpointing == "on":
            denoiser.enable_gradient_checkpointing()

    def run(self, fn: Callable[[], _Result]) -> _Result:
        """Run `fn`; when memory runs out, run it again in half as large pieces, down to single pairs or one ranking.

        After that, activations are computed again in the backward pass instead of kept. Raises RoundFailedError when
        that does not help either.
        """
        while True:
            try:
                return fn()
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                if self.micro_pairs == self._block and not self._may_checkpoint_gradients():
                    raise RoundFailedError(self._advice()) from error
            self._denoiser.zero_grad(set_to_none=True)
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self._take_less_memory()

    def _advice(self) -> str:
        smallest = "a single pair" if self._block == 1 else f"the {self._block} pairs of a ranking"
        checkpointing_hint = _CHECKPOINTING_HINT * (self._gradient_checkpointing == "off")
        return _OUT_OF_MEMORY.format(smallest=smallest) + checkpointing_hint + _RANKINGS_HINT * (self._block > 1)

    def _may_checkpoint_gradients(self) -> bool:
        """True when gradient checkpointing is allowed and not tried yet."""
        return self._gradient_checkpointing != "off" and not self._denoiser.is_gradient_checkpointing

    def _take_less_memory(self) -> None:
        if self.micro_pairs == self._block:
            _log.warning("out of memory; going on with activations computed twice")
            self._denoiser.enable_gradient_checkpointing()
            return
        self.micro_pairs = max(self.micro_pairs // 2 // self._block, 1) * self._block
        _log.warning("out of memory; going on with %d pairs at a time", self.micro_pairs)
        self._on_smaller(self.micro_pairs)
