"""`dmpo doctor`: what the machine is like, and what would fail, before anything is started.

A check never raises: what it finds wrong is its answer.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import psutil
from sqlalchemy import make_url

from dmpo_app.errors import StudioError
from dmpo_app.labeling.text_checks import BlockList
from dmpo_app.server.wiring import read_prompts
from dmpo_app.settings import PROJECT_ROOT, Settings, mode_of, on_space
from dmpo_app.web.ports import free_port

_LOW_DISK_GB = 2.0
_LOW_MEMORY_GB = 2.0


class Verdict(StrEnum):
    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. `advice` is empty when there is nothing to do."""

    subject: str
    verdict: Verdict
    detail: str
    advice: str = ""


def examine(settings: Settings) -> Iterator[Finding]:
    """Every check in turn; importing torch makes one of them take seconds, hence a generator."""
    checks: tuple[Callable[[Settings], Finding], ...] = (
        _python, _packages, _mode, _database, _home, _disk, _memory, _port, _prompts, _base_model, _torch,
    )  # fmt: skip
    for check in checks:
        yield check(settings)
    if settings.render.quantize != "none":
        yield _quantize(settings)
    if settings.backup.url is not None:
        yield _backup(settings.backup.url)


def _python(_: Settings) -> Finding:
    version = platform.python_version()
    supported = (3, 11) <= sys.version_info[:2] <= (3, 13)
    verdict, advice = (Verdict.OK, "") if supported else (Verdict.PROBLEM, "use Python 3.11, 3.12 or 3.13")
    return Finding("python", verdict, f"{version} on {platform.system()} {platform.machine()}", advice)


def _packages(_: Settings) -> Finding:
    names = ("torch", "diffusers", "transformers", "peft", "gradio", "sqlalchemy")
    try:
        found = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    except importlib.metadata.PackageNotFoundError as error:
        return Finding("packages", Verdict.PROBLEM, f"{error.name} is not installed", "run `make setup`")
    return Finding("packages", Verdict.OK, found)


_MODES = {
    "cpu": "cpu: pictures and rounds on the processor",
    "gpu": "gpu: pictures and rounds on a GPU of its own",
    "zerogpu": "zerogpu: GPUs lent for a minute at a time by the people on the page",
}


def _mode(settings: Settings) -> Finding:
    try:
        detail = _MODES[mode_of(settings)]
    except StudioError as error:
        return Finding("mode", Verdict.PROBLEM, settings.hosting.mode, str(error))
    forgetful = on_space() and settings.home.is_relative_to(PROJECT_ROOT) and settings.backup.url is None
    advice = (
        "this Space's disk is wiped at every restart; set DMPO_BACKUP__URL, see docs/backup.md" if forgetful else ""
    )
    where = "; on a Space" if on_space() else ""
    return Finding("mode", Verdict.WARNING if forgetful else Verdict.OK, detail + where, advice)


def _database(settings: Settings) -> Finding:
    from dmpo_app.store.db.database import Database
    from dmpo_app.store.db.sqlite import safe_driver

    if settings.database is not None:
        try:
            database = Database.open(settings.database)
        except StudioError as error:
            return Finding("database", Verdict.PROBLEM, "cannot be used", str(error))
        database.close()
        return Finding("database", Verdict.OK, make_url(settings.database).render_as_string())
    try:
        module = safe_driver()
    except StudioError as error:
        return Finding("database", Verdict.PROBLEM, "unsafe", str(error))
    return Finding("database", Verdict.OK, f"SQLite {module.sqlite_version} from {module.__name__}")


def _home(settings: Settings) -> Finding:
    home = settings.home
    nearest = _nearest_folder(home)
    try:
        tempfile.TemporaryFile(dir=nearest).close()
    except OSError as error:
        detail = f"{home} cannot be written to ({error.strerror})"
        return Finding("home", Verdict.PROBLEM, detail, "set DMPO_HOME to a folder you own")
    return Finding("home", Verdict.OK, f"{home}{'' if home.exists() else ' (will be made)'}")


def _nearest_folder(path: Path) -> Path:
    """The folder itself or, where it does not exist yet, the one it would be made in."""
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())


