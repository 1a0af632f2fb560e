"""The adapter of one round while it is being trained. Knows tensors and files of references, not the database."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from dmpo_app.diffusion.adapter_files import AdapterWeights
from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.diffusion.fused_lora import fuse
from dmpo_app.diffusion.lora import attach, detach, load_state_in_place, lora_state
from dmpo_app.domain.lineage import BASE_VERSION
from dmpo_app.errors import AdapterMismatch, RoundFailed
from dmpo_app.training.distributed.process_group import ALONE, Group
from dmpo_app.training.loop.checkpoint import Best, Checkpoint
from dmpo_app.training.loop.compilation import can_compile, compile_in_place, restore, uncompiled
from dmpo_app.training.loop.ema import AdapterAverage
from dmpo_app.training.loop.oom import MemoryFit
from dmpo_app.training.loop.optimizers import OptimizerState, learning_rate_factor, make_optimizer, set_learning_rate
from dmpo_app.training.loop.step import StepResult, train_step
from dmpo_app.training.monitoring.early_stopping import HealthWatch, PassedLimit
from dmpo_app.training.monitoring.evaluation import Evaluation, evaluate, evaluate_base
from dmpo_app.training.monitoring.health import adapter_norm, num_outputs
from dmpo_app.training.monitoring.latent_preview import LatentPreview
from dmpo_app.training.reference.round_references import RoundReferences
from dmpo_app.training.rounds.round_plan import RoundPlan

_Result = TypeVar("_Result")
_log = logging.getLogger(__name__)
_OUT_OF_MEMORY = (
    "out of memory with a single pair at a time; free memory that other programs hold, or set a smaller "
    "DMPO_ROUND__RANK, DMPO_ROUND__TARGET_MODULES=attention, DMPO_RENDER__QUANTIZE=nf4 or a smaller base model"
)
_EVEN_SO = "; DMPO_ROUND__GRADIENT_CHECKPOINTING=auto would save the most"


class RoundTrainer:
    """Trains `plan` on `denoiser`, from its start or from a checkpoint; has the denoiser to itself until `close`.

    `parent` is the live version that the round is measured against and, with `warm_start`, begins at; None when that
    is the base model or cannot be read. References are looked up in and saved to `reference_folder`. `preview` is what
    images are watched with; None: they are not.
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
        group: Group = ALONE,
    ) -> None:
        self._plan = plan
        self._preview = preview
        self._watch = resume_from.watch if resume_from else HealthWatch()
        self._settings = plan.settings
        self._denoiser = denoiser
        self._group = group
        self._references = RoundReferences(plan, denoiser, reference_folder, group)
        rankings = plan.train.rankings
        own_pairs = len(group.part(rankings.draws_a_step(plan.settings.batch_pairs), block=rankings.block))
        self._fit = MemoryFit(
            denoiser.module,
            micro_pairs=min(resume_from.micro_pairs, own_pairs) if resume_from else own_pairs,
            gradient_checkpointing=plan.settings.gradient_checkpointing,
            on_smaller=self._references.use,
            block=rankings.block,
        )
        self._references.use(self._fit.micro_pairs, found=resume_from)
        self.step = resume_from.step if resume_from else 0
        """Steps done so far."""
        self.seconds = resume_from.seconds if resume_from else 0.0
        """Time spent in slices so far; kept by the runner."""
        self.best = resume_from.best if resume_from else None
        self.live = resume_from.live if resume_from else self._evaluate_live(parent)
        self._parameters = attach(denoiser.module, plan.spec, seed=plan.seed)
        if self._settings.compile and all(group.share(lambda: can_compile(denoiser.device))):
            compile_in_place(denoiser.module)
            self._references.use(self._fit.micro_pairs, compiled_with=plan.spec, found=resume_from)
        else:
            fuse(denoiser.module)
        self._root_outputs = math.sqrt(num_outputs(self._parameters))
        self._optimizer = make_optimizer(
            self._parameters,
            learning_rate=self._settings.learning_rate,
            name=self._settings.optimizer,
            weight_decay=self._settings.weight_decay,
        )
        decay = self._settings.ema_decay
        self._average = None if decay is None else AdapterAverage(self._parameters, decay)
        if resume_from:
            load_state_in_place(self._parameters, resume_from.tensors)
            resume_from.optimizer.restore(self._optimizer, self._parameters)
            if self._average is not None:
                self._average.restore(resume_from.average, self.step)
        elif parent is not None and self._settings.warm_start:
            self._start_at(parent)

    def train_step(self) -> StepResult:
        """The next step. Raises RoundFailed when it diverges or does not fit into memory."""
        self._fit.do(lambda: self._group.share(lambda: self._references.compute_for(self.step)))
        set_learning_rate(
            self._optimizer, self._settings.learning_rate * learning_rate_factor(self.step, self._settings)
        )
        result = self._fit.do(
            lambda: train_step(
                self._references.train,
                self._references.draws_of(self.step),
                self._parameters,
                self._optimizer,
                self._plan.loss,
                max_grad_norm=self._settings.max_grad_norm,
                micro_pairs=self._fit.micro_pairs,
                group=self._group,
            )
        )
        self.step += 1
        if self._average is not None:
            self._average.update()
        norm = adapter_norm(self._parameters, scaling=self._plan.spec.scaling)
        result = replace(result, adapter_norm=norm, adapter_rms=norm / self._root_outputs)
        self._watch = self._watch.after_step(self.step, result, self._settings.limits)
        return result

    @property
    def passed(self) -> PassedLimit | None:
        """The limit that ends the round before its last step."""
        return self._watch.passed

    @property
    def is_done(self) -> bool:
        """Whether there is no step left to do."""
        return self.step >= self._settings.num_steps or self.passed is not None

    def look_if_due(self) -> Mapping[str, float]:
        """How far images have drifted, where that is watched, after every so many steps and after the last; {} else.

        Comes before `evaluate_if_due`: an adapter that passes a limit here is not remembered.
        """
        if not self._look_is_due:
            return {}
        drift: Mapping[str, float] = {}
        if self._settings.health_images:
            drift = self._fit.do(lambda: self._group.led(self._drift))
        self._watch = self._watch.after_look(self.step, drift, self._settings.limits)
        return drift

    def _drift(self) -> dict[str, float]:
        if self._preview is None:
            return {}
        with self._averaged(), uncompiled(self._denoiser.module):
            return self._preview.drift(batch_size=2 * self._fit.micro_pairs)

    def evaluate_if_due(self) -> Evaluation | None:
        """Look at the held-out votes after every so many steps and after the last; remember the best adapter so far.

        That is, within the limits, the best on the held-out votes or, without any, the latest looked at.
        """
        if not self._look_is_due:
            return None
        with self._averaged():
            evaluation = self._evaluate()
            if self.best is None or evaluation is None or evaluation.loss < _loss_of(self.best):
                self.best = Best(self.step, self._adapter(), evaluation)
        return evaluation

    @property
    def _look_is_due(self) -> bool:
        due = self.step % self._settings.evaluate_every == 0 or self.step == self._settings.num_steps
        return due and self.passed is None

    def result(self) -> Best:
        """The adapter to publish: the best on the held-out votes or, without any, the last."""
        with self._averaged():
            return self.best or Best(self.step, self._adapter(), None)

    def checkpoint(self) -> Checkpoint:
        """Everything it takes to go on from here, with the references that all processes of the group found.

        Raises RoundFailed when the processes' adapters are not the same to the bit.
        """
        self._compare_notes()
        return Checkpoint(
            step=self.step,
            seconds=self.seconds,
            micro_pairs=self._fit.micro_pairs,
            numerics=self._references.numerics,
            tensors=self._adapter(),
            optimizer=OptimizerState.of(self._optimizer, self._parameters),
            average=self._average.state() if self._average is not None else {},
            best=self.best,
            live=self.live,
            reference=self._references.cache,
            watch=self._watch,
        )

    def save_reference(self) -> None:
        """Keep the reference errors for the rounds to come. Raises StorageFull."""
        self._references.save()

    def close(self) -> None:
        """Leave the denoiser as the base model."""
        restore(self._denoiser.module)
        detach(self._denoiser.module)
        self._denoiser.module.disable_gradient_checkpointing()

    def _compare_notes(self) -> None:
        if self._group.size == 1:
            return
        digests = self._group.share(lambda: _digest(self._parameters))
        if len(set(digests)) > 1:
            raise RoundFailed(
                f"after step {self.step} the {self._group.size} processes hold different adapters; are their GPUs and "
                "libraries the same?"
            )
        self._references.share()

    def _adapter(self) -> dict[str, Tensor]:
        return lora_state(self._denoiser.module, self._plan.spec.component)

    def _averaged(self) -> AbstractContextManager[None]:
        """The moving average in the adapter's place, where one is kept."""
        return nullcontext() if self._average is None else self._average.in_place()

    def _evaluate(self) -> Evaluation | None:
        """On the held-out votes; None without any."""

        def in_pieces() -> Evaluation | None:
            held_out = self._references.held_out  # another one after each time that memory ran out
            if held_out is None:
                return None
            return evaluate(
                held_out,
                beta=self._plan.margin_beta,
                num_slots=self._settings.slots_per_pair,
                micro_pairs=self._fit.micro_pairs,
                group=self._group,
            )

        return self._fit.do(in_pieces)

    def _evaluate_live(self, parent: AdapterWeights | None) -> Evaluation | None:
        """The live version on the held-out votes: what the round has to stand up to."""
        held_out = self._references.held_out
        if held_out is None:
            return None
        if self._plan.parent_version == BASE_VERSION:
            return evaluate_base(held_out)
        if parent is None:
            return None
        load_state_in_place(attach(self._denoiser.module, parent.spec, seed=0), parent.tensors)
        return self._evaluate()

    def _start_at(self, parent: AdapterWeights) -> None:
        try:
            load_state_in_place(self._parameters, parent.tensors)
        except AdapterMismatch as error:
            _log.warning("round %d starts from a fresh adapter: %s", self._plan.round_id, error)


def _loss_of(best: Best) -> float:
    return best.evaluation.loss if best.evaluation else float("inf")


def _digest(parameters: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for parameter in parameters.values():
        digest.update(parameter.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
