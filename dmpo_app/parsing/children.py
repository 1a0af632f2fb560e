"""Parser processes as their parent sees them: the one place that decides where strangers' files are opened.

A child is a fresh interpreter with the limits of `ParserLimits`, no secrets in its environment, and pipes for input
and output. A function runs in it by `call`, a generator by `stream`: the generator is a plain one, and the pipe holds
it back until its items are taken. Whatever becomes of a child, its parent gets an error that names file and limit.
"""

import builtins
import logging
import os
import pickle
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from io import BufferedReader
from typing import Any, Self, TypeVar, cast

from dmpo_app import errors
from dmpo_app.domain.limits import ParserLimits
from dmpo_app.io.processes import module_command
from dmpo_app.parsing import child_process as protocol
from dmpo_app.parsing.limits import exceeded, out_of_memory, setting

_log = logging.getLogger(__name__)
T = TypeVar("T")

COMMAND = module_command("dmpo_app.parsing.child_process")
_PASSED = frozenset((
    "PATH", "LANG", "LANGUAGE", "TZ", "HOME", "USERPROFILE", "SYSTEMROOT", "TEMP", "TMP", "TMPDIR", "PYTHONPATH",
    "PYTHONHOME", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONDONTWRITEBYTECODE",
))  # fmt: skip
_PASSED_FOR_HUB = frozenset((
    "HF_TOKEN", "HF_TOKEN_PATH", "HF_ENDPOINT", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_HUB_ETAG_TIMEOUT",
    "HF_HUB_DOWNLOAD_TIMEOUT", "HF_DATASETS_CACHE", "HF_DATASETS_OFFLINE", "XDG_CACHE_HOME", "SSL_CERT_FILE",
    "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY",
))  # fmt: skip
# One thread each and no reserves: address space is what is limited, and an arena of mimalloc alone is 1 GiB of it.
_FIXED = {"ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "2"} | dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "ARROW_IO_THREADS"), "1"
)
_START_SECONDS = 120.0
_OVERHEAD_BYTES = 16 << 20
HUB_WRITTEN_BYTES = 1 << 30
"""The largest file that the client of the hub may write into its cache."""


def child_environment(*, for_hub: bool) -> dict[str, str]:
    """The environment of a child: what an interpreter needs, and for the hub its token and proxies. No other secret."""
    passed = _PASSED | _PASSED_FOR_HUB if for_hub else _PASSED
    kept = {name: value for name, value in os.environ.items() if name.upper() in passed or name.startswith("LC_")}
    return kept | _FIXED


