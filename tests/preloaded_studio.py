"""A studio forked from a process that has imported everything already, and so are its trainers."""

from tests.preloaded_process import PreloadedPython
from tests.studio_process import StudioProcess


class PreloadedStudio(StudioProcess):
    """As StudioProcess, with settings alone: Python itself and the packages have read their environment before."""

    def _spawn(self, arguments: list[str]) -> PreloadedPython:
        log = self.log_path
        return PreloadedPython(
            "dmpo_app.cli",
            arguments,
            environment=self.environment,
            stdout=log,
            stderr=log,
            own_session=True,
            has_trainer=True,
        )
