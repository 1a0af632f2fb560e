"""A stand-in for the package `spaces`, with no GPU to it: every call really runs in a forked process.

As the real one does it: the process is forked when a call needs one and kept for the next, the task runs in a thread of
its own there, values go back through a pipe as they are yielded, a process that dies is an error titled "ZeroGPU worker
error", a refusal one titled "ZeroGPU quota exceeded". On the path of a studio process it is what `import spaces` finds.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

_FORK = multiprocessing.get_context("fork")
_END = ("end", None)
Task = Callable[[Any], Iterator[Any]]


class Error(Exception):
    """With a title and a message, as Gradio's errors are."""

    def __init__(self, title: str, message: str) -> None:
        super().__init__(message)
        self.title = title
        self.message = message


class Worker:
    """One forked process that does task after task."""

    def __init__(self, task: Task) -> None:
        self.asked, self.answers = _FORK.Pipe(), _FORK.Pipe()
        self.close_early = _FORK.Event()
        self.process = _FORK.Process(target=self._serve, args=(task,), daemon=True)
        self.process.start()
        self.answers[1].close()  # the process's end alone keeps the pipe open: its death is its end

    def _serve(self, task: Task) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the server's own handler came along with the fork
        self.answers[0].close()
        while True:
            job = self.asked[0].recv()
            self.close_early.clear()
            with ThreadPoolExecutor(1) as threads:  # fresh ones: those of the server do not exist here
                threads.submit(self._do, task, job)

    def _do(self, task: Task, job: Any) -> None:
        try:
            events: Any = task(job)
            for event in events:
                if self.close_early.is_set():
                    events.close()
                    break
                self.answers[1].send(("value", event))
        except BaseException as error:  # noqa: BLE001 - only its name crosses over, as in the real package
            self.answers[1].send(("error", type(error).__name__))
        self.answers[1].send(_END)


@dataclass
class Lender:
    """Behaviour of the stand-in, and a record of its calls.

    `kill_after` so many values the process is killed, -9; `refusal` is said instead of lending; without `reuse` every
    call has a process of its own. `pids` and `asked_seconds` are of all calls so far.
    """

    reuse: bool = True
    kill_after: int | None = None
    refusal: str | None = None
    pids: list[int] = field(default_factory=list)
    asked_seconds: list[float] = field(default_factory=list)
    _idle: list[Worker] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(
        self, *, duration: Callable[[Any], float]
    ) -> Callable[[Task], Callable[[Any], Generator[Any, None, None]]]:
        def decorate(task: Task) -> Callable[[Any], Generator[Any, None, None]]:
            def lent(job: Any) -> Generator[Any, None, None]:
                self.asked_seconds.append(duration(job))
                return self._lend(task, job)

            return lent

        return decorate

    def _lend(self, task: Task, job: Any) -> Generator[Any, None, None]:
        if self.refusal is not None:
            raise Error("ZeroGPU quota exceeded", self.refusal)
        with self._lock:
            worker = self._idle.pop() if self._idle else Worker(task)
        assert worker.process.pid is not None
        self.pids.append(worker.process.pid)
        worker.asked[1].send(job)
        try:
            yield from self._values(worker, worker.process.pid)
        except GeneratorExit:
            worker.close_early.set()
            raise
        if self.reuse:
            self._idle.append(worker)
        else:
            worker.process.kill()
            worker.process.join()

    def _values(self, worker: Worker, pid: int) -> Generator[Any, None, None]:
        count = 0
        while True:
            if self.kill_after is not None and count >= self.kill_after:
                os.kill(pid, signal.SIGKILL)
                worker.process.join()
                raise Error("ZeroGPU worker error", "GPU task aborted")  # what is left in the pipe goes with it
            try:
                kind, value = worker.answers[0].recv()
            except EOFError:
                raise Error("ZeroGPU worker error", "GPU task aborted") from None
            if kind == "end":
                return
            if kind == "error":
                raise Error("ZeroGPU worker error", value)
            count += 1
            yield value


GPU = Lender()