class _CappedStream:
    """The output of a child as an unpickler reads it, to a largest number of bytes for each reply."""

    def __init__(self, stream: BufferedReader) -> None:
        self._stream = stream
        self.left = 0

    def read(self, size: int) -> bytes:
        self._take(size)
        return self._stream.read(size)

    def readinto(self, buffer: Any) -> int:
        self._take(len(buffer))
        return self._stream.readinto(buffer)

    def readline(self) -> bytes:
        line = self._stream.readline(self.left + 1)
        self._take(len(line))
        return line

    def close(self) -> None:
        self._stream.close()

    def _take(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise pickle.UnpicklingError("a reply is larger than it may be")


class _PlainUnpickler(pickle.Unpickler):
    """An unpickler of plain values alone: a child whose parser was taken over must not reach its parent."""

    def find_class(self, module: str, name: str) -> Any:
        for known in protocol.PLAIN_CLASSES:
            if (known.__module__.removeprefix("_"), known.__name__) == (module.removeprefix("_"), name):
                return known
        if (module, name) == ("builtins", "str"):
            return builtins.str
        raise pickle.UnpicklingError(f"{module}.{name} is no plain value")


class ParserChild:
    """One parser process for one file or data set, whose `name` stands in the errors; use it in one thread at a time.

    `max_written`: bytes of the largest file that it may write; None: next to nothing. `for_hub`: it gets the hub's
    token. Raises StudioError when it does not start.
    """

    def __init__(
        self,
        name: str,
        limits: ParserLimits,
        *,
        max_written: int | None = None,
        for_hub: bool = False,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self._name = name
        self._limits = limits
        self._is_late = False
        try:
            self._process, self._life = _start(command, child_environment(for_hub=for_hub))
        except OSError as error:
            raise errors.SystemExhaustedError(f"no process to read {name} can be started ({error.strerror})") from error
        assert self._process.stdin is not None  # both were asked for
        assert isinstance(self._process.stdout, BufferedReader)
        self._stdin = self._process.stdin
        self._stdout = _CappedStream(self._process.stdout)
        try:
            self._receive(_START_SECONDS, _OVERHEAD_BYTES)
            self._send({"limits": limits, "max_written": max_written})
        except (EOFError, BrokenPipeError) as error:
            raise errors.StudioError(
                f"the process that reads files did not start (exit status {self.close()}); what it said is above"
            ) from error
        except BaseException:
            self._process.kill()
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(self, function: Callable[..., T], *arguments: Any, times: int = 1, reply_bytes: int = 0) -> T:
        """Call a function of a module in the child, with so many times its time, and so many bytes in its reply.

        Raises UnreadableFileError, or what the function raises on purpose.
        """
        kind, *parts = self._ask(function, arguments, times=times, reply_bytes=reply_bytes)
        return cast(T, self._value_of(kind, parts, protocol.VALUE))

    def stream(self, function: Callable[..., Iterator[T]], *arguments: Any) -> Iterator[T]:
        """Iterate over what a generator in the child yields: one batch is held here, and one waits in the child."""
        kind, *parts = self._ask(function, arguments)
        while kind != protocol.END:
            yield from self._value_of(kind, parts, protocol.ITEMS)
            with self._death_explained():
                kind, *parts = self._receive(self._limits.wait_seconds, self._reply_bytes)

    def kill(self) -> None:
        """Kill the child from another thread; whoever waits for it gets UnreadableFileError, and is to `close` it."""
        self._process.kill()

    def close(self) -> int:
        """End the child; returns its exit status."""
        with suppress(BrokenPipeError):
            self._stdin.close()
        if self._process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(0.05)  # one that waits for requests ends at once, with its own exit status
        if self._process.poll() is None:
            self._process.kill()
        status = self._process.wait()
        self._stdout.close()
        if self._life is not None:
            os.close(self._life)
            self._life = None
        return status

    @property
    def _reply_bytes(self) -> int:
        return self._limits.row_bytes + _OVERHEAD_BYTES

    def _ask(
        self, function: Callable[..., Any], arguments: tuple[Any, ...], *, times: int = 1, reply_bytes: int = 0
    ) -> Any:
        with self._death_explained():
            self._send((function, arguments, self._name, self._limits.cpu_seconds * times))
            return self._receive(self._limits.wait_seconds * times, reply_bytes or self._reply_bytes)

    def _value_of(self, kind: str, parts: list[Any], expected: str) -> Any:
        if kind == protocol.FAILED:
            name, message = map(str, parts)
            named = getattr(errors, name, None)
            if isinstance(named, type) and issubclass(named, errors.StudioError):
                raise named(message)
            raise errors.StudioError(message)
        if kind != expected:
            raise errors.StudioError(f"the process that reads {self._name} answered {kind!r}, expected {expected!r}")
        return parts[0]

    def _send(self, request: object) -> None:
        pickle.dump(request, self._stdin, protocol.PROTOCOL)
        self._stdin.flush()

    def _receive(self, seconds: float, most_bytes: int) -> Any:
        """Receive a reply; a child that has none in time is ended. Raises EOFError when it ends instead."""
        timer = threading.Timer(seconds, self._end_late)
        timer.daemon = True
        timer.start()
        self._stdout.left = most_bytes
        try:
            return _PlainUnpickler(self._stdout).load()
        except EOFError:
            raise
        except Exception as error:
            if self._process.poll() is None and self._stdout.left >= 0 and "truncated" not in str(error):
                raise errors.UnreadableFileError(f"the process that reads {self._name} answered {error}") from error
            if self._stdout.left < 0:
                raise exceeded(self._name, f"gives rows of more than {self._limits.row_mb} MB", "row_mb") from error
            raise EOFError from error
        finally:
            timer.cancel()

    def _end_late(self) -> None:
        self._is_late = True
        self._process.kill()

    @contextmanager
    def _death_explained(self) -> Iterator[None]:
        """Translate the end of the child inside to UnreadableFileError, with the limit that ended it."""
        try:
            yield
        except (EOFError, BrokenPipeError) as error:
            status = self.close()
            _log.warning("the process that reads %s ended with %s", self._name, status)
            raise self._explain(status) from error

    def _explain(self, status: int) -> errors.UnreadableFileError:
        limits = self._limits
        if self._is_late:
            return exceeded(self._name, f"gave nothing for {limits.wait_seconds} s", "wait_seconds")
        if status == -getattr(signal, "SIGXCPU", 24):
            problem = f"took more than {limits.cpu_seconds} s of processor time without a result"
            return exceeded(self._name, problem, "cpu_seconds")
        if status == -getattr(signal, "SIGKILL", 9):
            return out_of_memory(self._name, limits)
        return errors.UnreadableFileError(
            f"{self._name} brought down the process that reads it ({_status_words(status)}): it is damaged, made to do "
            f"so, or takes more than {limits.memory_mb:,} MB of memory ({setting('memory_mb')})"
        )


def _start(command: Sequence[str], environment: dict[str, str]) -> tuple["subprocess.Popen[bytes]", int | None]:
    """Start a child; returns it with the end of a pipe that is closed when this process ends. Raises OSError."""
    life, write_end = os.pipe()
    passed = () if os.name == "nt" else (life,)
    environment = environment | {protocol.LIFE_VARIABLE: str(life)}
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, pass_fds=passed
        )
    except BaseException:
        os.close(write_end)
        raise
    finally:
        os.close(life)
    return process, write_end


def _status_words(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    with suppress(ValueError):
        return signal.Signals(-status).name
    return f"signal {-status}"
