"""Liveness of a child process: the phases it announces, its heartbeats, and its end after its parent's death.

The main thread says what it is at (`phase`, `advance`); a thread of its own sends that to the parent every second.
Without a heartbeat the process is frozen; with heartbeats that say the same for too long, its main thread hangs.
"""

import ctypes
import faulthandler
import logging
import math
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import IO, NamedTuple, Self

import psutil

from dmpo_app.io.processes import StopFlag

BEAT_SECONDS = 1.0
PARENT_GRACE_SECONDS = 7.0
"""A child that has not ended so long after its parent hangs, or is in a step that nobody waits for any more."""
STALL_FACTOR = 10.0
_BEAT = "beat"
_PR_SET_PDEATHSIG = 1
_STOP_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT})
_log = logging.getLogger(__name__)


class Heartbeat(NamedTuple):
    """A heartbeat: what the main thread is at, the seconds since that began, and the seconds that it may take."""

    phase: str
    seconds: float
    limit: float

    def to_line(self) -> str:
        return f"{_BEAT} {self.seconds:.2f} {self.limit:.2f} {self.phase}\n"

    @classmethod
    def from_line(cls, line: str) -> Self | None:
        """Read a line of a child's output; None for one that is no heartbeat."""
        word, *rest = line.strip().split(" ", 3)
        try:
            seconds, limit, phase = rest
            return cls(phase, float(seconds), float(limit)) if word == _BEAT else None
        except ValueError:
            return None


class Activity:
    """The activity of one thread, for another one to read: no lock, an assignment is atomic.

    A phase may take `phase_seconds`. A turn of a loop, which `advance` begins, may take ten times as long as the
    longest one of its name before, but at least `stall_seconds`; the first one as long as a phase.
    """

    def __init__(self, name: str, *, stall_seconds: float = math.inf, phase_seconds: float = math.inf) -> None:
        self._stall_seconds = stall_seconds
        self._phase_seconds = phase_seconds
        self._longest: dict[str, float] = {}
        self._is_turn = False
        self._paused_seconds = 0.0
        self._beaten_at = time.monotonic()
        self._now = (name, self._beaten_at, phase_seconds)

    @property
    def name(self) -> str:
        return self._now[0]

    def heartbeat(self) -> Heartbeat:
        """The heartbeat of now, asked for every second.

        After more than two seconds the process, or its machine, was frozen meanwhile: those seconds count as nothing.
        """
        now = time.monotonic()
        self._paused_seconds += max(0.0, now - self._beaten_at - 2 * BEAT_SECONDS)
        self._beaten_at = now
        name, since, limit = self._now
        return Heartbeat(name, max(0.0, self._seconds() - since), limit)

    def _seconds(self) -> float:
        """The clock, without the seconds that the process was frozen for."""
        return time.monotonic() - self._paused_seconds

    def begin_turn(self, name: str) -> None:
        """End the last turn and begin the next one."""
        last, since, _ = self._now
        now = self._seconds()
        if self._is_turn:
            self._longest[last] = max(self._longest.get(last, 0.0), now - since)
        longest = self._longest.get(name)
        limit = self._phase_seconds if longest is None else max(self._stall_seconds, STALL_FACTOR * longest)
        self._is_turn, self._now = True, (name, now, limit)

    @contextmanager
    def in_phase(self, name: str) -> Iterator[None]:
        """Be in a phase; afterwards what it was part of goes on, with its time begun anew."""
        (outer, _, limit), is_turn = self._now, self._is_turn
        self._is_turn, self._now = False, (name, self._seconds(), self._phase_seconds)
        try:
            yield
        finally:
            self._is_turn, self._now = is_turn, (outer, self._seconds(), limit)


_activity: ContextVar[Activity | None] = ContextVar("activity", default=None)


def announce_through(activity: Activity) -> None:
    """Let `phase` and `advance` of this thread write to `activity`; nobody listens to a thread without one."""
    _activity.set(activity)


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Announce a phase that takes long, so that it is shown and not taken for a hang: loading, compiling."""
    activity = _activity.get()
    if activity is None:
        yield
        return
    with activity.in_phase(name):
        yield


def advance(name: str) -> None:
    """Announce the next turn of a loop: the last one is done, so nothing hangs."""
    activity = _activity.get()
    if activity is not None:
        activity.begin_turn(name)


def signal_on_parents_death(parent_pid: int) -> None:
    """Have the kernel send SIGTERM when the thread that started this process ends; on Linux. Exits if it has ended."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if not _is_parent(parent_pid):
        os._exit(1)


