"""A Space is brought to what is wanted, and only what differs is changed; nobody sees a secret."""

import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from dmpo_app.errors import BadInputError, SetupError
from dmpo_app.hosting.space import SpaceSpec, plan_steps, space_files
from dmpo_app.settings import PROJECT_ROOT
from tests.hub_fixtures import HubProcess, hub, hub_process
from tests.patience import PATIENCE

__all__ = ["hub", "hub_process"]

SPACE = "tester/studio"
CANARY = "canary-of-31-letters-and-digits"


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    found = {}
    for name, content in {
        "app.py": b"print()\n",
        "README.md": b"---\nsdk: gradio\n---\n",
        "data/model.safetensors": b"\0" * 5000,
    }.items():
        path = tmp_path / "checkout" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        found[name] = path
    return found


def do(api: HfApi, wish: SpaceSpec, files: dict[str, Path]) -> list[str]:
    steps = plan_steps(api, wish, files)
    for step in steps:
        step.run()
    return [step.description for step in steps]


def test_a_space_is_made_once_and_then_changed_only_where_it_differs(hub: HubProcess, files: dict[str, Path]) -> None:
    api = hub.api()
    wish = SpaceSpec(SPACE, True, "t4-small", "tester/votes", {"DMPO_MIN_VOTES": "8"}, {"DMPO_ADMIN_TOKEN": "canary"})
    said = do(api, wish, files)
    assert said[0] == f"make the private Space {SPACE}"
    assert "make the private bucket tester/votes" in said
    assert "set the variable DMPO_BACKUP__URL=hf://buckets/tester/votes" in said
    assert "set the secret DMPO_ADMIN_TOKEN" in said
    assert not any("canary" in words for words in [*said, repr(wish)])
    assert hub.secrets(SPACE) == {"DMPO_ADMIN_TOKEN": "canary"}
    assert api.get_space_variables(SPACE)["DMPO_MIN_VOTES"].value == "8"
    assert set(files) <= set(api.list_repo_files(SPACE, repo_type="space"))
    again = SpaceSpec(SPACE, True, "t4-small", "tester/votes", {"DMPO_MIN_VOTES": "8"})
    assert plan_steps(api, again, files) == []
    files["app.py"].write_bytes(b"print(1)\n")
    del files["README.md"]
    changed = SpaceSpec(SPACE, hardware="t4-small", bucket="tester/votes", variables={"DMPO_MIN_VOTES": "16"})
    assert do(api, changed, files) == ["set the variable DMPO_MIN_VOTES=16", "upload 1 files (0.0 MB), delete 1"]
    assert "README.md" not in api.list_repo_files(SPACE, repo_type="space")


def test_hardware_that_spaces_do_not_have_is_refused_before_anything_is_done(
    hub: HubProcess, files: dict[str, Path]
) -> None:
    api = hub.api()
    with pytest.raises(BadInputError, match="no hardware 'toaster'; they have cpu-basic"):
        plan_steps(api, SpaceSpec(SPACE, hardware="toaster"), files)
    assert not api.repo_exists(SPACE, repo_type="space")


def test_what_goes_to_a_space_is_what_it_runs_on() -> None:
    names = set(space_files(PROJECT_ROOT))
    assert {"app.py", "requirements.txt", "README.md", "data/pocket/model_index.json", "dmpo_app/cli/main.py"} <= names
    assert not any(name.startswith(("tests/", "benchmarks/", "data/studio")) for name in names)


def test_a_folder_that_is_no_checkout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="git clone"):
        space_files(tmp_path)


def test_the_command_shows_what_it_does_and_goes_on_where_the_hub_failed(hub: HubProcess) -> None:
    def dmpo(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "dmpo_app.cli", "space", *arguments, "--yes"]
        environment = hub.environment(COLUMNS="200", **more)
        return subprocess.run(
            command, cwd=PROJECT_ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
        )

    made = dmpo("create", SPACE, "--secret", "DMPO_ADMIN_TOKEN", DMPO_ADMIN_TOKEN=CANARY)
    assert made.returncode == 0, made.stderr
    assert f"make the public Space {SPACE}" in made.stdout
    assert f"{hub.url}/spaces/{SPACE}" in made.stdout
    assert CANARY not in made.stdout + made.stderr
    assert hub.secrets(SPACE) == {"DMPO_ADMIN_TOKEN": CANARY}
    assert "is as it should be" in dmpo("update", SPACE).stdout
    hub.fail(500, times=50)
    refused = dmpo("update", SPACE)
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr
