"""The checkpoint of a round between two steps, as one file: resuming from it gives the same bits.

One safetensors file, replaced by one rename, so that there is never half a checkpoint:

    lora/<key>                      the adapter
    optimizer/<key>/<name>          what the optimizer keeps for a parameter, and groups/<position>/<name> for all
    average/<key>                   the moving average's sums, if there is one
    best/<key>                      the adapter that did best on the held-out votes so far
    reference/<draws|errors>        the reference errors in use, so that a resumed round sees the very same

and in its metadata one JSON text with the rest. There is no random state: examples are functions of seed and step.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from dmpo_app.io.files import write_atomically
from dmpo_app.training.loop.optimizers import OptimizerState
from dmpo_app.training.monitoring.early_stopping import EarlyStopMonitor, VoteAgreement
from dmpo_app.training.monitoring.evaluation import Evaluation
from dmpo_app.training.reference.reference_cache import ReferenceCache

FILE_NAME = "checkpoint.safetensors"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BestAdapter:
    """The best adapter so far, which may be published: its step, its tensors on the CPU, and its evaluation, if any."""

    step: int
    tensors: Mapping[str, Tensor]
    evaluation: Evaluation | None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of a round.

    `live_evaluation` is that of the live version on the held-out votes. `average` is empty when there is no EMA.
    `numerics_key` is the reference cache's key; references computed under another one are not used.
    """

    step: int
    seconds: float
    micro_pairs: int
    numerics_key: str
    tensors: Mapping[str, Tensor]
    optimizer: OptimizerState
    average: Mapping[str, Tensor]
    best: BestAdapter | None
    live_evaluation: Evaluation | None
    reference_cache: ReferenceCache
    monitor: EarlyStopMonitor = field(default_factory=EarlyStopMonitor)

    def save(self, folder: Path, *, plan: str) -> None:
        """Replace the round's checkpoint file. `plan` is the key of the round's plan. Raises StorageFullError."""
        tensors: dict[str, Tensor] = {}
        _put(tensors, "lora", self.tensors)
        _put(tensors, "optimizer", self.optimizer.tensors)
        _put(tensors, "groups", self.optimizer.group_tensors)
        _put(tensors, "average", self.average)
        _put(tensors, "best", self.best.tensors if self.best else {})
        _put(tensors, "reference", self.reference_cache.to_tensors())
        state = {
            "plan": plan,
            "step": self.step,
            "seconds": self.seconds,
            "micro_pairs": self.micro_pairs,
            "numerics": self.numerics_key,
            "optimizer": self.optimizer.numbers,
            "groups": self.optimizer.group_numbers,
            "best": {"step": self.best.step, "evaluation": _facts(self.best.evaluation)} if self.best else None,
            "live": _facts(self.live_evaluation),
            "watch": self.monitor.to_dict(),
        }
        write_atomically(folder / FILE_NAME, save(tensors, {"state": json.dumps(state)}))

    @classmethod
    def load(cls, folder: Path, *, plan: str) -> Self | None:
        """Load the checkpoint of this plan; None when there is no usable one, and then the round starts anew."""
        path = folder / FILE_NAME
        try:
            with safe_open(path, framework="pt") as file:
                state: dict[str, Any] = json.loads(file.metadata()["state"])
                tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError, TypeError, KeyError, ValueError) as error:
            _log.warning("checkpoint %s cannot be read (%s); the round starts anew", path, error)
            return None
        if state["plan"] != plan:
            _log.warning("checkpoint %s belongs to another plan of the round; it starts anew", path)
            return None
        best = state["best"]
        return cls(
            step=state["step"],
            seconds=state["seconds"],
            micro_pairs=state["micro_pairs"],
            numerics_key=state["numerics"],
            tensors=_take(tensors, "lora"),
            optimizer=OptimizerState(
                _take(tensors, "optimizer"), state["optimizer"], _take(tensors, "groups"), state["groups"]
            ),
            average=_take(tensors, "average"),
            best=BestAdapter(best["step"], _take(tensors, "best"), _evaluation(best["evaluation"])) if best else None,
            live_evaluation=_evaluation(state["live"]),
            reference_cache=ReferenceCache.from_tensors(_take(tensors, "reference")),
            monitor=EarlyStopMonitor.from_dict(state["watch"]),
        )


def _put(tensors: dict[str, Tensor], prefix: str, values: Mapping[str, Tensor]) -> None:
    tensors.update({f"{prefix}/{key}": value.contiguous() for key, value in values.items()})


def _take(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    start = f"{prefix}/"
    return {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}


def _facts(evaluation: Evaluation | None) -> dict[str, Any] | None:
    return asdict(evaluation) if evaluation else None


def _evaluation(facts: Mapping[str, Any] | None) -> Evaluation | None:
    if facts is None:
        return None
    if "voted_probability" not in facts:  # of a release that chose steps by the loss: it is made anew when it is due
        return None
    return Evaluation(
        voted_probability=facts["voted_probability"],
        loss=facts["loss"],
        agreement=VoteAgreement(**facts["agreement"]),
        margins=tuple(facts["margins"]),
    )