class LifeThread(threading.Thread):
    """The thread that sends heartbeats and ends the process after its parent's death. Create it in the main thread.

    SIGTERM and SIGINT set `stop_flag`; until `may_exit` is False they end the process at once, also amid a long call of
    the main thread into C, since the wake-up socket is written before Python runs a handler.

    Nothing that could be waited for stands between the parent's death and the end: faulthandler's own thread, which
    takes no lock of Python's and not the interpreter's either, exits `grace_seconds` later, and writes the stacks
    of all threads to `stacks` first. The same happens when the interpreter is held for `frozen_seconds`, as by a call
    into a GPU's driver that never returns: nothing else would notice a parent's death then.
    """

    def __init__(
        self,
        parent_pid: int,
        activity: Activity,
        stop_flag: StopFlag,
        *,
        stacks: IO[bytes],
        frozen_seconds: float,
        grace_seconds: float = PARENT_GRACE_SECONDS,
    ) -> None:
        super().__init__(name="life", daemon=True)
        self.may_exit = True
        self._parent_pid = parent_pid
        self._activity = activity
        self._stop_flag = stop_flag
        self._stacks = stacks
        self._frozen_seconds = frozen_seconds
        self._grace_seconds = grace_seconds
        self._output = os.dup(sys.stdout.fileno())
        self._signals, self._wakeup = socket.socketpair()
        for end in (self._signals, self._wakeup):
            end.setblocking(False)
        for number in _STOP_SIGNALS:
            signal.signal(number, lambda *_: self._ask_to_stop())
        signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        self._parent = _open_process(parent_pid)
        if hasattr(signal, "SIGUSR1"):
            faulthandler.register(signal.SIGUSR1, file=stacks)

    def run(self) -> None:
        """Beat until the parent is gone, then see to the end."""
        while not self._is_orphan():
            faulthandler.dump_traceback_later(self._frozen_seconds, exit=True, file=self._stacks)
            self._send_heartbeat()
            self._wait()
        faulthandler.dump_traceback_later(self._grace_seconds, exit=True, file=self._stacks)
        self._ask_to_stop()
        _log.warning("the parent process %d is gone; stopping", self._parent_pid)  # may wait for the log's lock

    def _wait(self) -> None:
        """Wait for a second, a signal or the parent's death."""
        signals = self._signals.fileno()
        watched = [signals] if self._parent is None else [signals, self._parent]
        if signals in select.select(watched, [], [], BEAT_SECONDS)[0]:
            numbers = self._signals.recv(4096)  # of all signals that Python handles, whoever handles them
            if not _STOP_SIGNALS.isdisjoint(numbers):
                self._ask_to_stop()

    def _ask_to_stop(self) -> None:  # not `_stop`, which is a method of a thread's own
        """Stop; called by signal handlers too, so it takes no lock."""
        self._stop_flag.set()
        if self.may_exit:
            os._exit(0)  # nothing is lost while a model loads, and that cannot be interrupted otherwise

    def _is_orphan(self) -> bool:
        if self._parent is not None and select.select([self._parent], [], [], 0)[0]:
            return True
        return not _is_parent(self._parent_pid)

    def _send_heartbeat(self) -> None:
        """Write past `sys.stdout`, whose lock the main thread may hold, and never wait for a parent that is frozen."""
        if os.name == "posix" and not select.select([], [self._output], [], 0)[1]:
            return
        with suppress(BrokenPipeError):  # the parent is about to be gone
            os.write(self._output, self._activity.heartbeat().to_line().encode())


def end_with_parent() -> None:
    """End this process after its parent's death: SIGTERM at once, and the hard way PARENT_GRACE_SECONDS later.

    For commands that only ever run under another program, such as torchrun.
    """
    parent_pid = os.getppid()
    parent = _open_process(parent_pid)

    def watch() -> None:
        while _is_parent(parent_pid):
            select.select([] if parent is None else [parent], [], [], BEAT_SECONDS)
        faulthandler.dump_traceback_later(PARENT_GRACE_SECONDS, exit=True)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def _is_parent(pid: int) -> bool:
    """True while the parent lives. On Windows a child keeps its parent's number, and may have a launcher for parent."""
    return psutil.pid_exists(pid) if os.name == "nt" else os.getppid() == pid


def _open_process(pid: int) -> int | None:
    """A descriptor that is readable once the process has ended, whoever gets its number then; None where there is none.

    To be opened while that process is known to live.
    """
    try:
        return os.pidfd_open(pid) if sys.platform == "linux" else None
    except (AttributeError, OSError):  # an old kernel, or one that forbids it
        return None
