"""A home that a studio of version 0.1.0 left on a disk opens and goes on, and is read as then: see tests/old_home."""

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from dmpo_app.cli.main import app
from dmpo_app.labeling import Sealer, load_or_create_key
from dmpo_app.server.wiring import open_lineage
from dmpo_app.settings import Settings
from tests.model_fixtures import fixed_threads
from tests.old_home.home_contents import checkpoint_facts, judgements_in
from tests.patience import PATIENCE
from tests.studio_process import PROJECT_ROOT

__all__ = ["fixed_threads"]

ARCHIVE = PROJECT_ROOT / "tests" / "old_home" / "home_0_1.tar.xz"
PROMPT, SEED = "an orange whale", 3


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture(autouse=True)
def folder(unpacked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of everything, which the commands run in: they find dmpo.toml there, as it was, and no other setting."""
    copy = tmp_path / "studio"
    shutil.copytree(unpacked, copy)
    monkeypatch.chdir(copy)
    for name in [name for name in os.environ if name.startswith("DMPO_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "200")
    return copy


@pytest.fixture
def expected(folder: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((folder / "expected.json").read_text())
    return facts


def dmpo(*arguments: str) -> str:
    """A command in this process; its output on one line."""
    result = CliRunner().invoke(app, list(arguments))
    output = " ".join(result.output.split())
    assert result.exit_code == 0, (result.exception, output)
    return output


def process(*arguments: str) -> str:
    """A command in a process of its own; its output on one line."""
    finished = subprocess.run(
        [sys.executable, "-m", "dmpo_app.cli", *arguments],
        env={**os.environ, "PYTHONPATH": str(PROJECT_ROOT)},
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return " ".join(finished.stdout.split())


def query(home: Path, statement: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(home / "studio.db")) as database:
        return database.execute(statement).fetchall()


def numbers_in(text: str) -> list[str]:
    """Numbers alone: commands may call things by other names by now."""
    return re.findall(r"\d+", text)


def is_finite(weights: Path) -> bool:
    tensors = load_file(weights)
    return bool(tensors) and all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values())


def test_the_commands_tell_of_it_what_they_told_then(folder: Path, expected: dict[str, Any]) -> None:
    status = process("status")
    pool = re.compile(r"\bpool (\d+)")
    # Twelve pairs then. Four more were assigned to people, whose hour is over.
    assert [pool.findall(" ".join(text.split())) for text in (expected["status"], status)] == [["12"], ["16"]]
    without_pool = (pool.sub("pool", " ".join(text.split())) for text in (expected["status"], status))
    assert len({tuple(numbers_in(text)) for text in without_pool}) == 1
    assert "running, step" in status
    listed = dmpo("adapters", "list")
    assert "the base model" in listed
    assert "* 1 0 " in listed


def test_every_row_of_its_database_is_still_there(folder: Path, expected: dict[str, Any]) -> None:
    with open_lineage(Settings()) as lineage:
        store, base = lineage.store, lineage.base
        assert base.id == 1, "the base model is known by what it is, not by where it lies"
        assert [adapter.version for adapter in store.adapters.list(base)] == [1]
        assert [state.status for state in store.rounds.list(base)] == ["published", "running"]
    rows = {table: query(folder / "home", f"SELECT count(*) FROM {table}")[0][0] for table in expected["rows"]}
    assert rows == expected["rows"]
    for table in ("votes", "set_images", "reports", "consents", "invites", "imported_votes", "audit_log"):
        assert rows[table] > 0, table
    counted = "count(*), count(undone_at), count(withdrawn_at), count(ranking), count(strength), count(comment)"
    assert query(folder / "home", f"SELECT {counted} FROM votes") == [(36, 1, 1, 4, 6, 6)]
    assert dict(query(folder / "home", "SELECT outcome, count(*) FROM votes GROUP BY outcome")).keys() == {
        "a",
        "b",
        "tie",
        "skip",
    }


def test_agreements_gold_pairs_and_invitations_are_listed_and_people_known_again(
    folder: Path, expected: dict[str, Any]
) -> None:
    assert "2026-11" in dmpo("consent", "list")
    assert " a a " in dmpo("gold", "list")
    assert "guests 0 2" in dmpo("invite", "list")
    assert "a teal pot" in dmpo("prompts", "list", "teal")
    sealer = Sealer(load_or_create_key(folder / "home"))
    assert sealer.open_session(expected["session"]["token"]) == expected["session"]["annotator"]


def test_every_file_is_whole_and_the_version_is_rendered_with_here_and_by_plain_diffusers(folder: Path) -> None:
    assert "everything is whole" in dmpo("verify")
    dmpo("render", PROMPT, "--seed", str(SEED), "--versions", "0,1", "--output", "rendered")
    [version] = (folder / "home" / "adapters").glob("*/00001-*")
    assert json.loads((version / "manifest.json").read_text())["version"] == 1
    ours = [pixels(Image.open(folder / "rendered" / f"seed-{SEED}-version-{number}.png")) for number in (0, 1)]
    pipeline = DiffusionPipeline.from_pretrained(folder / "model", use_safetensors=True)
    for number in (0, 1):
        if number == 1:
            pipeline.load_lora_weights(version)
        generator = torch.Generator().manual_seed(SEED)
        [plain] = pipeline(PROMPT, num_inference_steps=2, generator=generator).images
        assert np.abs(pixels(plain) - ours[number]).max() <= 1
    assert np.abs(ours[0] - ours[1]).max() > 1


def pixels(image: Image.Image) -> Any:
    return np.asarray(image, dtype=np.int64)


def test_the_round_that_was_cut_goes_on_from_its_checkpoint_and_is_published(
    folder: Path, expected: dict[str, Any]
) -> None:
    home = folder / "home"
    cut_at = checkpoint_facts(home / "rounds" / "2")["step"]
    assert cut_at == expected["round_step"] >= 8
    began = int(time.time() * 1e6)
    assert "round 2: published" in dmpo("train", "--once")
    [[first, last]] = query(
        home, f"SELECT min(step), max(step) FROM round_progress WHERE round_id = 2 AND created_at >= {began}"
    )
    assert cut_at < first, "no step is trained again"
    assert last == 40
    assert query(home, "SELECT attempts FROM rounds WHERE id = 2") == [(2,)]
    assert not (home / "rounds" / "2").exists()
    [weights] = home.glob("adapters/*/00002-*/pytorch_lora_weights.safetensors")
    assert is_finite(weights)
    assert "* 2 1 " in dmpo("adapters", "list")


def test_a_training_on_a_data_set_goes_on_from_its_checkpoint(folder: Path, expected: dict[str, Any]) -> None:
    [run] = (folder / "trained" / "work" / "runs").iterdir()
    cut_at = checkpoint_facts(run)["step"]
    assert cut_at == expected["training_step"] >= 8
    encoded = {path: path.read_bytes() for path in folder.glob("trained/work/encoded/*/pairs.jsonl")}
    output = dmpo("train", *expected["dataset_options"])
    assert f"going on at step {cut_at} of 40" in output
    assert "pairs agree" in output
    assert {path: path.read_bytes() for path in folder.glob("trained/work/encoded/*/pairs.jsonl")} == encoded
    assert list((folder / "trained" / "work" / "runs").iterdir()) == [run]
    assert not (run / "checkpoint.safetensors").exists()
    [weights] = folder.glob("trained/00001-*/pytorch_lora_weights.safetensors")
    assert is_finite(weights)


def test_its_exports_are_read_as_they_were_and_made_anew_they_say_the_same(
    folder: Path, expected: dict[str, Any]
) -> None:
    for name, made_anew in (
        ("pick-a-pic", ("pick-a-pic", "anew/pick-a-pic", "--held-out", "0")),
        ("votes", ("votes-jsonl", "anew/votes", "--with-images", "--comments")),
    ):
        assert len(expected["judgements"][name]) > 10
        assert judgements_in(folder / "export" / name) == expected["judgements"][name]
        dmpo("export", *made_anew)
        assert judgements_in(folder / "anew" / name) == expected["judgements"][name]


def test_its_backup_is_restored_with_every_vote_and_the_cut_round(folder: Path, expected: dict[str, Any]) -> None:
    assert "logged changes" in dmpo("restore", "backup", "restored")
    assert "everything is whole" in dmpo("verify", "--home", "restored")
    for table in ("votes", "annotators", "adapters", "rounds", "consents"):
        assert query(folder / "restored", f"SELECT count(*) FROM {table}")[0][0] == expected["rows"][table], table
    assert query(folder / "restored", "SELECT status FROM rounds ORDER BY id") == [("published",), ("running",)]
