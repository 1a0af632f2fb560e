"""Errors of a start in sentences: those that the system and libraries raise, and a log for what nobody foresaw.

Imports nothing but the standard library and the exception tree, since a package that does not load is one of them.
"""

import errno
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from dmpo_app.errors import SetupError, StudioError
from dmpo_app.io.files import is_disk_error
from dmpo_app.io.processes import causes, is_without_threads

LOG_NAME = "start-errors.log"
_PACKAGE = Path(__file__).resolve().parents[1]
_LONGEST_MESSAGE = 600
_PROXY_SCHEMES = ("http", "https", "socks4", "socks5", "socks5h")
_OUT_OF_MEMORY = ("failed to map segment", "cannot allocate memory", "std::bad_alloc")
_REINSTALL = (
    "install the requirements again: `make setup` in a checkout, else `pip install --force-reinstall dmpo-studio`"
)


@contextmanager
def start_errors_explained(home: Path | None = None) -> Iterator[None]:
    """Translate whatever ends a start inside to SetupError, with it as cause; refused settings say it themselves.

    The traceback of an error that has no explanation here is written to a log: in `home`, else in the folder of
    temporary files.
    """
    try:
        yield
    except Exception as error:
        # Among its causes too: a limit of the system shows as the failure of whatever met it.
        limit = next(filter(None, map(_explain_limit, causes(error))), None)
        if limit is None and (isinstance(error, StudioError) or _is_refused_setting(error)):
            raise
        raise SetupError(limit or explain(error) or _explain_proxy() or _unforeseen(error, home)) from error


def _explain_limit(error: BaseException) -> str | None:
    """Explain an error as a limit of the system that was met: memory, threads, open files; None for others."""
    message = _one_line(error)
    if _is_out_of_memory(error, message):
        return (
            f"there is too little memory to start ({message}); the server takes about 1 GB with the pocket model. "
            "Close other programs, or give the container more"
        )
    if is_without_threads(error) or getattr(error, "errno", None) == errno.EAGAIN:
        return (
            f"no more threads or processes can be started here ({message}); raise the limit: `ulimit -u`, TasksMax= of "
            "systemd, `docker run --pids-limit`"
        )
    if getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE):
        return (
            f"too many files are open already ({message}); raise the limit to 1024 or more: `ulimit -n`, LimitNOFILE= "
            "of systemd, `docker run --ulimit nofile=4096`"
        )
    return None


def _explain_proxy() -> str | None:
    """Name the variable of a proxy that is no address, which packages read when they are imported; None without one."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        value = os.environ.get(name, "")
        try:
            address = urlsplit(value if "://" in value else f"http://{value}")
            is_one = address.scheme in _PROXY_SCHEMES and bool(address.hostname) and address.port != 0
        except ValueError:
            is_one = False
        if value and not is_one:
            return f"{name} is no address of a proxy; expected one such as http://proxy.example.org:3128, or unset it"
    return None


def explain(error: Exception) -> str | None:
    """Explain an error of the system or of a library in a sentence with the way out; None for what is not known."""
    message = _one_line(error)
    if isinstance(error, ModuleNotFoundError):
        return f"the package {error.name} is missing; {_REINSTALL}"
    if isinstance(error, ImportError) or "shared object file" in message:
        return f"a package does not load ({message}); {_REINSTALL}"
    if _is_database_error(error):
        return (
            f"the database cannot be used ({_one_line(getattr(error, 'orig', None) or error)}); is it damaged, or of "
            "another program? `dmpo verify` examines a home; DMPO_HOME or DMPO_DATABASE_URL names another"
        )
    return _explain_file_error(error) if isinstance(error, OSError) else None


def _explain_file_error(error: OSError) -> str | None:
    if error.filename is None:
        return None
    reason = f"{os.fsdecode(error.filename)} cannot be used ({error.strerror})"
    if is_disk_error(error):
        return f"{reason}; the disk is full or failing: make room, or set DMPO_HOME to a folder on another"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{reason}; it has to be readable and writable for the user that runs the studio"
    return f"{reason}; move it away if it does not belong there, or set DMPO_HOME to another folder"


def _is_out_of_memory(error: BaseException, message: str) -> bool:
    is_told = any(words in message.lower() for words in _OUT_OF_MEMORY)
    return isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM or is_told


def _is_refused_setting(error: Exception) -> bool:
    pydantic_core = sys.modules.get("pydantic_core")
    return pydantic_core is not None and isinstance(error, pydantic_core.ValidationError)


def _is_database_error(error: Exception) -> bool:
    exceptions = sys.modules.get("sqlalchemy.exc")
    return exceptions is not None and isinstance(error, exceptions.DBAPIError)


def _unforeseen(error: Exception, home: Path | None) -> str:
    log = _write_log(error, home)
    details = "start it with --verbose to see the details" if log is None else f"the log has the details: {log}"
    return f"the studio could not start: {type(error).__name__}: {_one_line(error)}{_place(error)}; {details}"


def _place(error: Exception) -> str:
    """The innermost place of this package that an error passed."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(_PACKAGE)
    ]
    if not frames:
        return ""
    path = Path(frames[-1].filename).relative_to(_PACKAGE.parent)
    return f" (in {path}, line {frames[-1].lineno}, {frames[-1].name})"


def _write_log(error: Exception, home: Path | None) -> Path | None:
    """Append the traceback to the first log that can be written; for its owner to read."""
    text = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC\n{''.join(traceback.format_exception(error))}\n"
    with suppress(OSError):
        folders = [] if home is None or not home.is_dir() else [home]
        for folder in (*folders, Path(tempfile.gettempdir())):
            path = folder / (LOG_NAME if folder == home else f"dmpo-{os.getpid()}-{LOG_NAME}")
            with suppress(OSError):
                with os.fdopen(
                    os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "w", encoding="utf-8"
                ) as file:
                    file.write(text)
                return path
    return None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:_LONGEST_MESSAGE] or type(error).__name__
