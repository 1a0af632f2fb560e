import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from dmpo_app.store import Store
from tests.web.api_studio import ApiStudio, open_studio
from tests.web.studio_fakes import add_pairs


@pytest.fixture(scope="session")
def prepared_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a base model and 12 pairs; made once, copied by every test."""
    home = tmp_path_factory.mktemp("prepared") / "home"
    with Store.open(home) as store:
        add_pairs(store, store.models.register("pocket", "stable_diffusion", "f" * 64), 12, size=16)
    return home


@pytest.fixture
def studio(prepared_home: Path, tmp_path: Path) -> Iterator[ApiStudio]:
    """A studio of the test's own."""
    with open_studio(Path(shutil.copytree(prepared_home, tmp_path / "home"))) as opened:
        yield opened


@pytest.fixture(scope="module")
def shared_studio(prepared_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiStudio]:
    """One for all tests of a file, for those that leave nothing behind."""
    with open_studio(Path(shutil.copytree(prepared_home, tmp_path_factory.mktemp("shared") / "home"))) as opened:
        yield opened
