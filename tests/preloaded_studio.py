"""A studio forked from a process that has imported everything already: imports are most of what a start costs.

It is `dmpo serve` all the same, in a process of its own with a session, an environment and a log of its own; only the
imports are not its own. Its trainer starts as always.
"""

import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

from tests.studio_process import PROJECT_ROOT, StudioProcess

PRELOADED = [
    "dmpo_app.cli.main",
    "dmpo_app.server.run",
    "dmpo_app.diffusion.loading",
    "dmpo_app.diffusion.families.protocol",
    "dmpo_app.rendering.engine",
    "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion",
    "tests.browser.served_home",
]


def preloaded_processes() -> ForkServerContext:
    """Processes forked from one that has imported what a server imports; it lives as long as the test session."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def be_dmpo(arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
    """Run the command line in a process that was just forked."""
    os.setsid()
    os.chdir(PROJECT_ROOT)
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["dmpo", *arguments]
    from dmpo_app.cli.main import app

    app()


class Forked:
    """A process of `multiprocessing`, with the methods that a studio needs of `subprocess.Popen`."""

    def __init__(self, process: ForkServerProcess) -> None:
        process.start()
        assert process.pid is not None
        self.pid: int = process.pid
        self._process = process

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code. Raises TimeoutError after `timeout` seconds."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise TimeoutError(f"process {self.pid} has not ended within {timeout} s")
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()


class PreloadedStudio(StudioProcess):
    """As StudioProcess, with settings alone: Python itself and the packages have read their environment before."""

    def _spawn(self, arguments: list[str]) -> Forked:
        process = preloaded_processes().Process(
            target=be_dmpo, args=(arguments, self.environment, self.log_path), daemon=True
        )
        return Forked(process)
