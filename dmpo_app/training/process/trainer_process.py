"""The trainer process: `python -m dmpo_app.training.process.trainer_process --parent-pid N`.

It reads its settings as JSON on its input, loads the denoiser at once, says `ready` on its output, and then ticks the
scheduler of rounds again and again. It ends cleanly (the step is finished, the round checkpointed) on SIGTERM and when
its parent is gone, however the parent went.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from logging.handlers import RotatingFileHandler
from types import MappingProxyType
from typing import IO, TYPE_CHECKING

from dmpo_app.diffusion.hub import is_passing_load_error
from dmpo_app.errors import SetupError
from dmpo_app.io.files import make_files_private
from dmpo_app.io.liveness import Activity, LifeThread, advance, announce_through, signal_on_parents_death
from dmpo_app.io.logs import formatter_for
from dmpo_app.io.processes import StopFlag
from dmpo_app.settings import Settings
from dmpo_app.settings.resources import available_cores, torch_threads
from dmpo_app.training.process.supervisor import EXIT_PASSING, EXIT_SETUP, READY, WAITING, TrainerProcess

if TYPE_CHECKING:
    from dmpo_app.diffusion.denoiser import Denoiser
    from dmpo_app.training.distributed.process_group import ProcessGroup
    from dmpo_app.training.rounds.scheduler import RoundScheduler

__all__ = ["TrainerProcess", "main", "run_trainer"]

LOG_FILE, STACKS_FILE = "trainer.log", "trainer-stacks.log"
_LOG_BYTES, _LOG_BACKUPS = 1_000_000, 2
_LOG_LINE = "%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"
_PREFETCH_PAUSE_SECONDS = 0.1
_FROZEN_FACTOR = 1.5
"""Of `silent_seconds`: the supervisor, while there is one, ends a frozen trainer first, and says so."""
_TRACKER_PACKAGES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"none": (), "tensorboard": ("tensorboard", "tensorboardX"), "trackio": ("trackio",), "wandb": ("wandb",)}
)
_log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the trainer until told to stop; returns 0 then.

    Returns EXIT_SETUP, with the reason on stderr, when the base model or the home is unfit, and EXIT_PASSING when the
    model could not be loaded for a reason that passes.
    """
    parser = argparse.ArgumentParser(description="the trainer process of DMPO Studio; started by `dmpo serve`")
    parser.add_argument("--parent-pid", type=int, required=True)
    parser.add_argument("--owner", required=True, help="the name under which it holds the lineage's lease")
    parser.add_argument("--hang", default="", help="why the trainer before this one was ended as hanging, if it was")
    options = parser.parse_args(arguments)
    signal_on_parents_death(options.parent_pid)
    settings = Settings.model_validate_json(sys.stdin.readline())
    limits = settings.trainer
    activity = Activity("loading", stall_seconds=limits.stall_seconds, phase_seconds=limits.phase_seconds)
    announce_through(activity)
    stop_flag = StopFlag()
    make_files_private()
    with _open_log(settings) as stacks:
        life = LifeThread(
            options.parent_pid,
            activity,
            stop_flag,
            stacks=stacks,
            frozen_seconds=_FROZEN_FACTOR * limits.silent_seconds,
        )
        life.start()
        if hasattr(os, "nice"):
            os.nice(limits.nice)

        def announce_ready() -> None:
            life.may_exit = False
            print(READY, flush=True)  # noqa: T201 - the supervisor listens

        try:
            run_trainer(settings, owner=options.owner, stop_flag=stop_flag, on_ready=announce_ready, hang=options.hang)
        except SetupError as error:
            _log.error("%s", error)
            sys.stderr.write(f"{error}\n")
            return EXIT_PASSING if is_passing_load_error(error) else EXIT_SETUP
        except Exception as error:
            _log.exception("the trainer ends")
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            if life.may_exit and is_passing_load_error(error):
                return EXIT_PASSING
            raise
    return 0


