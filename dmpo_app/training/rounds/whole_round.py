"""One round from its settings to its last slice, in the process that leads it and in those that train along."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import torch

from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.domain.round import RoundState
from dmpo_app.errors import RoundFailed
from dmpo_app.io import write_atomically
from dmpo_app.labeling.quality.quality_service import weighing_of
from dmpo_app.settings import RoundSettings, Settings
from dmpo_app.store import Store
from dmpo_app.training.data.dataset import is_held_out
from dmpo_app.training.distributed.group import Group
from dmpo_app.training.reference.prefetch import calibrated_settings
from dmpo_app.training.rounds.held_lease import HeldLease
from dmpo_app.training.rounds.round_plan import start_round
from dmpo_app.training.rounds.round_progress import Track
from dmpo_app.training.rounds.round_runner import RoundRunner, SliceOutcome, round_folder
from dmpo_app.training.rounds.scorer_targets import AutomaticPlan, score_for_round
from dmpo_app.training.rounds.trackers import tracked_round

MAX_DEATHS = 10
"""A round that takes the whole process down this often in a row without getting any further is given up."""
IDLE, END = "idle", "end"
"""What a leading process tells the others between rounds; the number of a round is an order to train it with it."""
_NO_TOKEN = -1
_log = logging.getLogger(__name__)


def follow(store: Store, base: BaseModelRef, denoiser: Denoiser, group: Group) -> None:
    """Train what the group's leading process trains until it says END. Raises whatever ends a round there or here."""
    while (order := group.led(str)) != END:
        if order == IDLE:
            continue
        runner = RoundRunner(store, base, denoiser, store.rounds.get(int(order)), token=_NO_TOKEN, group=group)
        try:
            while runner.run_slice() is SliceOutcome.MORE:
                pass
        finally:
            runner.close()


class RoundLeader:
    """Trains the rounds of one lineage, one at a time, under its lease; the group's other processes `follow`."""

    def __init__(
        self,
        store: Store,
        base: BaseModelRef,
        settings: Settings,
        denoiser: Denoiser,
        *,
        lease: HeldLease,
        should_stop: Callable[[], bool],
        group: Group,
    ) -> None:
        self._store = store
        self._base = base
        self._settings = settings
        self._denoiser = denoiser
        self._lease = lease
        self._should_stop = should_stop
        self._group = group

    def train(self, state: RoundState) -> SliceOutcome:
        """Start or resume the round and go on until it is over or a stop is asked for. Raises whatever ends it."""
        settings, automatic = self._prepared(state)
        started = start_round(
            self._store,
            self._base,
            state.id,
            trigger=state.trigger,
            settings=settings,
            environment=self._environment(),
            token=self._lease.token,
            question=self._settings.labeling.training_question,
            automatic=automatic,
            weighing=weighing_of(self._settings),
        )
        _log.info("round %d: %d votes, attempt %d", started.id, started.num_votes, started.attempts)
        self._group.led(lambda: str(started.id))
        config = started.config.get("settings", {})
        with closing(tracked_round(self._settings.trainer.tracker, self._store.home, started.id, config)) as tracked:
            return self._run(started, tracked)

    def _prepared(self, state: RoundState) -> tuple[RoundSettings, AutomaticPlan | None]:
        """What a round starts with: its settings with every beta, and the evidence of scorers. One that was started
        before keeps what it has."""
        settings = self._settings.round
        if state.started_at is not None:
            return settings, None
        votes = self._store.votes.training_votes(self._base, question=self._settings.labeling.training_question)
        calibrated = calibrated_settings(self._store, self._base, self._denoiser, settings, votes)
        automatic = score_for_round(
            self._store,
            self._base,
            settings.scoring,
            votes,
            may_train_on=lambda prompt: not is_held_out(prompt, share=settings.held_out_share, seed=settings.seed),
            device=self._denoiser.device.type,
            heartbeat=self._show_life,
        )
        return calibrated, automatic

    def _run(self, started: RoundState, track: Track) -> SliceOutcome:
        runner = RoundRunner(
            self._store,
            self._base,
            self._denoiser,
            started,
            token=self._lease.token,
            heartbeat=self._lease.renew,
            should_stop=self._should_stop,
            track=track,
            group=self._group,
        )
        try:
            count_start(round_folder(self._store.home, started.id) / "starts.json", runner.step)
            outcome = SliceOutcome.MORE
            while outcome is SliceOutcome.MORE:
                outcome = runner.run_slice()
            return outcome
        finally:
            runner.close()

    def _show_life(self) -> None:
        """To the lease, and to the processes that wait to train along."""
        self._lease.renew()
        self._group.led(lambda: IDLE)

    def _environment(self) -> dict[str, str | int]:
        return {
            "processes": self._group.size,
            "device": self._denoiser.device.type,
            "dtype": self._denoiser.precision,
            "num_threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }


def count_start(path: Path, step: int) -> None:
    """Give up on a round that kills the process again and again at one place, for want of memory most likely.

    Being killed while getting on is no failure: a round may be resumed any number of times.
    """
    try:
        earlier = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        earlier = {"step": -1, "starts": 0}
    starts = earlier["starts"] + 1 if earlier["step"] == step else 1
    if starts > MAX_DEATHS:
        raise RoundFailed(
            f"the trainer died {MAX_DEATHS} times in a row at step {step}; most likely the system ended it for "
            "want of memory: set a smaller DMPO_ROUND__BATCH_PAIRS or DMPO_ROUND__RANK"
        )
    write_atomically(path, json.dumps({"step": step, "starts": starts}).encode())
