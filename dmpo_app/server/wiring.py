"""Wiring: builds the studio's objects; the only place that knows every concrete class."""

from __future__ import annotations

import json
import logging
import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from dmpo_app.backup.startup import open_store
from dmpo_app.diffusion.base_models import detect_family, fingerprint, require_safety_checker, resolve_sampling
from dmpo_app.domain.campaign import DurabilityPolicy
from dmpo_app.domain.lineage import BaseModelRef, Renderer, TrainerSupervisor, ZeroGpuService
from dmpo_app.errors import HomeLockedError, SetupError
from dmpo_app.exchange.importing.starter_pairs import read_starter_pairs
from dmpo_app.labeling.service import LabelingService
from dmpo_app.labeling.sign_in import Sealer, load_or_create_key
from dmpo_app.settings import Mode, Settings
from dmpo_app.store import Store

if TYPE_CHECKING:
    from dmpo_app.backup.backup_service import Backup
    from dmpo_app.hosting.zerogpu.start import ZeroGpuStudio
    from dmpo_app.rendering.render_thread import RenderThread
    from dmpo_app.training.process.supervisor import TrainerProcess
    from dmpo_app.web.services import Services

_log = logging.getLogger(__name__)

_OWNER_FILE = "serve.json"


@dataclass(frozen=True, slots=True)
class Lineage:
    """An open store with the base model that the settings name."""

    store: Store
    base: BaseModelRef


@contextmanager
def open_lineage(settings: Settings) -> Iterator[Lineage]:
    """Open the store, register the base model and its prompts, import the starter pairs. Needs no torch."""
    family = detect_family(settings.base_model)
    with open_store(settings) as store:
        base = store.models.register(settings.base_model, family, fingerprint(settings.base_model))
        store.prompts.ensure(read_prompts(settings.pool.held_out_prompts), held_out=True)
        store.prompts.ensure(read_prompts(settings.pool.train_prompts), held_out=False)
        _import_starter_pairs(store, base, settings.pool.starter_pairs)
        yield Lineage(store, base)


def read_prompts(path: Path) -> list[str]:
    """Read the prompts of a text file, one a line, without blank lines and lines starting with #."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"the prompt file {path} cannot be read: {error}") from error
    prompts = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not prompts:
        raise SetupError(f"the prompt file {path} holds no prompt; expected one a line")
    return prompts


def _import_starter_pairs(store: Store, base: BaseModelRef, path: Path) -> None:
    if not path.is_file() or store.pairs.count(base) > 0:
        return
    starter = read_starter_pairs(path)
    if starter.fingerprint == base.fingerprint:
        store.pairs.add_many(base, starter.pairs)
        _log.info("imported %d starter pairs", len(starter.pairs))


def build_labeling(
    settings: Settings,
    lineage: Lineage,
    problems: Sequence[Callable[[], str | None]] = (),
    durability: DurabilityPolicy | None = None,
) -> LabelingService:
    """Build the labeling service, with a key that outlives restarts and sides that nobody can foresee."""
    sealer = Sealer(load_or_create_key(settings.home))
    rng = random.SystemRandom()
    return LabelingService(
        lineage.store, lineage.base, settings, sealer, rng=rng, problems=problems, durability=durability
    )


def build_renderer(settings: Settings, lineage: Lineage) -> RenderThread:
    """Build the render thread. Raises SetupError when a safety checker is required and the model has none."""
    if settings.render.safety_checker == "on":
        require_safety_checker(settings.base_model)
    from dmpo_app.rendering.render_thread import RenderThread

    web_threads, _ = thread_split(os.cpu_count() or 1)
    return RenderThread(lineage.store, lineage.base, settings, num_threads=web_threads)


def build_trainer(settings: Settings) -> TrainerProcess:
    """Build the trainer that runs as a child process of the server."""
    from dmpo_app.training.process.supervisor import TrainerProcess

    return TrainerProcess(settings)


def build_zerogpu_studio(settings: Settings, lineage: Lineage) -> ZeroGpuStudio:
    """Build the studio for ZeroGPU, in the main thread, before the page is served: see `zerogpu.start`."""
    from dmpo_app.hosting.zerogpu.start import start

    return start(lineage.store, lineage.base, settings)


def build_services(
    settings: Settings,
    lineage: Lineage,
    renderer: Renderer,
    trainer: TrainerSupervisor,
    admin_token: str,
    backup: Backup | None = None,
    *,
    mode: Mode = "cpu",
    gpu_minutes: ZeroGpuService | None = None,
) -> Services:
    """Build the services that the page and the API take their answers from."""
    from dmpo_app.web.services import Services

    def renderer_problem() -> str | None:
        state = renderer.state
        return state.message if state.phase == "failed" or state.is_retrying else None

    def trainer_problem() -> str | None:
        return trainer.state.message or None

    backup_problem = () if backup is None else (backup.problem,)
    problems = (*backup_problem, renderer_problem, trainer_problem)
    labeling = build_labeling(settings, lineage, problems, backup)
    sampling = resolve_sampling(settings.base_model, settings.render)
    return Services(
        lineage.store,
        lineage.base,
        settings,
        labeling,
        renderer,
        trainer,
        admin_token,
        sampling,
        mode,
        gpu_minutes,
        backup_lag=None if backup is None else lambda: backup.lag_seconds,
    )


@contextmanager
def home_lock(settings: Settings, url: str) -> Iterator[None]:
    """Lock the home for one server that will listen at `url`. Raises HomeLockedError with the other one's address."""
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
        lock = FileLock(settings.home / "serve.lock", timeout=0)
        lock.acquire()
    except Timeout as error:
        raise HomeLockedError(
            f"another studio serves {settings.home}{_owner_note(settings.home)}; stop it, or choose another home: "
            "dmpo serve --home FOLDER"
        ) from error
    except OSError as error:
        raise SetupError(f"{settings.home} cannot be written to ({error}); choose another: --home FOLDER") from error
    owner = settings.home / _OWNER_FILE
    try:
        owner.write_text(json.dumps({"url": url, "pid": os.getpid()}), encoding="utf-8")
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def _owner_note(home: Path) -> str:
    try:
        owner = json.loads((home / _OWNER_FILE).read_text(encoding="utf-8"))
        return f" at {owner['url']} (process {owner['pid']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def thread_split(cores: int) -> tuple[int, int]:
    """Split the cores to torch threads of (web, trainer), where the CPU does the work: half each, at least one."""
    trainer = max(1, cores // 2)
    return max(1, cores - trainer), trainer
