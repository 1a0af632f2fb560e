"""`python /srv/dmpo/app.py` in another folder, from code that is installed nowhere: page, trainer and decoders."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.exchange.readers.preference_files import pick_a_pic_row, write_pick_a_pic
from tests.patience import wait_until
from tests.studio_process import PROJECT_ROOT, StudioProcess

# Takes the checkout off the path, where an editable installation has put it for every Python of this environment.
NOT_INSTALLED = """import os, sys
sys.path = [path for path in sys.path if not os.path.isfile(os.path.join(path, "dmpo_app", "__init__.py"))]
"""


class StudioElsewhere(StudioProcess):
    """A copy of the code, started in a folder that has a module of its own by the name of a standard one."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        super().__init__(folder / "home", **settings)
        self.code, self.cwd, self.site = folder / "srv", folder / "elsewhere", folder / "site"
        for path in (self.code, self.cwd, self.site):
            path.mkdir()
        shutil.copytree(PROJECT_ROOT / "dmpo_app", self.code / "dmpo_app", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(PROJECT_ROOT / "app.py", self.code)
        (self.code / "data").symlink_to(PROJECT_ROOT / "data")
        (self.site / "sitecustomize.py").write_text(NOT_INSTALLED)
        (self.cwd / "json.py").write_text("raise RuntimeError('not this one')")
        (self.cwd / "dmpo.toml").write_text("min_votes = 9\n")
        self.environment |= {"PYTHONPATH": str(self.site), "DMPO_PORT": str(self.port)}

    def _spawn(self, arguments: list[str]) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(self.code / "app.py")]
        with self.log_path.open("ab") as log:
            return subprocess.Popen(
                command, cwd=self.cwd, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[StudioElsewhere]:
    running = StudioElsewhere(tmp_path)
    with running:
        yield running


def test_everything_is_found_from_another_folder_and_a_trainer_and_an_import_run(
    studio: StudioElsewhere, tmp_path: Path
) -> None:
    assert studio.process is not None
    server = psutil.Process(studio.process.pid)
    wait_until(server.children, "the trainer is started")
    assert any(str(studio.code) in " ".join(child.cmdline()) for child in server.children())
    status = studio.wait_for(lambda status: status["trainer"]["running"])
    assert status["votes_until_round"] == 9  # of the dmpo.toml there
    content = write_pick_a_pic(tmp_path / "a.parquet", [pick_a_pic_row(n) for n in range(2)]).read_bytes()
    with studio.client() as client:
        path, query = "/api/v1/imports", {"name": "a.parquet", "as": "both"}
        client.post(path, params=query, content=content, headers=studio.admin).raise_for_status()
        wait_until(lambda: phase(client, studio) == "previewed", "the import is previewed")
        client.post(f"{path}/take-in", headers=studio.admin).raise_for_status()
        wait_until(lambda: phase(client, studio) == "done", "the import is taken in")
    assert sorted(path.name for path in studio.cwd.iterdir()) == ["dmpo.toml", "json.py"]


def phase(client: httpx.Client, studio: StudioProcess) -> str:
    current: dict[str, Any] = client.get("/api/v1/imports", headers=studio.admin).raise_for_status().json()["current"]
    assert current["phase"] != "failed", current
    return str(current["phase"])
