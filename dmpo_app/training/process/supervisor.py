"""Supervisor of the trainer process: keeps it alive beside the server. Imports no torch: the page is up before that.

    starting -> ready -> (dies) -> pause -> starting ...

The pause doubles while the process exits quickly; one that ends by itself again and again is given up in the end, one
that is killed never. One that is frozen, or gets no further, is ended and started again.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from typing import IO

from dmpo_app.domain.lineage import TrainerState
from dmpo_app.io.liveness import BEAT_SECONDS, Heartbeat
from dmpo_app.io.processes import module_command
from dmpo_app.settings import Settings

READY = "ready"
"""The line that the process prints on its output once the base model is loaded."""
EXIT_PASSING = 75
"""Exit status when the base model could not be loaded for a reason that passes, as a hub out of reach."""
EXIT_SETUP = 78
"""Exit status when the base model or the home is unfit; the reason is the last line on stderr."""
WAITING = "waiting"
"""The phase of a trainer that has no round to train."""
MAX_QUICK_EXITS = 6
_MOST_DOUBLINGS = 10
_QUICK_EXIT_SECONDS = 60.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 30.0
_STOP_SECONDS = 30.0
_HANG_STOP_SECONDS = 2.0
"""A trainer that hangs is given so long to stop before it is killed; a frozen one cannot."""
_FIRST_BEAT_SECONDS = 120.0
"""Python starts and imports before the first heartbeat; on a busy machine that takes long."""
_QUIET_SHARE = 0.25
"""Of `silent_seconds`: after so much silence the trainer is not said to run."""
_log = logging.getLogger(__name__)


class TrainerProcess:
    """Supervisor that starts the trainer, restarts it when it dies and stops it with the server.

    Implements `domain.lineage.TrainerSupervisor`. `command` is what is run; the arguments that the trainer needs are
    added.
    """

    def __init__(self, settings: Settings, *, command: tuple[str, ...] = ()) -> None:
        self._settings = settings
        self._command = command or module_command("dmpo_app.training.process.trainer_process")
        # One name for all trainers of this machine's server, of which a home has one: a new trainer need not wait for
        # the lease of one that was killed, and the fencing token keeps the old one out.
        self._owner = f"serve@{socket.gethostname()}"
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._process: subprocess.Popen[str] | None = None
        self._life = LifeSigns(settings.trainer.silent_seconds)
        self._ended_for = ""
        self._hang = ""
        self._restarts = 0
        self._quick_exits = 0
        self._ready_at: float | None = None
        self._message = ""

    @property
    def state(self) -> TrainerState:
        """A snapshot of the trainer's state; `message` is empty while all is well."""
        with self._lock:
            process = self._process
            lives = process is not None and process.poll() is None
            trouble = self._life.trouble if lives else ""
            return TrainerState(
                running=lives and not trouble,
                pid=process.pid if process is not None and lives else None,
                restarts=self._restarts,
                message=trouble or self._message,
                phase=self._life.phase if lives else "",
            )

    def start(self) -> None:
        """Start supervising; returns at once."""
        if self._thread is not None:
            raise RuntimeError("the trainer is supervised already")
        # The thread that starts the process must outlive it: on Linux it is this thread's end that tells the process.
        self._thread = threading.Thread(target=self._supervise, name="trainer-supervisor", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the process: it finishes its step and checkpoints the round, or is killed after half a minute.

        A frozen one is killed at once.
        """
        self._stopping.set()
        with self._lock:
            process = self._process
        if process is not None and process.poll() is None:
            _terminate(process, 0.0 if self._life.trouble else _STOP_SECONDS)
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _supervise(self) -> None:
        while not self._stopping.is_set():
            try:
                status, last_stderr_line = self._run_once()
            except Exception as error:  # noqa: BLE001 - too many open files, too little memory: it is tried again
                _log.warning("the trainer could not be started", exc_info=error)
                status, last_stderr_line = EXIT_PASSING, f"it could not be started ({error})"
            if self._stopping.is_set():
                return
            pause = self._handle_exit(status, last_stderr_line)
            if pause is None or self._stopping.wait(pause):
                return

    def _run_once(self) -> tuple[int, str]:
        """Run the process once; return its exit status and the last line it wrote to stderr."""
        last_stderr_lines: deque[str] = deque(maxlen=1)
        with self._spawn() as process:
            stdin, stdout, stderr = process.stdin, process.stdout, process.stderr
            if stdin is None or stdout is None or stderr is None:
                raise RuntimeError("the trainer was started without pipes")
            listener = threading.Thread(target=_keep_last_line, args=(stderr, last_stderr_lines), daemon=True)
            listener.start()
            threading.Thread(target=self._watch, args=(process, self._life), name="trainer-watch", daemon=True).start()
            self._send_settings(stdin)
            for line in stdout:
                self._life.hear(line)
                if line.strip() == READY:
                    with self._lock:
                        self._ready_at, self._message, self._hang = time.monotonic(), "", ""
            status = process.wait()
            listener.join()
        return status, last_stderr_lines[0] if last_stderr_lines else ""

    def _watch(self, process: subprocess.Popen[str], life: LifeSigns) -> None:
        """Watch for a hang, and end the process then; the supervisor starts the next one."""
        ticked_at = time.monotonic()
        while process.poll() is None and not self._stopping.wait(BEAT_SECONDS / 2):
            last, ticked_at = ticked_at, time.monotonic()
            if hang := life.tick(ticked_at - last):
                with self._lock:
                    self._ended_for = hang
                    # A round is not to blame for what hung while the model loaded, or between rounds.
                    self._hang = hang if self._ready_at is not None and life.phase != WAITING else ""
                _log.error("%s; its stacks are in trainer-stacks.log, and it is ended", hang)
                if hasattr(signal, "SIGUSR1"):
                    process.send_signal(signal.SIGUSR1)
                _terminate(process, _HANG_STOP_SECONDS)
                return

    def _spawn(self) -> subprocess.Popen[str]:
        with self._lock:
            self._life, self._ended_for = LifeSigns(self._settings.trainer.silent_seconds), ""
            self._process = subprocess.Popen(
                [*self._command, "--parent-pid", str(os.getpid()), "--owner", self._owner, "--hang", self._hang],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                errors="replace",
                env=self._environment(),
                # Ctrl-C is for the server, which then stops its trainer. Not a session of its own: Linux schedules
                # sessions as equals, and the trainer's niceness would count for nothing against the server.
                process_group=0 if os.name == "posix" else None,
            )
            if self._stopping.is_set():  # stop() came before there was a process to tell
                self._process.terminate()
            return self._process

    def _environment(self) -> dict[str, str]:
        """The environment without DMPO_ settings: those go down the pipe, an administrator's token nowhere."""
        return {name: value for name, value in os.environ.items() if not name.startswith("DMPO_")}

    def _send_settings(self, stdin: IO[str]) -> None:
        settings = self._settings.model_copy(update={"admin_token": None}).model_dump(mode="json")
        settings["database_url"] = self._settings.database  # the one secret that the trainer needs
        try:
            with stdin:
                stdin.write(json.dumps(settings) + "\n")
        except OSError as error:  # it died first; its exit status says why
            _log.debug("the trainer did not take its settings: %s", error)

    def _handle_exit(self, status: int, last_stderr_line: str) -> float | None:
        """Handle an exit; return the seconds until the next start, None to give up."""
        with self._lock:
            reason = self._ended_for or _reason(status, last_stderr_line)
            uptime = 0.0 if self._ready_at is None else time.monotonic() - self._ready_at
            # Whoever kills a trainer that was ready says nothing about whether the next one can work.
            if (status > 0 and uptime < _QUICK_EXIT_SECONDS) or self._ready_at is None:
                self._quick_exits += 1
            else:
                self._quick_exits = 0
            self._ready_at = None
            if status > 0 and status != EXIT_PASSING and self._quick_exits >= MAX_QUICK_EXITS:
                self._message = f"no more training: {reason}. Restart the studio once that is mended."
                _log.error("%s", self._message)
                return None
            self._restarts += 1
            self._message = f"{reason}; it is started again"
            doublings = min(self._quick_exits, _MOST_DOUBLINGS)  # 2 to the power of some thousand tries is no float
            pause: float = min(_FIRST_PAUSE_SECONDS * 2**doublings, _LONGEST_PAUSE_SECONDS)
        _log.warning("%s in %.1f s", self._message, pause)
        return pause


class LifeSigns:
    """The life signs of one trainer process: its heartbeats, and how long it has been silent or got no further.

    `tick` is called again and again with the seconds since the last call, and the silence is counted in those: a
    supervisor that was itself frozen, with a machine that slept, must not blame the trainer.
    """

    def __init__(self, silent_seconds: float) -> None:
        self._silent_seconds = silent_seconds
        self._heartbeat: Heartbeat | None = None
        self._silence = 0.0

    def hear(self, line: str) -> None:
        """Hear a line of the process's output, which may be a heartbeat."""
        heartbeat = Heartbeat.from_line(line)
        if heartbeat is not None:
            self._heartbeat, self._silence = heartbeat, 0.0

    def tick(self, seconds: float) -> str:
        """Count silence; returns how the process hangs, if it does."""
        self._silence += min(seconds, 2 * BEAT_SECONDS)
        last = self._heartbeat
        if self._silence > (max(self._silent_seconds, _FIRST_BEAT_SECONDS) if last is None else self._silent_seconds):
            return self._silent_message()
        if last is not None and last.seconds > last.limit:
            return f"the trainer has got no further for {last.seconds:.0f} s ({last.phase})"
        return ""

    @property
    def phase(self) -> str:
        """The phase it said last that it is in; empty before."""
        return "" if self._heartbeat is None else self._heartbeat.phase

    @property
    def trouble(self) -> str:
        """The silence in words, once it is too long to say that the trainer runs, if not yet to end it."""
        is_quiet = self._heartbeat is not None and self._silence > max(
            _QUIET_SHARE * self._silent_seconds, 2 * BEAT_SECONDS
        )
        return self._silent_message() if is_quiet else ""

    def _silent_message(self) -> str:
        return f"the trainer has given no sign of life for {self._silence:.0f} s"


def _terminate(process: subprocess.Popen[str], seconds: float) -> None:
    """Ask the process to stop, and kill it when it has not in so many seconds."""
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        _log.warning("the trainer did not stop in %.0f s and is killed", seconds)
        process.kill()


def _reason(status: int, last_stderr_line: str) -> str:
    if status in (EXIT_SETUP, EXIT_PASSING) and last_stderr_line:
        return last_stderr_line
    how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
    return f"the trainer {how}" + (f" ({last_stderr_line})" if status > 0 and last_stderr_line else "")


def _keep_last_line(stream: IO[str], last_line: deque[str]) -> None:
    for line in stream:
        if line.strip():
            last_line.append(line.strip())
