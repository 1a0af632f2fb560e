"""The parser process: `python -m dmpo_app.parsing.child_process`, which opens strangers' files under limits.

A request is a function with its arguments, a reply what it returned, or the items that it yielded in batches. Both
travel as pickles: requests are the parent's own, and replies are loaded by an unpickler that makes nothing but plain
values (`dmpo_app.parsing.children`). It ends when its input does, and so with its parent, however that went.
"""

import datetime
import decimal
import os
import pickle
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import IO, Any

from dmpo_app.domain.limits import ParserLimits
from dmpo_app.errors import BadInputError, StudioError, UnreadableFileError
from dmpo_app.parsing.limits import measure, on_progress, reading

READY, VALUE, ITEMS, END, FAILED = "ready", "value", "items", "end", "failed"
"""The kinds of a reply: (READY,); (VALUE, value); (ITEMS, list) and at last (END,); (FAILED, class, message)."""
PROTOCOL = 5
LIFE_VARIABLE = "DMPO_PARSER_LIFE"
"""The variable with the number of the pipe that is open for as long as the parent lives."""
PLAIN_CLASSES = frozenset(
    {datetime.datetime, datetime.date, datetime.time, datetime.timedelta, datetime.timezone, decimal.Decimal}
)
"""The classes in replies, beside those that a pickle knows by itself."""
BATCH_ITEMS, BATCH_BYTES = 256, 4 << 20
"""A batch ends with the item that reaches one of these."""
TELL_SECONDS = 1.0
_MAX_WRITTEN_BYTES = 16 << 20


def import_resource() -> ModuleType | None:
    """The module of resource limits; None where there is none, on Windows."""
    try:
        import resource
    except ImportError:
        return None
    return resource


def set_limits(limits: ParserLimits, *, max_written: int) -> None:
    """Limit this process: address space, written files, no core dumps; the first to go where memory runs out."""
    resource = import_resource()
    if resource is None or sys.platform != "linux":
        return  # macOS has no limit of address space that holds; the time limits and the checks remain
    _lower(resource, resource.RLIMIT_AS, limits.memory_mb << 20)
    _lower(resource, resource.RLIMIT_FSIZE, max_written)
    _lower(resource, resource.RLIMIT_CORE, 0)
    try:
        with open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123 - no path of anybody's
            file.write("1000")
    except OSError:
        pass  # a sandbox without /proc: the limits above hold all the same


def _lower(resource: ModuleType, kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


def end_with_parent() -> None:
    """Have the kernel end this process (SIGIO) when its parent's end of a pipe closes, however the parent went.

    A thread that waits for the end of the input does not get its turn while a parser in C holds the interpreter; and
    PR_SET_PDEATHSIG would end it with the parent's thread that started it. Linux; elsewhere that thread is all.
    """
    life = os.environ.get(LIFE_VARIABLE)
    if sys.platform != "linux" or life is None:
        return
    import fcntl

    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(int(life), fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(int(life), fcntl.F_SETFL, fcntl.fcntl(int(life), fcntl.F_GETFL) | os.O_ASYNC)


def allow_cpu_seconds(seconds: float) -> None:
    """Allow so much more processor time from now on; SIGXCPU ends the process after it."""
    resource = import_resource()
    if resource is None:
        return
    usage = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = int(usage.ru_utime + usage.ru_stime + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


class _PlainPickler(pickle.Pickler):
    """A pickler of plain values: an object of any other class travels as the text of it."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, datetime.datetime):
            zone = value.tzinfo
            if type(value) is datetime.datetime and (zone is None or type(zone) is datetime.timezone):
                return NotImplemented
            utc = value if zone is None else value.astimezone(datetime.UTC)  # a zone by name, or a pandas timestamp
            return datetime.datetime, (*utc.timetuple()[:6], utc.microsecond, zone and datetime.UTC)
        is_plain = type(value) in PLAIN_CLASSES or isinstance(value, type)  # a class goes by its name
        return NotImplemented if is_plain else (str, (str(value),))


def _reply(sink: IO[bytes], *parts: Any) -> None:
    _PlainPickler(sink, PROTOCOL).dump(parts)
    sink.flush()


def _batches(items: Iterator[Any], name: str, limits: ParserLimits) -> Iterator[list[Any]]:
    """Group items into batches, each item checked."""
    batch: list[Any] = []
    num_bytes = 0
    for number, item in enumerate(items, 1):
        try:
            num_bytes += measure(item, limits)
        except BadInputError as problem:
            raise UnreadableFileError(f"row {number:,} of {name} {problem}") from problem
        batch.append(item)
        if len(batch) >= BATCH_ITEMS or num_bytes >= BATCH_BYTES:
            yield batch
            batch, num_bytes = [], 0
    if batch:
        yield batch


def _answer(
    sink: IO[bytes], function: Callable[..., Any], arguments: tuple[Any, ...], name: str, limits: ParserLimits
) -> None:
    try:
        with reading(name, "what its name says", limits):
            result = function(*arguments)
            if not isinstance(result, Iterator):
                _reply(sink, VALUE, result)
                return
            on_progress.set(_teller(sink, limits))
            for batch in _batches(result, name, limits):
                _reply(sink, ITEMS, batch)
                allow_cpu_seconds(limits.cpu_seconds)
        _reply(sink, END)
    except BrokenPipeError:
        raise
    except StudioError as error:
        _reply(sink, FAILED, type(error).__name__, str(error))


def _teller(sink: IO[bytes], limits: ParserLimits) -> Callable[[], None]:
    """A function that sends an empty batch, at most once in TELL_SECONDS."""
    told_at = time.monotonic()

    def tell() -> None:
        nonlocal told_at
        if time.monotonic() - told_at >= TELL_SECONDS:
            told_at = time.monotonic()
            _reply(sink, ITEMS, [])
            allow_cpu_seconds(limits.cpu_seconds)

    return tell


def _requests(source: IO[bytes]) -> Iterator[Any]:
    """Iterate over the requests; the process ends with its input, in the middle of a request too."""
    received: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def receive() -> None:
        while True:
            try:
                request = pickle.load(source)  # noqa: S301 - the parent's own
            except (EOFError, OSError):
                os._exit(0)
            received.put(request)

    threading.Thread(target=receive, name="requests", daemon=True).start()
    while True:
        yield received.get()


def main() -> None:
    """Answer requests until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches a whole terminal, and its parent decides
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr
    end_with_parent()
    try:
        _reply(sink, READY)
        limits = ParserLimits()
        for request in _requests(source):
            if isinstance(request, tuple):
                function, arguments, name, cpu_seconds = request
                allow_cpu_seconds(cpu_seconds)
                _answer(sink, function, arguments, name, limits)
            else:
                limits = request["limits"]
                set_limits(limits, max_written=request["max_written"] or _MAX_WRITTEN_BYTES)
    except BrokenPipeError:
        os._exit(0)  # nobody is left, and the interpreter would fail once more to flush what nobody reads


if __name__ == "__main__":
    main()
