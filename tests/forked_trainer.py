"""Trainers forked from a process that has imported everything, for a server that was forked from one as well.

A server has threads, and what is forked from a process with threads may wait for ever for a lock of theirs. So the
server forks a nursery while it has none. That forks each trainer in two steps and leaves it an orphan, and Linux gives
an orphan to the nearest ancestor that asked for them, the server: to that, to the kernel's signal of a parent's death
and to psutil it is a child like any other.
"""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from types import SimpleNamespace
from typing import Any, NoReturn

import psutil

from dmpo_app.io.processes import module_command
from dmpo_app.training.process import supervisor, trainer_process

NURSERY = "nursery"
"""The name of that process, which psutil shows."""
_PR_SET_PDEATHSIG, _PR_SET_NAME, _PR_SET_CHILD_SUBREAPER = 1, 15, 36
_MOST_BYTES = 1 << 20
_asked_one_by_one = threading.Lock()


def fork_trainers_from_here() -> None:
    """Have this process's supervisor fork its trainers, from what is imported now. Call it before there are threads."""
    if sys.platform != "linux":
        return
    server, (ours, theirs) = os.getpid(), socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    if os.fork() == 0:
        ours.close()
        _be_nursery(theirs, server)
    theirs.close()

    class ForkedTrainer(subprocess.Popen[str]):
        """A process of the supervisor's command, but for Python and its imports."""

        def _execute_child(self, args: tuple[str, ...], *others: Any) -> None:
            environment, pipes = others[5], others[9:15]
            to_child, _, _, from_child, _, errors_from_child = pipes
            request = json.dumps({"arguments": args[len(module_command("")) :], "environment": environment})
            with _asked_one_by_one:
                socket.send_fds(ours, [request.encode()], [to_child, from_child, errors_from_child])
                self.pid = int(ours.recv(_MOST_BYTES))
            self._child_created = True
            for end in (to_child, from_child, errors_from_child):
                os.close(end)

    known = {name: getattr(subprocess, name) for name in ("PIPE", "TimeoutExpired")}
    vars(supervisor)["subprocess"] = SimpleNamespace(Popen=ForkedTrainer, **known)


def trainers_of(server: psutil.Process) -> list[psutil.Process]:
    """The server's children without the nursery."""
    return [child for child in server.children() if child.name() != NURSERY]


def _be_nursery(asked: socket.socket, server: int) -> NoReturn:
    """Fork a trainer for each message, until the server is gone."""
    _prctl(_PR_SET_NAME, NURSERY.encode())
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    while os.getppid() == server:
        request, pipes, _, _ = socket.recv_fds(asked, _MOST_BYTES, 3)
        if not request:
            break
        between = os.fork()
        if between == 0:
            between = os.getpid()
            if os.fork() == 0:
                _be_trainer(asked, between, json.loads(request), pipes)
            os._exit(0)
        os.waitpid(between, 0)
        for pipe in pipes:
            os.close(pipe)
    os._exit(0)


def _be_trainer(asked: socket.socket, between: int, request: dict[str, Any], pipes: list[int]) -> NoReturn:
    """Be the trainer, once it is the server's child."""
    status = 1
    try:
        _prctl(_PR_SET_NAME, b"python")
        os.setpgid(0, 0)
        while os.getppid() == between:
            time.sleep(0.001)
        for stream, pipe in enumerate(pipes):
            os.dup2(pipe, stream)
        asked.send(str(os.getpid()).encode())
        os.closerange(3, 256)
        os.environ.clear()
        os.environ.update(request["environment"])
        sys.stdin = open(0, encoding="utf-8")  # noqa: SIM115 - a forked process from a server has none
        status = trainer_process.main(request["arguments"])
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001 - as Python ends with any
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _prctl(option: int, value: int | bytes) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