def run_trainer(
    settings: Settings,
    *,
    owner: str,
    stop_flag: StopFlag,
    on_ready: Callable[[], None] = lambda: None,
    group: ProcessGroup | None = None,
    hang: str = "",
) -> None:
    """Train whenever a round is due, until `stop_flag` is set. Raises SetupError when base model or home are unfit.

    `hang` says how the trainer before this one was found to hang, if it was: an attempt of the round it was in.
    Of several processes in `group` the main one decides; the others train with it until it is stopped, and raise
    PeerLostError when it is gone.
    """
    from dmpo_app.backup.startup import open_store
    from dmpo_app.diffusion.base_models import detect_family, fingerprint
    from dmpo_app.store.store import utc_now

    # Told before slow imports.
    check_tracker(settings.trainer.tracker)
    family, identity = detect_family(settings.base_model), fingerprint(settings.base_model)
    with open_store(settings) as store:
        import torch

        from dmpo_app.training.distributed.process_group import SINGLE_PROCESS, check_world_size
        from dmpo_app.training.rounds.scheduler import RoundScheduler, run_secondary_process

        group = group or SINGLE_PROCESS
        torch.set_num_threads(trainer_threads(settings))
        denoiser = _load_denoiser(settings, identity, group)
        base = store.models.register(settings.base_model, family, identity)
        check_world_size(group, settings.round.batch_pairs)
        if not group.is_main:
            run_secondary_process(store, base, denoiser, group)
            return
        scheduler = RoundScheduler(
            store,
            base,
            settings,
            denoiser,
            owner=owner,
            now=utc_now,
            should_stop=stop_flag.is_set,
            group=group,
            hang=hang,
        )
        _log.info("ready: %s, %d torch threads", settings.base_model, torch.get_num_threads())
        on_ready()
        _work(scheduler, group, stop_flag, settings.trainer.poll_seconds)
    _log.info("stopped")


def check_tracker(name: str) -> None:
    """Raise SetupError unless one of the packages that the tracker needs is installed."""
    packages = _TRACKER_PACKAGES[name]
    if packages and not any(importlib.util.find_spec(package) for package in packages):
        raise SetupError(
            f"the tracker {name!r} needs a package that is not installed; `pip install {packages[0]}`, or set "
            "DMPO_TRAINER__TRACKER=none"
        )


def _load_denoiser(settings: Settings, base_fingerprint: str, group: ProcessGroup) -> Denoiser:
    """Load the denoiser, after encoding the empty prompt where that is needed, so that both never share memory."""
    from dmpo_app.diffusion.loading import load_denoiser
    from dmpo_app.objective import load_objective
    from dmpo_app.training.data.encoding import EmptyPrompt
    from dmpo_app.training.distributed.process_group import device_for_process
    from dmpo_app.training.loop.optimizers import check_optimizer

    round_settings, render = settings.round, settings.render
    load_objective(round_settings.objective, round_settings.objective_options)  # raises if there is none such
    source, device = settings.base_model, device_for_process(render.device)
    empty_prompt = EmptyPrompt.from_home(settings.home, source, base_fingerprint, device=device, dtype=render.dtype)
    if round_settings.caption_dropout > 0:  # a round that was begun with other settings than these asks for it itself
        group.broadcast_with_heartbeat(empty_prompt.ensure_exists)
    denoiser = load_denoiser(source, device=device, dtype=render.dtype, quantize=render.quantize)
    check_optimizer(round_settings.optimizer, denoiser.device)
    return replace(denoiser, empty_prompt=empty_prompt)


def _work(scheduler: RoundScheduler, group: ProcessGroup, stop_flag: StopFlag, poll_seconds: float) -> None:
    """Run ticks until told to stop, each followed by a broadcast to the group; release the lease at the end."""
    from dmpo_app.training.rounds.scheduler import END, IDLE, Tick

    try:
        while not stop_flag.is_set():
            advance(WAITING)
            tick = scheduler.tick()
            group.broadcast(lambda: IDLE)
            if tick is Tick.PREPARED:
                stop_flag.wait(_PREFETCH_PAUSE_SECONDS)  # nobody waits for this, and the page needs the processor too
            elif tick is not Tick.TRAINED:
                stop_flag.wait(poll_seconds)
        group.broadcast(lambda: END)
    finally:
        scheduler.close()


def trainer_threads(settings: Settings) -> int:
    """The number of torch threads of the trainer: as set, else half the cores, shared by the group's processes."""
    from dmpo_app.training.distributed.torchrun_env import local_world_size

    return settings.trainer.num_threads or torch_threads(available_cores() // 2 // local_world_size())


def _open_log(settings: Settings) -> IO[bytes]:
    """Log to a file in the home; returns another, never renamed, for the stacks of one that hangs."""
    settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = settings.home / LOG_FILE
    handler = RotatingFileHandler(path, maxBytes=_LOG_BYTES, backupCount=_LOG_BACKUPS, encoding="utf-8")
    handler.setFormatter(formatter_for(settings.log_format, _LOG_LINE))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    stacks = settings.home / STACKS_FILE
    is_long = stacks.exists() and stacks.stat().st_size > _LOG_BYTES
    return stacks.open("wb" if is_long else "ab")


if __name__ == "__main__":
    status = main()
    logging.shutdown()
    # All is closed and durable. Python's own end would take down torch, its threads and its libraries one by one.
    os._exit(status)
