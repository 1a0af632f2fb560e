"""Python forked from a process that has imported everything already: imports are most of what a start costs.

Each is a process of its own, with an environment and an output of its own, and can be killed; only what it imports was
imported before, and with the environment of the tests. It ends without taking the interpreter down: a test of a clean
end needs `subprocess`.
"""

import multiprocessing
import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path

from tests.studio_process import PROJECT_ROOT

PRELOADED = [
    "dmpo_app.cli.main",
    "dmpo_app.server.run",
    "dmpo_app.diffusion.loading",
    "dmpo_app.diffusion.families.protocol",
    "dmpo_app.rendering.engine",
    "dmpo_app.training.offline.dataset_training",
    "dmpo_app.training.rounds.round_runner",
    "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion",
    "tests.browser.served_home",
    "tests.training.training_studio",
    "tests.model_fixtures",
    "tests.forked_trainer",
    "tests.imports_settled",
]


def preloaded_processes() -> ForkServerContext:
    """Processes forked from one that has imported what a server or a trainer imports; it lives as long as the tests."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


class PreloadedPython:
    """`python -m module arguments`, with the methods of `subprocess.Popen`; what it says is appended to files."""

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        stdout: Path,
        stderr: Path,
        own_session: bool = False,
        has_trainer: bool = False,
    ) -> None:
        self._files = (stdout, stderr)
        process = preloaded_processes().Process(
            target=_be,
            args=(module, list(arguments), dict(environment), self._files, own_session, has_trainer),
            daemon=True,
        )
        process.start()
        assert process.pid is not None
        self.pid: int = process.pid
        self._process = process

    @property
    def returncode(self) -> int | None:
        """The exit code, or minus the number of the signal that ended it; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code. Raises TimeoutError after `timeout` seconds."""
        self._process.join(timeout)
        code = self.returncode
        if code is None:
            raise TimeoutError(f"process {self.pid} has not ended within {timeout} s")
        return code

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """All that it wrote, on its output and its error output, once it has ended."""
        self.wait(timeout)
        said, complained = (file.read_text(encoding="utf-8") for file in self._files)
        return said, complained

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()


def _be(
    module: str,
    arguments: list[str],
    environment: dict[str, str],
    files: tuple[Path, Path],
    own_session: bool,
    has_trainer: bool,
) -> None:
    """Be that Python, in a process that was just forked."""
    if own_session:
        os.setsid()
    os.chdir(PROJECT_ROOT)
    for stream, file in enumerate(files, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT), stream)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = [folder for folder in environment.get("PYTHONPATH", "").split(os.pathsep) if folder]
    sys.argv = [module, *arguments]
    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]  # it may have children
    if has_trainer:
        from tests.forked_trainer import fork_trainers_from_here

        fork_trainers_from_here()
    runpy.run_module(module, run_name="__main__", alter_sys=True)
