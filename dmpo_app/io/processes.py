"""Processes: stop signals, starting one of this package, the limit of open files, errors of the system that pass."""

import errno
import logging
import math
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

_log = logging.getLogger(__name__)

_PASSING = frozenset(
    {
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.EAGAIN,
        errno.ENOBUFS,
        errno.EIO,
        errno.ESTALE,
        errno.ETIMEDOUT,
        errno.ECONNRESET,
        errno.ECONNREFUSED,
        errno.ECONNABORTED,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.ENETDOWN,
    }
)
"""Errors of the system that say nothing about what was asked for: too much is open, or something does not answer."""
_MANY_FILES = 65_536


def is_passing_error(error: BaseException) -> bool:
    """True for an error of the system that passes by itself, so that trying again is right.

    Too many open files or threads, too little memory, a disk or a network that does not answer.
    """
    if isinstance(error, OSError):
        return error.errno in _PASSING
    return isinstance(error, MemoryError) or is_without_threads(error)


def is_without_threads(error: BaseException) -> bool:
    """True for Python's own error, a RuntimeError, when the system starts no more threads for it."""
    return isinstance(error, RuntimeError) and "can't start new thread" in str(error)


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it came from, as a traceback shows it: the cause, else the error it was raised during."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)


def raise_open_files_limit() -> int:
    """Raise this process's limit of open files as far as it may without special rights, and return it.

    Many systems begin with 1,024 and allow a program more of them if it asks. Nothing is changed on Windows.
    """
    if sys.platform == "win32":
        return _MANY_FILES
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = min(_MANY_FILES, hard) if hard != resource.RLIM_INFINITY else _MANY_FILES
    if soft == resource.RLIM_INFINITY or soft >= limit:
        return limit if soft == resource.RLIM_INFINITY else soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    except (ValueError, OSError):  # macOS refuses more than its own maximum, whatever the hard limit says
        _log.info("the limit of open files stays at %d", soft)
        return soft
    return limit


_RUN_MODULE = """
import importlib.util, runpy, sys
folder, module = sys.argv[1:3]
del sys.argv[1:3]
spec = importlib.util.spec_from_file_location("dmpo_app", folder + "/__init__.py", submodule_search_locations=[folder])
sys.modules["dmpo_app"] = package = importlib.util.module_from_spec(spec)
spec.loader.exec_module(package)
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


def module_command(module: str) -> tuple[str, ...]:
    """The command line that runs a module of this package in a Python of its own, in whatever folder it is started.

    `python -m` looks into the current folder first, where a module named json may be anybody's: -P keeps it off the
    path, and the package is the very one that is running here, also where it is not installed.
    """
    return (sys.executable, "-P", "-c", _RUN_MODULE, str(Path(__file__).resolve().parents[1]), module)


class StopFlag:
    """A stop flag that signal handlers may set: `threading.Event` without the lock.

    A handler runs between two instructions of the main thread, also inside another handler. An Event's lock, if those
    instructions hold it, is then waited for for ever: 5 % of trainers that got a burst of SIGTERM did. Here setting is
    one store and one byte to a socket, which nobody ever reads: that wakes all who wait, however many.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._reader, self._writer = socket.socketpair()  # not a pipe: Windows waits for sockets alone
        self._writer.setblocking(False)

    def set(self) -> None:
        """Set the flag, for good."""
        if not self._is_set:
            self._is_set = True
            self._writer.send(b"\0")

    def is_set(self) -> bool:
        return self._is_set

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the flag is set, `timeout` seconds at most; True when it is."""
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        with _Selector() as selector:
            selector.register(self._reader, selectors.EVENT_READ)
            while not self._is_set and (seconds := min(deadline - time.monotonic(), _LONGEST_WAIT)) > 0:
                selector.select(None if seconds == math.inf else seconds)
        return self._is_set

    def __del__(self) -> None:
        self._reader.close()
        self._writer.close()


_Selector = getattr(selectors, "PollSelector", selectors.SelectSelector)
"""Not epoll, which costs a descriptor a wait; nor, where there is another, select, which knows only 1,024 of them."""
_LONGEST_WAIT = 0.5 if os.name == "nt" else math.inf
"""Windows runs no handler while the main thread waits for a socket."""


@contextmanager
def stop_signals() -> Iterator[StopFlag]:
    """A flag that SIGTERM and SIGINT set; the handlers that were there are back on exit."""
    stop_flag = StopFlag()

    def stop(_signal: int, _frame: FrameType | None) -> None:
        stop_flag.set()

    previous_handlers = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop_flag
    finally:
        for number, handler in previous_handlers.items():
            signal.signal(number, handler)