def _disk(settings: Settings) -> Finding:
    nearest = _nearest_folder(settings.home)
    free_gb = shutil.disk_usage(nearest).free / 1e9
    low = free_gb < _LOW_DISK_GB
    advice = "votes are refused when the disk is full; make room or move DMPO_HOME" if low else ""
    return Finding("disk", Verdict.WARNING if low else Verdict.OK, f"{free_gb:.1f} GB free at {nearest}", advice)


def _memory(_: Settings) -> Finding:
    memory = psutil.virtual_memory()
    low = memory.available / 1e9 < _LOW_MEMORY_GB
    detail = f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB free, {os.cpu_count()} cores"
    return Finding("memory", Verdict.WARNING if low else Verdict.OK, detail, "close other programs" if low else "")


def _port(settings: Settings) -> Finding:
    try:
        free_port(settings.host, settings.port)
    except StudioError as error:
        return Finding("port", Verdict.WARNING, f"{settings.host}:{settings.port} cannot be had", str(error))
    return Finding("port", Verdict.OK, f"{settings.host}:{settings.port} is free")


def _prompts(settings: Settings) -> Finding:
    try:
        train, held_out = read_prompts(settings.pool.train_prompts), read_prompts(settings.pool.held_out_prompts)
    except StudioError as error:
        advice = "set DMPO_POOL__TRAIN_PROMPTS and DMPO_POOL__HELD_OUT_PROMPTS to text files, one prompt a line"
        return Finding("prompts", Verdict.PROBLEM, str(error), advice)
    try:
        BlockList.read(settings.labeling.blocked_words)
    except StudioError as error:
        return Finding("prompts", Verdict.PROBLEM, str(error), "set DMPO_LABELING__BLOCKED_WORDS to a text file")
    return Finding("prompts", Verdict.OK, f"{len(train)} to train on, {len(held_out)} held out")


def _base_model(settings: Settings) -> Finding:
    from dmpo_app.diffusion.base_models import family_of, require_safety_checker

    try:
        family = family_of(settings.base_model)
        if settings.render.safety_checker == "on":
            require_safety_checker(settings.base_model)
    except StudioError as error:
        return Finding("base model", Verdict.PROBLEM, settings.base_model, str(error))
    return Finding("base model", Verdict.OK, f"{settings.base_model} ({family})")


def _torch(settings: Settings) -> Finding:
    try:
        import torch
    except (ImportError, OSError) as error:
        return Finding("device", Verdict.PROBLEM, f"torch does not load: {error}", "run `make setup` again")
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        name = torch.cuda.get_device_name()
        return Finding("device", Verdict.OK, f"{name}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free")
    if torch.backends.mps.is_available():
        return Finding("device", Verdict.OK, "Apple GPU (mps)")
    pocket = Path(settings.base_model).name == "pocket"
    advice = "" if pocket else "a model of this size wants a GPU; on a CPU a pair takes minutes"
    return Finding("device", Verdict.OK if pocket else Verdict.WARNING, "CPU", advice)


def _quantize(settings: Settings) -> Finding:
    from dmpo_app.diffusion.devices import resolve_device
    from dmpo_app.diffusion.loading import resolve_dtype
    from dmpo_app.diffusion.quantization import quantization_config

    wanted = settings.render.quantize
    try:
        device = resolve_device(settings.render.device)
        quantization_config(wanted, device, resolve_dtype(settings.render.dtype, device))
    except StudioError as error:
        return Finding("quantize", Verdict.PROBLEM, wanted, str(error))
    return Finding("quantize", Verdict.OK, f"the denoiser in {wanted} on {device}")


def _backup(url: str) -> Finding:
    from dmpo_app.backup.remotes.remote import open_remote, without_credentials
    from dmpo_app.backup.snapshots import snapshot_names

    try:
        names = snapshot_names(open_remote(url))
    except StudioError as error:
        advice = "the studio does not open until it can be reached; is DMPO_BACKUP__URL right?"
        return Finding("backup", Verdict.PROBLEM, str(error), advice)
    newest = f"the newest snapshot is {names[-1]}" if names else "no snapshot yet"
    return Finding("backup", Verdict.OK, f"{without_credentials(url)}: {newest}")
