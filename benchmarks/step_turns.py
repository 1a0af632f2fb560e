"""Processes that take turns, so that what is compared is measured in the same minutes on the same machine.

A contestant starts up, warms up, says so and waits. At every word from the referee it makes a fixed number of steps,
reports its seconds and waits again; start-up, loading and compiling are never in the seconds. Only the standard library
is used here: a contestant may run under another interpreter.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TAIL_CHARACTERS = 2000


@dataclass(frozen=True, slots=True)
class TurnArguments:
    """Arguments that the referee gives every contestant: `go` and `report` are file descriptors."""

    go: int
    report: int
    warmup: int
    steps: int
    turns: int

    def to_argv(self) -> list[str]:
        return ["--turn", json.dumps([self.go, self.report, self.warmup, self.steps, self.turns])]

    @classmethod
    def parse(cls, text: str) -> TurnArguments:
        return cls(*json.loads(text))


class Turns:
    """The contestant's side."""

    def __init__(self, arguments: TurnArguments) -> None:
        self.arguments = arguments
        self._go = os.fdopen(arguments.go, "rb", buffering=0)
        self._report = os.fdopen(arguments.report, "w", encoding="utf-8")

    def report(self, facts: Mapping[str, Any]) -> None:
        self._report.write(json.dumps(facts) + "\n")
        self._report.flush()

    def wait(self) -> None:
        """Until it is this process's turn. Ends the process when the referee is gone."""
        if not self._go.read(1):
            sys.exit(1)


class Contestant:
    """The referee's side of one process. `log` gets whatever it prints."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.name = name
        self._command = list(command)
        self._environment = dict(environment)
        self._log = log

    def start(self, *, warmup: int, steps: int, turns: int) -> dict[str, Any]:
        """Start and warm up; what it says about itself. Raises ContestantFailed."""
        go_read, self._go = os.pipe()
        report_read, report_write = os.pipe()
        arguments = TurnArguments(go_read, report_write, warmup, steps, turns)
        with self._log.open("w", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                [*self._command[:3], *arguments.to_argv(), *self._command[3:]],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(go_read, report_write),
            )
        os.close(go_read)
        os.close(report_write)
        self._reports = os.fdopen(report_read, encoding="utf-8")
        return self._next_report()

    def turn(self) -> dict[str, list[float]]:
        """One turn: seconds a step and CPU seconds a step, by what was done."""
        os.write(self._go, b"\n")
        return self._next_report()

    def finish(self) -> dict[str, Any]:
        """The last report of a process that has had all its turns; waits for its end."""
        facts = self._next_report()
        self._process.wait()
        return facts

    def stop(self) -> None:
        """End it wherever it is."""
        if hasattr(self, "_process") and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def _next_report(self) -> dict[str, Any]:
        line = self._reports.readline()
        if not line:
            self._process.wait()
            raise ContestantFailed(self.name, self._log.read_text(encoding="utf-8", errors="replace"))
        return dict(json.loads(line))


class ContestantFailed(Exception):
    """A process ended before its last turn."""

    def __init__(self, name: str, log: str) -> None:
        self.out_of_memory = "out of memory" in log.lower() or "can't allocate memory" in log
        super().__init__(f"{name} ended early; its last words:\n{log[-_TAIL_CHARACTERS:]}")


def clocks() -> tuple[float, float]:
    """Seconds of the wall and of this process's threads, once the GPU, if there is one, has done what it was given.

    With one thread on a quiet machine both run alike; on a busy one the second leaves out the waiting for a core.
    """
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter(), time.process_time()


def seconds_a_step(since: tuple[float, float], count: int) -> list[float]:
    """Of `count` steps since `clocks` was read, by either clock."""
    return [(now - then) / count for now, then in zip(clocks(), since, strict=True)]


def peak_bytes() -> int:
    """The most memory this process has held: on the GPU what torch allocated, else resident (units of Linux)."""
    import torch

    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
