"""The trainer process: `python -m dmpo_app.training.process.trainer_process --parent-pid N`.

It reads its settings as JSON on its input, loads the denoiser at once, says `ready` on its output, and then asks the
worker again and again. It ends cleanly (the step is finished, the round checkpointed) on SIGTERM and when its parent is
gone, however the parent went.
"""

from __future__ import annotations

import argparse
import ctypes
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TYPE_CHECKING

from dmpo_app.errors import SetupProblem
from dmpo_app.settings import Settings
from dmpo_app.training.process.supervisor import EXIT_SETUP, READY, TrainerProcess
from dmpo_app.training.rounds.round_progress import check_tracker

if TYPE_CHECKING:
    from dmpo_app.diffusion.denoiser import Denoiser
    from dmpo_app.training.distributed.process_group import Group
    from dmpo_app.training.rounds.scheduler import Worker

__all__ = ["TrainerProcess", "main", "run_worker"]

LOG_FILE = "trainer.log"
_LOG_BYTES, _LOG_BACKUPS = 1_000_000, 2
_PARENT_POLL_SECONDS = 1.0
_BREATH_SECONDS = 0.1
_LAST_CHANCE_SECONDS = 60.0
_PR_SET_PDEATHSIG = 1
_log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until told to stop; 0 then. EXIT_SETUP with the reason on stderr when the base model or the home is unfit."""
    parser = argparse.ArgumentParser(description="the trainer process of DMPO Studio; started by `dmpo serve`")
    parser.add_argument("--parent-pid", type=int, required=True)
    parser.add_argument("--owner", required=True, help="the name under which it holds the lineage's lease")
    options = parser.parse_args(arguments)
    settings = Settings.model_validate_json(sys.stdin.readline())
    stopping, ready = threading.Event(), threading.Event()

    def stop(*_: object) -> None:
        stopping.set()
        if not ready.is_set():
            os._exit(0)  # nothing is lost while the model loads, and that cannot be interrupted otherwise

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    _die_with_parent(options.parent_pid, stop, stopping)
    _log_to(settings.home)
    if hasattr(os, "nice"):
        os.nice(settings.trainer.nice)
    try:
        run_worker(settings, owner=options.owner, stopping=stopping, on_ready=lambda: _say_ready(ready))
    except SetupProblem as error:
        _log.error("%s", error)
        sys.stderr.write(f"{error}\n")
        return EXIT_SETUP
    except Exception as error:
        _log.exception("the trainer ends")
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        raise
    return 0


def run_worker(
    settings: Settings,
    *,
    owner: str,
    stopping: threading.Event,
    on_ready: Callable[[], None] = lambda: None,
    group: Group | None = None,
) -> None:
    """Train whenever it is time until `stopping` is set. Raises SetupProblem when base model or home are unfit.

    Of several processes in `group` the first does; the others train with it until it is stopped, and raise PeerLost
    when it is gone.
    """
    from dmpo_app.backup.startup import open_store
    from dmpo_app.diffusion.base_models import family_of, fingerprint
    from dmpo_app.store.store import utc_now

    check_tracker(settings.trainer.tracker)
    family, identity = family_of(settings.base_model), fingerprint(settings.base_model)  # told before slow imports
    with open_store(settings) as store:
        import torch

        from dmpo_app.training.distributed.process_group import ALONE, check_parts
        from dmpo_app.training.rounds.round_runner import follow
        from dmpo_app.training.rounds.scheduler import Worker

        group = group or ALONE
        torch.set_num_threads(trainer_threads(settings))
        denoiser = _load_denoiser(settings, identity, group)
        base = store.models.register(settings.base_model, family, identity)
        check_parts(group, settings.round.batch_pairs)
        if not group.leads:
            follow(store, base, denoiser, group)
            return
        worker = Worker(
            store, base, settings, denoiser, owner=owner, now=utc_now, should_stop=stopping.is_set, group=group
        )
        _log.info("ready: %s, %d torch threads", settings.base_model, torch.get_num_threads())
        on_ready()
        _work(worker, group, stopping, settings.trainer.poll_seconds)
    _log.info("stopped")


def _load_denoiser(settings: Settings, base_fingerprint: str, group: Group) -> Denoiser:
    """The denoiser, with the empty prompt where that is needed: encoded before it, so that both never share memory."""
    from dmpo_app.diffusion.loading import load_denoiser
    from dmpo_app.objective import objective_named
    from dmpo_app.training.data.encoding import EmptyPrompt
    from dmpo_app.training.distributed.process_group import own_device
    from dmpo_app.training.loop.optimizers import check_optimizer

    wanted, render = settings.round, settings.render
    objective_named(wanted.objective, wanted.objective_options)  # raises if there is none such
    source, device = settings.base_model, own_device(render.device)
    empty_prompt = EmptyPrompt.of_home(settings.home, source, base_fingerprint, device=device, dtype=render.dtype)
    if wanted.caption_dropout > 0:  # a round that was begun with other settings than these asks for it itself
        group.led_at_length(empty_prompt.prepare)
    denoiser = load_denoiser(source, device=device, dtype=render.dtype, quantize=render.quantize)
    check_optimizer(wanted.optimizer, denoiser.device)
    return replace(denoiser, empty_prompt=empty_prompt)


def _work(worker: Worker, group: Group, stopping: threading.Event, poll_seconds: float) -> None:
    """Tick until told to stop, with a word to the others of the group in between; the lease is given back."""
    from dmpo_app.training.rounds.round_runner import END, IDLE
    from dmpo_app.training.rounds.scheduler import Tick

    try:
        while not stopping.is_set():
            tick = worker.tick()
            group.led(lambda: IDLE)
            if tick is Tick.PREPARED:
                stopping.wait(_BREATH_SECONDS)  # nobody waits for this, and the page needs the processor too
            elif tick is not Tick.TRAINED:
                stopping.wait(poll_seconds)
        group.led(lambda: END)
    finally:
        worker.close()


def trainer_threads(settings: Settings) -> int:
    """Torch threads of the trainer: as set, else half the cores, shared by the processes that train together."""
    from dmpo_app.training.distributed.torchrun_env import processes_here

    return settings.trainer.num_threads or max(1, (os.cpu_count() or 1) // 2 // processes_here())


def _say_ready(ready: threading.Event) -> None:
    ready.set()
    print(READY, flush=True)  # noqa: T201 - the supervisor listens


def _die_with_parent(parent_pid: int, stop: Callable[[], None], stopping: threading.Event) -> None:
    """Stop when the parent is gone: at once by the kernel's signal on Linux, within a second elsewhere.

    A trainer that has not stopped a minute later hangs, and is ended the hard way; the checkpoint is what counts.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    def watch() -> None:
        while os.getppid() == parent_pid:
            if stopping.wait(_PARENT_POLL_SECONDS):
                return
        _log.warning("the parent process %d is gone; stopping", parent_pid)
        stop()
        threading.Event().wait(_LAST_CHANCE_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def _log_to(home: Path) -> None:
    home.mkdir(parents=True, exist_ok=True)
    handler = RotatingFileHandler(home / LOG_FILE, maxBytes=_LOG_BYTES, backupCount=_LOG_BACKUPS, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


if __name__ == "__main__":
    sys.exit(main())
