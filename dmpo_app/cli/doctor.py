"""`dmpo doctor`: checks of the machine and the settings, to tell what would fail before anything is started.

A check never raises: a fault is its result.
"""

import importlib.metadata
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.request import getproxies, proxy_bypass

from sqlalchemy import make_url

from dmpo_app.errors import StudioError
from dmpo_app.labeling.text_checks import BlockList
from dmpo_app.server.wiring import read_prompts
from dmpo_app.settings import PROJECT_ROOT, Settings, detect_mode, on_space
from dmpo_app.settings.host import local_home
from dmpo_app.settings.resources import measure_cores, measure_memory
from dmpo_app.store.home import require_local_disk
from dmpo_app.web.http_server import free_port

_LOW_DISK_GB = 2.0
_LOW_MEMORY_GB = 2.0


class CheckStatus(StrEnum):
    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """Result of one check, a line of the report. `advice` is empty when there is nothing to do."""

    subject: str
    status: CheckStatus
    detail: str
    advice: str = ""


def examine(settings: Settings) -> Iterator[CheckResult]:
    """Run every check in turn; importing torch makes one of them take seconds, hence a generator."""
    checks: tuple[Callable[[Settings], CheckResult], ...] = (
        _python, _packages, _mode, _database, _home, _disk, _memory, _cores, _port, _proxy, _access, _prompts,
        _base_model, _torch,
    )  # fmt: skip
    for check in checks:
        yield check(settings)
    if settings.render.quantize != "none":
        yield _quantize(settings)
    if settings.backup.url is not None:
        yield _backup(settings.backup.url)


def _python(_: Settings) -> CheckResult:
    version = platform.python_version()
    supported = (3, 11) <= sys.version_info[:2] <= (3, 13)
    status, advice = (CheckStatus.OK, "") if supported else (CheckStatus.PROBLEM, "use Python 3.11, 3.12 or 3.13")
    return CheckResult("python", status, f"{version} on {platform.system()} {platform.machine()}", advice)


def _packages(_: Settings) -> CheckResult:
    names = ("torch", "diffusers", "transformers", "peft", "gradio", "sqlalchemy")
    try:
        versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    except importlib.metadata.PackageNotFoundError as error:
        return CheckResult("packages", CheckStatus.PROBLEM, f"{error.name} is not installed", "run `make setup`")
    return CheckResult("packages", CheckStatus.OK, versions)


_MODES = {
    "cpu": "cpu: images and rounds on the processor",
    "gpu": "gpu: images and rounds on a GPU of its own",
    "zerogpu": "zerogpu: images and rounds in GPU minutes of the people on the page",
}


def _mode(settings: Settings) -> CheckResult:
    try:
        detail = _MODES[detect_mode(settings)]
    except StudioError as error:
        return CheckResult("mode", CheckStatus.PROBLEM, settings.hosting.mode, str(error))
    is_home_local = settings.home == local_home() or settings.home.is_relative_to(PROJECT_ROOT)
    is_disk_wiped = on_space() and is_home_local and settings.backup.url is None
    advice = (
        "this Space's disk is wiped at every restart; set DMPO_BACKUP__URL, see docs/backup.md" if is_disk_wiped else ""
    )
    space_note = "; on a Space" if on_space() else ""
    return CheckResult("mode", CheckStatus.WARNING if is_disk_wiped else CheckStatus.OK, detail + space_note, advice)


def _database(settings: Settings) -> CheckResult:
    from dmpo_app.store.db.database import Database
    from dmpo_app.store.db.sqlite import safe_driver

    if settings.database is not None:
        try:
            database = Database.open(settings.database)
        except StudioError as error:
            return CheckResult("database", CheckStatus.PROBLEM, "cannot be used", str(error))
        database.close()
        return CheckResult("database", CheckStatus.OK, make_url(settings.database).render_as_string())
    try:
        module = safe_driver()
    except StudioError as error:
        return CheckResult("database", CheckStatus.PROBLEM, "unsafe", str(error))
    return CheckResult("database", CheckStatus.OK, f"SQLite {module.sqlite_version} from {module.__name__}")


def _home(settings: Settings) -> CheckResult:
    home = settings.home
    nearest = _nearest_folder(home)
    try:
        tempfile.TemporaryFile(dir=nearest).close()
    except OSError as error:
        detail = f"{home} cannot be written to ({error.strerror})"
        return CheckResult("home", CheckStatus.PROBLEM, detail, "set DMPO_HOME to a folder you own")
    detail = f"{home}{'' if home.exists() else ' (will be made)'}"
    try:
        if settings.database is None:
            require_local_disk(home, is_network_allowed=False)
    except StudioError as error:
        status = CheckStatus.WARNING if settings.allow_network_disk else CheckStatus.PROBLEM
        return CheckResult("home", status, detail, str(error))
    return CheckResult("home", CheckStatus.OK, detail)


def _nearest_folder(path: Path) -> Path:
    """Nearest existing folder: the folder itself, or the one it would be made in."""
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())


def _disk(settings: Settings) -> CheckResult:
    nearest = _nearest_folder(settings.home)
    free_gb = shutil.disk_usage(nearest).free / 1e9
    low = free_gb < _LOW_DISK_GB
    advice = "votes are refused when the disk is full; make room or move DMPO_HOME" if low else ""
    return CheckResult(
        "disk", CheckStatus.WARNING if low else CheckStatus.OK, f"{free_gb:.1f} GB free at {nearest}", advice
    )


def _memory(_: Settings) -> CheckResult:
    memory = measure_memory()
    is_low = memory.available / 1e9 < _LOW_MEMORY_GB
    detail = f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB free"
    if memory.is_limited:
        detail += " (the container's limit)"
    advice = ("give the container more" if memory.is_limited else "close other programs") if is_low else ""
    return CheckResult("memory", CheckStatus.WARNING if is_low else CheckStatus.OK, detail, advice)


