"""The studio where little is given: no writable code, hardly any /tmp, a user that nobody knows; and no home at all.

`benchmarks.hosting` tries more places than these.
"""

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from dmpo_app.settings.host import provide_caches
from dmpo_app.store.home import _OWN_NAME
from tests.container.confinement import ConfinedStudio, Confinement, can_confine
from tests.patience import PATIENCE

confined = pytest.mark.skipif(not can_confine(), reason="only root can make a mount namespace with a read-only disk")
VARIABLES = (
    "HF_HOME",
    "HOME",
    "MPLCONFIGDIR",
    "TMPDIR",
    "TORCHINDUCTOR_CACHE_DIR",
    "TRITON_CACHE_DIR",
    "XDG_CACHE_HOME",
)


@confined
def test_on_a_read_only_disk_with_a_tiny_tmp_an_unknown_user_serves_and_takes_votes(tmp_path: Path) -> None:
    place = Confinement(umask=0o077, tmp="1m,mode=1777", shm="1m", environment={"HOME": "/root", "LANG": "C"})
    with ConfinedStudio(tmp_path / "writable" / "home", place, TRAIN="false") as studio, studio.client() as client:
        headers = {"Authorization": f"Bearer {client.post('/api/v1/session', json={'handle': 'me'}).json()['token']}"}
        [shown] = client.get("/api/v1/assignments?count=1", headers=headers).json()["assignments"]
        body = {"assignment": shown["id"], "choice": "left", "elapsed_ms": 900}
        assert client.post("/api/v1/votes", json=body, headers=headers).status_code == 201
        assert client.get("/").status_code == 200
        names = {path.name for path in studio.home.iterdir()}
        assert {path for path in studio.home.rglob("*") if path.lstat().st_mode & 0o077} == set()
    assert {"studio.db", "secret.key", "serve.json"} <= names
    assert [name for name in names if not _OWN_NAME.fullmatch(name)] == [], "names that would pass for somebody else's"
    for word in ("WARNING", "Traceback", "atplotlib"):
        assert word not in studio.log()


@confined
def test_without_a_home_that_can_be_written_a_sentence_says_so(tmp_path: Path) -> None:
    (tmp_path / "others").mkdir(mode=0o755)
    place = Confinement(tmp="1m,mode=555")
    command = place.command(tmp_path / "others", "serve", "--port", "0", settings={"DMPO_HOME": "/srv/home"})
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert ended.returncode == 1, ended.stderr
    assert "/srv/home cannot be written to" in " ".join(ended.stderr.split())
    assert "Traceback" not in ended.stderr


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    for name in (*VARIABLES, "TRITON_CACHE_DIR"):
        monkeypatch.setenv(name, "")  # so that it is restored, whatever becomes of it
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return monkeypatch


def test_where_caches_can_be_written_nothing_is_set(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    provide_caches(tmp_path / "home")
    assert [name for name in VARIABLES if name in os.environ] == ["HOME"]
    assert not (tmp_path / "home").exists()


def test_a_users_home_that_cannot_be_written_is_read_from_and_caches_go_below_the_studios(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    models = tmp_path / "user" / ".cache" / "huggingface"
    models.mkdir(parents=True)
    environment.setenv("HOME", str(tmp_path / "user"))
    environment.setenv("MPLCONFIGDIR", "/mine")
    environment.setattr("dmpo_app.settings.host._can_write", lambda _: False)
    provide_caches(tmp_path / "home")
    assert os.environ["HF_HOME"] == str(models)
    assert os.environ["MPLCONFIGDIR"] == "/mine"
    assert os.environ["XDG_CACHE_HOME"].startswith(str(tmp_path / "home" / "cache"))


def test_temporary_files_go_to_the_home_where_their_own_folder_is_full_or_missing(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def none_there() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    environment.setattr(tempfile, "gettempdir", none_there)
    provide_caches(tmp_path / "home")
    assert tempfile.tempdir == os.environ["TMPDIR"] == str(tmp_path / "home" / "cache" / "tmp")
    assert Path(os.environ["TMPDIR"]).is_dir()
