"""`dmpo export` on a real home with the model that ships."""

import json
import random
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dmpo_app.cli.main import app
from dmpo_app.domain.vote import Choice
from dmpo_app.server.wiring import open_lineage
from dmpo_app.settings import Settings
from tests.exchange.exporting.campaign import rows_of
from tests.store.store_data import HOUR


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the starter pairs and one vote on each of four."""
    folder = tmp_path_factory.mktemp("exported") / "home"
    with open_lineage(Settings(home=folder)) as lineage:
        store, anna = lineage.store, lineage.store.annotators.ensure("anna")
        for shown in store.assignments.issue(lineage.base, anna.id, 4, rng=random.Random(0), lifetime=HOUR).result():
            store.votes.record(shown.id, anna.id, Choice.LEFT, 900)
    return folder


def run(home: Path, *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["export", *arguments, "--home", str(home)], env={"COLUMNS": "200"})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_votes_are_written_to_a_folder(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    code, output = run(home, "pick-a-pic", str(folder), "--licence", "cc-by-4.0", "--held-out", "0")
    assert code == 0, output
    assert "4 rows of 4 votes on 4 pairs" in output
    rows = rows_of(folder)
    assert len(rows) == 4
    assert all(row["jpg_0"].startswith(b"\x89PNG") for row in rows)
    assert 'license: "cc-by-4.0"' in (folder / "README.md").read_text()
    code, output = run(home, "pick-a-pic", str(folder), "--without-images", "--since", "2999-01-01")
    assert code == 0, output
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["rows"], manifest["selection"]["since"]) == (0, "2999-01-01T00:00:00+00:00")
    assert not list((folder / "data").iterdir())


def test_what_cannot_be_done_is_said_before_anything_is_written(home: Path, tmp_path: Path) -> None:
    for arguments, words in (
        (["tarot", str(tmp_path / "out")], "there is no export format 'tarot'"),
        (["pick-a-pic"], "where to?"),
        (["pick-a-pic", "--push", "somebody/votes"], "needs a licence"),
        (["votes-csv", str(tmp_path / "out"), "--aggregated"], "a row for each vote"),
    ):
        code, output = run(home, *arguments)
        assert code == 1
        assert words in " ".join(output.split())
    assert not list(tmp_path.iterdir())
