"""The trainer of one round's adapter. It knows tensors and files of references, not the database."""

from __future__ import annotations

import gc
import hashlib
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeVar

import torch
from diffusers import ModelMixin
from torch import Tensor

from dmpo_app.diffusion.adapter_files import AdapterWeights
from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.diffusion.fused_lora import fuse
from dmpo_app.diffusion.lora import attach, detach, load_state_in_place, lora_state
from dmpo_app.domain.lineage import BASE_VERSION
from dmpo_app.errors import AdapterMismatchError, RoundFailedError
from dmpo_app.io.liveness import phase
from dmpo_app.training.distributed.process_group import SINGLE_PROCESS, ProcessGroup, is_out_of_memory
from dmpo_app.training.loop.checkpoint import BestAdapter, Checkpoint
from dmpo_app.training.loop.compilation import can_compile, compile_in_place, eager_forward, restore_eager
from dmpo_app.training.loop.optimizers import AdapterEma, OptimizerState, make_optimizer
from dmpo_app.training.loop.step import learning_rate_factor, set_learning_rate, train_step
from dmpo_app.training.monitoring import early_stopping
from dmpo_app.training.monitoring.evaluation import Evaluation, evaluate, evaluate_base
from dmpo_app.training.monitoring.latent_preview import LatentPreview
from dmpo_app.training.reference.denoising_errors import RoundReferences
from dmpo_app.training.rounds.round_plan import RoundPlan

_log = logging.getLogger(__name__)


class RoundTrainer:
    """Trains `plan` on `denoiser`, from its start or from a checkpoint; has the denoiser to itself until `close`.

    `parent` is the live version that the round is measured against and, with `warm_start`, begins at; None when that
    is the base model or cannot be read. References are read from and saved to `reference_folder`. `preview` measures
    the drift of images; None: it is not measured.
    """

    def __init__(
        self,
        plan: RoundPlan,
        denoiser: Denoiser,
        *,
        parent: AdapterWeights | None,
        reference_folder: Path,
        resume_from: Checkpoint | None = None,
        preview: LatentPreview | None = None,
        group: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        self.group = group
        self._plan = plan
        self._settings = plan.settings
        self._loss = plan.loss
        self._scaling = plan.spec.scaling
        self._denoiser = denoiser
        self._preview = preview
        self._references = RoundReferences(plan, denoiser, reference_folder, group)
        self._oom_retrier = self._make_oom_retrier(resume_from)
        self._references.switch_numerics(self._oom_retrier.micro_pairs, checkpoint=resume_from)
        self._last_step: int | None = None  # where `finish_early` ended the round
        self.step = resume_from.step if resume_from else 0
        """Steps done so far."""
        self.seconds = resume_from.seconds if resume_from else 0.0
        """Time spent in slices so far; `steps` adds to it."""
        self.best = resume_from.best if resume_from else None
        self._monitor = resume_from.monitor if resume_from else early_stopping.EarlyStopMonitor()
        # First the live version on the plain denoiser; the round's own adapter then takes its place.
        known = resume_from.live_evaluation if resume_from else None
        self.live_evaluation = self._evaluate_live(parent) if known is None else known
        self._parameters = attach(denoiser.module, plan.spec, seed=plan.seed)
        self._compile_or_fuse(resume_from)
        self._root_outputs = math.sqrt(early_stopping.num_outputs(self._parameters))
        self._optimizer = make_optimizer(
            self._parameters,
            learning_rate=self._settings.learning_rate,
            name=self._settings.optimizer,
            weight_decay=self._settings.weight_decay,
        )
        decay = self._settings.ema_decay
        self._ema = None if decay is None else AdapterEma(self._parameters, decay)
        if resume_from:
            self._restore(resume_from)
        elif parent is not None and self._settings.warm_start:
            self._warm_start(parent)

    def _make_oom_retrier(self, resume_from: Checkpoint | None) -> OomRetrier:
        """Begin with this process's whole share of a batch at once, or with what a checkpoint's memory allowed."""
        rankings = self._plan.train.rankings
        micro_pairs = len(
            self.group.shard(rankings.examples_per_step(self._settings.batch_pairs), block=rankings.block)
        )
        return OomRetrier(
            self._denoiser.module,
            micro_pairs=min(resume_from.micro_pairs, micro_pairs) if resume_from else micro_pairs,
            gradient_checkpointing=self._settings.gradient_checkpointing,
            on_smaller=self._references.switch_numerics,
            block=rankings.block,
        )

    def _compile_or_fuse(self, resume_from: Checkpoint | None) -> None:
        """Compile the denoiser with its adapter, where all processes can, or else fuse the adapter's layers."""
        denoiser = self._denoiser
        self._compiles_next = False
        if not (self._settings.compile and self._can_all_compile()):
            fuse(denoiser.module)
            return
        compile_in_place(denoiser.module)
        self._compiles_next = True
        self._references.switch_numerics(
            self._oom_retrier.micro_pairs, compiled_with=self._plan.spec, checkpoint=resume_from
        )

    def _can_all_compile(self) -> bool:
        with phase("compiling"):
            return all(self.group.all_gather(lambda: can_compile(self._denoiser.device)))

    def _restore(self, checkpoint: Checkpoint) -> None:
        load_state_in_place(self._parameters, checkpoint.tensors)
        checkpoint.optimizer.restore(self._optimizer, self._parameters)
        if self._ema is not None:
            self._ema.restore(checkpoint.average, self.step)

    def train_step(self) -> early_stopping.StepResult:
        """Train one step. Raises RoundFailedError when it diverges or does not fit into memory."""
        with phase("compiling") if self._compiles_next else nullcontext():
            result = self._update_adapter()
        self._compiles_next = False
        self.step += 1
        if self._ema is not None:
            self._ema.update()
        norm = early_stopping.adapter_norm(self._parameters, scaling=self._scaling)
        result = replace(result, adapter_norm=norm, adapter_rms=norm / self._root_outputs)
        self._monitor = self._monitor.after_step(self.step, result, self._settings.limits)
        return result

    def _update_adapter(self) -> early_stopping.StepResult:
        self._oom_retrier.run(lambda: self.group.all_gather(lambda: self._references.compute_for_step(self.step)))
        set_learning_rate(
            self._optimizer, self._settings.learning_rate * learning_rate_factor(self.step, self._settings)
        )
        return self._oom_retrier.run(
            lambda: train_step(
                self._references.train,
                self._references.examples_for_step(self.step),
                self._parameters,
                self._optimizer,
                self._loss,
                max_grad_norm=self._settings.max_grad_norm,
                micro_pairs=self._oom_retrier.micro_pairs,
                group=self.group,
            )
        )

    @property
    def violation(self) -> early_stopping.LimitViolation | None:
        """The exceeded limit that ends the round before its last step, if any."""
        return self._monitor.violation

    @property
    def denoiser(self) -> Denoiser:
        """The denoiser that is trained, with the adapter on it."""
        return self._denoiser

    @property
    def num_steps(self) -> int:
        """The steps of the whole round."""
        return self._settings.num_steps if self._last_step is None else self._last_step

    @property
    def is_done(self) -> bool:
        """True when no step is left."""
        return self.step >= self.num_steps or self.violation is not None

    def finish_early(self) -> None:
        """Make the step that was done last the round's last one; it is evaluated now unless it has been."""
        is_evaluated = self.step > 0 and self._is_evaluation_due
        self._last_step = self.step
        if not is_evaluated:
            self.measure_drift_if_due()
            self.evaluate_if_due()

    def measure_drift_if_due(self) -> Mapping[str, float]:
        """Measure the drift of images, where that is on, after every so many steps and after the last; {} else.

        Comes before `evaluate_if_due`: an adapter that exceeds a limit here does not become the best one.
        """
        if not self._is_evaluation_due:
            return {}
        drift: Mapping[str, float] = {}
        if self._settings.health_images:
            with phase("measuring drift"):
                drift = self._oom_retrier.run(lambda: self.group.broadcast(self._measure_drift))
        self._monitor = self._monitor.after_evaluation(self.step, drift, self._settings.limits)
        return drift

    def _measure_drift(self) -> dict[str, float]:
        if self._preview is None:
            return {}
        with self.policy_weights():
            return self._preview.drift(batch_size=2 * self._oom_retrier.micro_pairs)

    def evaluate_if_due(self) -> Evaluation | None:
        """Evaluate on the held-out votes after every so many steps and after the last; keep the best adapter so far.

        That is, within the limits, the best on the held-out votes, of equals the later, or, without any, the latest.
        """
        if not self._is_evaluation_due:
            return None
        with self._ema_weights():
            evaluation = self._evaluate()
            if self.best is None or evaluation is None or evaluation.voted_probability >= _held_out_score(self.best):
                self.best = BestAdapter(self.step, self._adapter(), evaluation)
        return evaluation

    @property
    def _is_evaluation_due(self) -> bool:
        due = self.step % self._settings.evaluate_every == 0 or self.step == self.num_steps
        return due and self.violation is None

    def result(self) -> BestAdapter:
        """The adapter to publish: the best on the held-out votes or, without any, the last."""
        with self._ema_weights():
            return self.best or BestAdapter(self.step, self._adapter(), None)

    def checkpoint(self) -> Checkpoint:
        """Make a checkpoint, with the references that all processes of the group computed.

        Raises RoundFailedError when the processes' adapters are not the same to the bit.
        """
        self._check_adapters_agree()
        return Checkpoint(
            step=self.step,
            seconds=self.seconds,
            micro_pairs=self._oom_retrier.micro_pairs,
            numerics_key=self._references.numerics_key,
            tensors=self._adapter(),
            optimizer=OptimizerState.from_optimizer(self._optimizer, self._parameters),
            average=self._ema.state() if self._ema is not None else {},
            best=self.best,
            live_evaluation=self.live_evaluation,
            reference_cache=self._references.cache,
            monitor=self._monitor,
        )

    def save_reference(self) -> None:
        """Save the reference errors for the rounds to come. Raises StorageFullError."""
        self._references.save()

    def close(self) -> None:
        """Restore the denoiser to the base model."""
        restore_eager(self._denoiser.module)
        detach(self._denoiser.module)
        self._denoiser.module.disable_gradient_checkpointing()

    def _check_adapters_agree(self) -> None:
        if self.group.world_size == 1:
            return
        digests = self.group.all_gather(lambda: _digest(self._parameters))
        if len(set(digests)) > 1:
            raise RoundFailedError(
                f"after step {self.step} the {self.group.world_size} processes hold different adapters; are their "
                "GPUs and libraries the same?"
            )
        self._references.exchange()

    def _adapter(self) -> dict[str, Tensor]:
        return lora_state(self._denoiser.module, self._plan.spec.component)

    @contextmanager
    def policy_weights(self) -> Iterator[None]:
        """Context manager to render with the policy: the moving average, if any, in place, and no compiled forward."""
        with self._ema_weights(), eager_forward(self._denoiser.module):
            yield

    def _ema_weights(self) -> AbstractContextManager[None]:
        """Context manager with the moving average in the adapter's place, where there is one."""
        return nullcontext() if self._ema is None else self._ema.average_parameters()

    def _evaluate(self) -> Evaluation | None:
        """Evaluate on the held-out votes; None without any."""

        def in_pieces() -> Evaluation | None:
            held_out = self._references.held_out  # another one after each time that memory ran out
            if held_out is None:
                return None
            return evaluate(
                held_out,
                beta=self._plan.margin_beta,
                num_slots=self._settings.slots_per_pair,
                micro_pairs=self._oom_retrier.micro_pairs,
                group=self.group,
            )

        with phase("evaluating"):
            return self._oom_retrier.run(in_pieces)

    def _evaluate_live(self, parent: AdapterWeights | None) -> Evaluation | None:
        """Evaluate the live version on the held-out votes, for comparison."""
        held_out = self._references.held_out
        if held_out is None:
            return None
        if self._plan.parent_version == BASE_VERSION:
            with phase("evaluating"):
                return evaluate_base(held_out)
        if parent is None:
            return None
        load_state_in_place(attach(self._denoiser.module, parent.spec, seed=0), parent.tensors)
        return self._evaluate()

    def _warm_start(self, parent: AdapterWeights) -> None:
        try:
            load_state_in_place(self._parameters, parent.tensors)
        except AdapterMismatchError as error:
            _log.warning("round %d starts from a fresh adapter: %s", self._plan.round_id, error)


def _held_out_score(best: BestAdapter) -> float:
    return best.evaluation.voted_probability if best.evaluation else -math.inf


def _digest(parameters: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for parameter in parameters.values():
        digest.update(parameter.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


_Result = TypeVar("_Result")
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
