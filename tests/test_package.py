"""The package as it is installed: from a wheel, in a folder that knows nothing of the checkout."""

import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.patience import PATIENCE
from tests.studio_process import PROJECT_ROOT, StudioProcess

STRANGERS = ("json.py", "torch.py", "dmpo_app/__init__.py")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--no-build-isolation", "--no-deps", "--no-index", "--quiet", "--wheel-dir", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(PROJECT_ROOT)], check=True)
    (path,) = folder.iterdir()
    return path


@pytest.fixture(scope="module")
def dmpo(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `dmpo` command of an environment with the wheel and, for all it needs, the packages of this one."""
    environment = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    python = environment / "bin" / "python"
    # A folder named in a .pth file is on the path, but its own .pth files, the checkout's among them, are not read.
    site = subprocess.check_output(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
    ).strip()
    ours = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (Path(site) / "tests_environment.pth").write_text("\n".join(ours))
    options = ["--no-deps", "--no-index", "--quiet", "--no-compile", "--ignore-installed"]
    subprocess.run([sys.executable, "-m", "pip", "--python", str(python), "install", *options, str(wheel)], check=True)
    return environment / "bin" / "dmpo"


class InstalledStudio(StudioProcess):
    """`dmpo serve` of an installed package, started in `folder`, with the home that it then has by itself."""

    def __init__(self, dmpo: Path, folder: Path) -> None:
        # Beside other tests a nice trainer took two minutes to start.
        super().__init__(folder / "dmpo-studio", TRAINER__POLL_SECONDS="0.1", TRAINER__NICE="0")
        self.log_path = folder.parent / "studio.log"
        self.environment = {name: value for name, value in self.environment.items() if not name.startswith("PYTHON")}
        del self.environment["DMPO_HOME"]
        self._dmpo = dmpo
        self._folder = folder

    def _spawn(self, arguments: list[str]) -> subprocess.Popen[bytes]:
        with self.log_path.open("ab") as log:
            return subprocess.Popen(
                [self._dmpo, *arguments], cwd=self._folder, env=self.environment, stdout=log, stderr=log
            )

    def run(self, *arguments: str) -> str:
        """Run another command in the same folder; returns what it says."""
        finished = subprocess.run(
            [self._dmpo, *arguments], cwd=self._folder, env={**self.environment, "COLUMNS": "200"},
            capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        assert finished.returncode == 0, finished.stderr
        return finished.stdout


def test_the_wheel_holds_what_the_studio_needs_and_no_more(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    shipped = {
        "pocket/model_index.json",
        "prompts/train.txt",
        "starter-pairs.zip",
        "classifiers/attributes.safetensors",
    }
    assert {f"dmpo_app/assets/{name}" for name in shipped} <= names
    assert {"dmpo_app/ui/static/label/label.js", "dmpo_app/store/migrations/env.py"} <= names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"dmpo_app", "dmpo_studio"}
    assert not any(name.startswith("dmpo_app/assets/studio") for name in names)


def test_an_installed_studio_serves_trains_and_keeps_its_home_wherever_it_is_started(
    dmpo: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "somewhere"
    for name in STRANGERS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("raise SystemExit('a module of the current folder was imported')")
    studio = InstalledStudio(dmpo, folder)
    with studio, studio.client() as client:
        assert "DMPO Studio" in client.get("/").text
        token = client.post("/api/v1/session", json={"handle": "me"}).json()["token"]
        headers = {"Authorization": f"Bearer {token}"}
        [assignment] = client.get("/api/v1/assignments?count=1", headers=headers).json()["assignments"]
        assert client.get(assignment["left"]).headers["content-type"] == "image/png"
        assert f"Everything is kept in {studio.home}" in studio.log()
        body = {"assignment": assignment["id"], "choice": "left", "elapsed_ms": 900}
        assert client.post("/api/v1/votes", json=body, headers=headers).status_code == 201
        studio.wait_for(lambda _: "assets/pocket" in trainer_log(studio.home))
    words = studio.run("status")
    assert str(folder / "dmpo-studio") in words
    assert "1, 31 until the next round" in words
    assert "SystemExit" not in studio.log() + trainer_log(studio.home)
    assert sorted(path.name for path in folder.iterdir()) == ["dmpo-studio", "dmpo_app", "json.py", "torch.py"]


def trainer_log(home: Path) -> str:
    path = home / "trainer.log"
    return path.read_text() if path.exists() else ""