def _cores(_: Settings) -> CheckResult:
    return CheckResult("cores", CheckStatus.OK, str(measure_cores()))


def _port(settings: Settings) -> CheckResult:
    try:
        free_port(settings.host, settings.port)
    except StudioError as error:
        return CheckResult("port", CheckStatus.WARNING, f"{settings.host}:{settings.port} cannot be had", str(error))
    return CheckResult("port", CheckStatus.OK, f"{settings.host}:{settings.port} is free")


def _proxy(settings: Settings) -> CheckResult:
    """Proxies on both sides: those that the studio asks others through, and those that visitors come through."""
    outward = getproxies()
    named = ", ".join(
        f"{scheme} by {_without_password(url)}" for scheme, url in sorted(outward.items()) if scheme != "no"
    )
    excluded = "excluded" if proxy_bypass("127.0.0.1") else "not excluded, and never asked through it by the studio"
    ways = [f"others are asked through a proxy: {named}; loopback is {excluded}"] if named else ["no proxy to others"]
    ways.append(f"served below {settings.root_path}" if settings.root_path else "served at the root of its host")
    ways.append(f"believed proxies: {settings.trusted_proxies or 'none'}")
    is_alone = settings.public and not settings.trusted_proxies and settings.host in ("127.0.0.1", "::1", "localhost")
    advice = (
        "it is public and listens on loopback, so a reverse proxy stands in front: set DMPO_TRUSTED_PROXIES=127.0.0.1, "
        "or limits take all visitors for one" if is_alone else ""
    )  # fmt: skip
    return CheckResult("proxy", CheckStatus.WARNING if advice else CheckStatus.OK, "; ".join(ways), advice)


def _without_password(url: str) -> str:
    scheme, separator, rest = url.rpartition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def _access(settings: Settings) -> CheckResult:
    detail = f"{'public' if settings.public else 'not public'}, access: {settings.access}"
    if not settings.public or settings.identity.oidc_issuer is not None or settings.access != "open":
        return CheckResult("access", CheckStatus.OK, detail)
    advice = "one person can be many annotators: set DMPO_IDENTITY__OIDC_ISSUER, or DMPO_LABELING__ACCESS=invite"
    return CheckResult("access", CheckStatus.WARNING, f"{detail}, without sign-in", advice)


def _prompts(settings: Settings) -> CheckResult:
    try:
        train, held_out = read_prompts(settings.pool.train_prompts), read_prompts(settings.pool.held_out_prompts)
    except StudioError as error:
        advice = "set DMPO_POOL__TRAIN_PROMPTS and DMPO_POOL__HELD_OUT_PROMPTS to text files, one prompt a line"
        return CheckResult("prompts", CheckStatus.PROBLEM, str(error), advice)
    try:
        BlockList.read(settings.labeling.blocked_words)
    except StudioError as error:
        return CheckResult(
            "prompts", CheckStatus.PROBLEM, str(error), "set DMPO_LABELING__BLOCKED_WORDS to a text file"
        )
    return CheckResult("prompts", CheckStatus.OK, f"{len(train)} to train on, {len(held_out)} held out")


def _base_model(settings: Settings) -> CheckResult:
    from dmpo_app.diffusion.base_models import detect_family, require_safety_checker

    try:
        family = detect_family(settings.base_model)
        if settings.render.safety_checker == "on":
            require_safety_checker(settings.base_model)
    except StudioError as error:
        return CheckResult("base model", CheckStatus.PROBLEM, settings.base_model, str(error))
    return CheckResult("base model", CheckStatus.OK, f"{settings.base_model} ({family})")


def _torch(settings: Settings) -> CheckResult:
    try:
        import torch
    except (ImportError, OSError) as error:
        return CheckResult("device", CheckStatus.PROBLEM, f"torch does not load: {error}", "run `make setup` again")
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        name = torch.cuda.get_device_name()
        return CheckResult("device", CheckStatus.OK, f"{name}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free")
    if torch.backends.mps.is_available():
        return CheckResult("device", CheckStatus.OK, "Apple GPU (mps)")
    pocket = Path(settings.base_model).name == "pocket"
    advice = "" if pocket else "a model of this size wants a GPU; on a CPU a pair takes minutes"
    return CheckResult("device", CheckStatus.OK if pocket else CheckStatus.WARNING, "CPU", advice)


def _quantize(settings: Settings) -> CheckResult:
    from dmpo_app.diffusion.loading import resolve_dtype
    from dmpo_app.diffusion.placement import quantization_config, resolve_device

    quantization = settings.render.quantize
    try:
        device = resolve_device(settings.render.device)
        quantization_config(quantization, device, resolve_dtype(settings.render.dtype, device))
    except StudioError as error:
        return CheckResult("quantize", CheckStatus.PROBLEM, quantization, str(error))
    return CheckResult("quantize", CheckStatus.OK, f"the denoiser in {quantization} on {device}")


def _backup(url: str) -> CheckResult:
    from dmpo_app.backup.remotes import open_remote
    from dmpo_app.backup.remotes.remote import without_credentials
    from dmpo_app.backup.snapshots import snapshot_names

    try:
        names = snapshot_names(open_remote(url))
    except StudioError as error:
        advice = "the studio does not open until it can be reached; is DMPO_BACKUP__URL right?"
        return CheckResult("backup", CheckStatus.PROBLEM, str(error), advice)
    newest = f"the newest snapshot is {names[-1]}" if names else "no snapshot yet"
    return CheckResult("backup", CheckStatus.OK, f"{without_credentials(url)}: {newest}")
