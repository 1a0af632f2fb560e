"""`dmpo judge` on a tiny base model: counted, killed and gone on with, and what it refuses."""

import json
import os
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from dmpo_app.cli import judge_command
from dmpo_app.cli.main import app
from dmpo_app.cli.train_command import EXIT_STOPPED
from dmpo_app.diffusion.adapter_files import export_adapter, write_adapter
from dmpo_app.diffusion.loading import load_denoiser
from tests.adapters import random_adapter
from tests.patience import PATIENCE
from tests.preloaded_process import PreloadedPython
from tests.rendering.rendering_studio import RenderingStudio
from tests.tiny_pipeline import make_tiny_pipeline

PROMPTS = ("a red fox", "a blue whale", "a green frog", "a pink crane", "a black cat")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_pipeline(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def adapter(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an adapter, and beside it the same one in kohya's naming."""
    root = tmp_path_factory.mktemp("adapters")
    weights = random_adapter(load_denoiser(str(model), device="cpu").module, 1)
    folder = root / write_adapter(root, 1, weights.tensors, weights.spec, {}).folder_name
    (root / "kohya.safetensors").write_bytes(export_adapter(folder, "kohya"))
    return folder


@pytest.fixture(autouse=True)
def prompts(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file of prompts; torch's threads, which decide the last bits, are what they were before."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("DMPO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DMPO_BASE_MODEL", str(model))
    monkeypatch.setenv("DMPO_RENDER__DEVICE", "cpu")
    path = tmp_path / "prompts.csv"
    path.write_text("Prompt,Category\n" + "".join(f"{prompt},animals\n" for prompt in PROMPTS))
    before = torch.get_num_threads()
    yield path
    torch.set_num_threads(before)


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["judge", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, " ".join(result.output.split())


def options(prompts: Path, output: Path, *, steps: int = 2, batch: int = 2) -> list[str]:
    usual = ["--prompts", prompts, "--output", output, "--steps", steps, "--batch", batch]
    return [*map(str, usual), "--scorer", "warmth", "--scorer", "sharpness"]


def test_a_comparison_is_counted_and_its_rows_and_images_are_there(
    adapter: Path, prompts: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    code, text = run(adapter, "base", *options(prompts, output), "--seeds", "2")
    assert code == 0, text
    assert "5 prompts, 2 seeds each" in text
    rows = pq.read_table(output / "rows.parquet").to_pylist()
    assert len(rows) == 5 * 2 * 2
    pairs = list(zip(rows[::2], rows[1::2], strict=True))
    assert all((old["side"], new["side"]) == ("old", "new") for old, new in pairs)
    assert all((old["prompt"], old["seed"]) == (new["prompt"], new["seed"]) for old, new in pairs)
    assert len({old["seed"] for old, _ in pairs}) == 10
    for old, new in pairs:
        assert (output / old["file"]).read_bytes() != (output / new["file"]).read_bytes()
    summary = json.loads((output / "summary.json").read_text())
    for name in ("warmth", "sharpness"):
        wins = sum(new[name] > old[name] for old, new in pairs)
        verdict = summary["scorers"][name]
        assert (verdict["wins"], verdict["wins"] + verdict["losses"]) == (wins, 10)
        assert f"{name} {wins / 10:.1%}" in text
        with Image.open(output / f"sheet-{name}.png") as sheet:
            assert sheet.width > 1000


def test_a_version_ties_with_itself_however_it_is_named(
    adapter: Path, model: Path, prompts: Path, tmp_path: Path
) -> None:
    studio = RenderingStudio.open(tmp_path / "home", model)
    studio.publish(random_adapter(load_denoiser(str(model), device="cpu").module, 1))
    studio.store.close()
    for new, old in (("live", 1), (adapter.parent / "kohya.safetensors", adapter.parent), ("base", 0)):
        output = tmp_path / f"out-{old}".replace("/", "-")
        code, text = run(new, old, *options(prompts, output), "--limit", "2")
        assert code == 0, text
        verdict = json.loads((output / "summary.json").read_text())["scorers"]["sharpness"]
        assert (verdict["wins"], verdict["ties"], verdict["losses"], verdict["win_rate"]) == (0, 2, 0, 0.5)


@contextmanager
def stopping_after(checks: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A signal to stop that comes after so many looks at it."""

    class Flag:
        left = checks

        def is_set(self) -> bool:
            self.left -= 1
            return self.left < 0

    @contextmanager
    def signals() -> Iterator[Flag]:
        yield Flag()

    with monkeypatch.context() as patch:
        patch.setattr(judge_command, "stop_signals", signals)
        yield


def test_stopped_anywhere_it_goes_on_and_ends_in_the_same_rows(
    adapter: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run(adapter, *options(prompts, whole))[0] == 0
    for checks in (3, 9, 4):  # in the old version's images, the new one's, and the scores
        with stopping_after(checks, monkeypatch):
            code, text = run(adapter, *options(prompts, parts))
        assert code == EXIT_STOPPED
        assert "run the same command again" in text
    assert len(list(parts.glob("scores/*/*.json"))) == 2
    first = parts / "images" / "old" / next((parts / "images" / "old").iterdir()).name
    modified = first.stat().st_mtime_ns
    assert run(adapter, *options(prompts, parts))[0] == 0
    assert first.stat().st_mtime_ns == modified
    assert (parts / "rows.parquet").read_bytes() == (whole / "rows.parquet").read_bytes()


def test_killed_in_the_middle_it_goes_on_and_ends_in_the_same_rows(
    adapter: Path, model: Path, prompts: Path, tmp_path: Path
) -> None:
    whole, killed, log = tmp_path / "whole", tmp_path / "killed", tmp_path / "log"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DMPO_")}
    environment |= {"DMPO_BASE_MODEL": str(model), "DMPO_RENDER__DEVICE": "cpu"}
    arguments = [str(adapter), *options(prompts, killed, steps=12, batch=1)]
    process = PreloadedPython("dmpo_app.cli", ["judge", *arguments], environment=environment, stdout=log, stderr=log)
    while not list(killed.glob("batches/old/*.json")):
        assert process.poll() is None, log.read_text()
        time.sleep(0.002)
    process.kill()
    assert process.wait(timeout=PATIENCE) == -signal.SIGKILL
    assert not (killed / "rows.parquet").exists()
    assert run(*arguments)[0] == 0
    assert run(adapter, *options(prompts, whole, steps=12, batch=1))[0] == 0
    assert (killed / "rows.parquet").read_bytes() == (whole / "rows.parquet").read_bytes()


def test_a_folder_of_other_inputs_is_refused_and_other_scorers_are_asked_of_the_same_images(
    adapter: Path, prompts: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    usual = options(prompts, output)
    assert run(adapter, *usual)[0] == 0
    before = {path: path.stat().st_mtime_ns for path in output.glob("images/*/*.png")}
    for others, words in (
        ((adapter, *usual[:4], "--steps", 3, *usual[6:]), "steps: 2 there, 3 now"),
        ((adapter, *usual, "--limit", 3), "prompts: 5, sha256"),
        ((adapter, *usual, "--seed", 1), "seed: 0 there, 1 now"),
        (("base", adapter, *usual), "new version"),
    ):
        code, text = run(*others)
        assert code == 1
        assert words in text
        assert "choose another --output" in text
    code, text = run(adapter, *usual[:8], "--scorer", "brightness")
    assert code == 0, text
    assert "brightness" in text
    assert {path: path.stat().st_mtime_ns for path in output.glob("images/*/*.png")} == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("base", "--scorer", "taste"), "no scorer named 'taste'; there are: pickscore"),
        (("base",), "no scorer is named"),
        (("base", "--scorer", "warmth", "--scorer", "warmth"), "given twice"),
        (("base", "--scorer", "pocket-fidelity="), "names no source"),
        (("base", "--scorer", "hpsv2"), "needs its weights as a safetensors file"),
        (("best", "--scorer", "warmth"), "no version 'best'; expected the number of a version"),
        ((7, "--scorer", "warmth"), "no version 7"),
        (("taste.pt", "--scorer", "warmth"), "is no safetensors file"),
        (("broken.safetensors", "--scorer", "warmth"), "no valid safetensors file"),
        (("empty", "--scorer", "warmth"), "holds no single LoRA file"),
        (("base", "--scorer", "warmth", "--column", "words"), "no column 'words'"),
        (("base", "--scorer", "warmth", "--prompts", "nowhere.txt"), "cannot be read"),
        (("base", "--scorer", "warmth", "--prompts", "blank.txt"), "holds no prompt"),
        (("base", "--scorer", "warmth", "--output", "empty/.."), "holds no comparison"),
        (("base", "--scorer", "warmth", "--model", "empty"), "model_index.json"),
    ],
)
def test_what_cannot_be_compared_is_said_in_a_sentence(
    prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for name in ("taste.pt", "broken.safetensors", "blank.txt"):
        (tmp_path / name).write_bytes(b"\n\n")
    code, text = run(*options(prompts, tmp_path / "out")[:4], *arguments)
    assert code == 1
    assert words in text
    assert not (tmp_path / "out" / "images").exists()


def test_prompts_that_cannot_be_used_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    rows = [{"prompt": "a red fox"}, {"prompt": " a  red fox"}, {"prompt": 3}, {"prompt": "x" * 1001}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, text = run("base", *options(path, tmp_path / "out"))
    assert code == 0, text
    for words in ("rows left out: 1, no text", "1, more than 1000 characters", "1, the same prompt again"):
        assert words in text


def test_a_full_disk_is_named(prompts: Path, tmp_path: Path) -> None:
    before, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    try:
        code, text = run("base", *options(prompts, tmp_path / "out"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, hard))
    assert code == 1
    assert "free some space" in text
    assert run("base", *options(prompts, tmp_path / "out"))[0] == 0
