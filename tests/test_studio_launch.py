"""The studio from Python: `Studio(settings).launch()`."""

from pathlib import Path

import httpx
import pytest

from dmpo_app import Studio
from dmpo_app.errors import BadInputError, HomeLockedError
from dmpo_app.settings import Settings
from tests.tiny_pipeline import make_tiny_pipeline


def test_a_studio_is_launched_beside_a_notebook_and_closed_again(tmp_path: Path) -> None:
    model = make_tiny_pipeline(tmp_path / "model")
    settings = Settings(home=tmp_path / "home", base_model=str(model), port=0, train=False)
    with pytest.raises(BadInputError, match=r"not running; launch\(block=False\)"):
        _ = Studio(settings).url
    with Studio(settings) as studio:
        assert studio.launch(block=False) is studio
        url = studio.url
        assert repr(studio) == f"<Studio at {url}>"
        assert httpx.get(f"{url}/api/v1/status", timeout=30).json()
        with pytest.raises(BadInputError, match="running already"):
            studio.launch()
        with pytest.raises(HomeLockedError, match="another studio serves"):
            Studio(settings).launch(block=False)
    with pytest.raises(httpx.ConnectError):
        httpx.get(url, timeout=5)
    assert not (tmp_path / "home" / "serve.json").exists()
    assert repr(studio) == "<Studio, not running>"
