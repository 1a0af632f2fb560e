import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from dmpo_app.backup.remotes.folder_remote import FolderRemote
from dmpo_app.labeling.sign_in import load_or_create_key
from dmpo_app.store import Store
from tests.backup.backup_data import Switch, Voters
from tests.patience import PATIENCE, wait_until
from tests.store.store_data import make_home
from tests.studio_process import free_port


@pytest.fixture(scope="session")
def empty_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("backup") / "home")


@pytest.fixture
def home(tmp_path: Path, empty_home: Path) -> Path:
    return Path(shutil.copytree(empty_home, tmp_path / "home"))


@pytest.fixture
def voters(home: Path) -> Iterator[Voters]:
    """People who vote in `home`, which stays open."""
    load_or_create_key(home)
    with Store.open(home) as store:
        yield Voters(store)


@pytest.fixture
def storage(tmp_path: Path) -> Switch:
    """A storage with a switch: a folder."""
    return Switch(FolderRemote(tmp_path / "storage"))


@pytest.fixture(scope="session")
def s3_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A bucket of a real S3 server in a process of its own."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    log = tmp_path_factory.mktemp("s3") / "log"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    names = {"AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret",
             "AWS_DEFAULT_REGION": "us-east-1"}  # fmt: skip
    before = dict(os.environ)
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as server:
        try:
            os.environ.update(names)
            wait_until(lambda: _answers(address), "the S3 server answers")
            answer = httpx.put(f"{address}/votes", timeout=PATIENCE)
            assert answer.is_success, log.read_text()
            yield "s3://votes/studio"
        finally:
            for name in names:
                os.environ.pop(name, None)
            os.environ.update({name: before[name] for name in names if name in before})
            server.kill()


def _answers(address: str) -> bool:
    try:
        httpx.get(address, timeout=PATIENCE)
    except httpx.HTTPError:  # not up yet
        return False
    return True
