"""`dmpo adapters push` and `merge`: what leaves the studio works in plain diffusers, in a fresh process."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from dmpo_app.cli.adapter_commands import merge_version
from dmpo_app.cli.main import app
from dmpo_app.diffusion.loading import load_denoiser
from dmpo_app.domain.effects import Effect, PromptChange, VersionComparison, VersionEffects
from dmpo_app.errors import BadInputError
from dmpo_app.exchange.exporting.hub_push import push_adapter
from dmpo_app.settings import RoundSettings
from tests.adapters import random_adapter
from tests.hub_fixtures import HubProcess, hub, hub_process
from tests.rendering.rendering_studio import RenderingStudio
from tests.studio_process import PROJECT_ROOT
from tests.tiny_pipeline import make_tiny_pipeline

__all__ = ["hub", "hub_process"]

REPO = "tester/taste"
LEARNED = "Compared with the base model: darker in 31 of 32 images, by 9.1 %; nothing else beyond chance."
TWICE = """
import sys
from dmpo_app.cli.main import app
app(sys.argv[1:], standalone_mode=False)
app(sys.argv[1:], standalone_mode=False)
"""
RENDER = """
import sys, numpy, torch
from diffusers import DiffusionPipeline
source, adapter, merged, target = sys.argv[1:]
def made(folder, lora=None):
    pipe = DiffusionPipeline.from_pretrained(folder, use_safetensors=True, local_files_only=True)
    if lora:
        pipe.load_lora_weights(lora, weight_name="pytorch_lora_weights.safetensors")
    generator = torch.Generator().manual_seed(3)
    return pipe("a red cat", num_inference_steps=2, generator=generator, output_type="np").images[0]
numpy.savez(target, base=made(source), adapted=made(source, adapter), merged=made(merged))
"""


@pytest.fixture
def studio(tmp_path: Path) -> RenderingStudio:
    """A home with one published version whose manifest is as a round writes it."""
    model = make_tiny_pipeline(tmp_path / "model")
    studio = RenderingStudio.open(tmp_path / "home", model)
    weights = random_adapter(load_denoiser(str(model)).module, 1)
    manifest: dict[str, Any] = {
        "base_model": {"source": str(model), "family": studio.base.family, "fingerprint": studio.base.fingerprint},
        "config": {"settings": RoundSettings().model_dump(mode="json")},
        "seed": 5,
        "step": 40,
    }
    metrics = {"held_out_votes": 40.0, "held_out_accuracy": 0.75}
    studio.publish(weights, manifest, metrics)
    effect = Effect("brightness", "darker", True, 0.001, 31, -9.1, -10.0, -8.2, "percent", -0.7)
    effects = VersionEffects((effect,), (PromptChange("a cat", 12.5, 1, 1, 2),), 32, 16, 4.0, LEARNED)
    studio.store.effects.put(studio.base, VersionComparison(1, 0, effects))
    studio.store.close()
    return studio


def test_a_version_on_the_hub_and_a_merged_pipeline_draw_what_the_studio_draws(
    studio: RenderingStudio, hub: HubProcess, tmp_path: Path
) -> None:
    environment = hub.environment(
        DMPO_HOME=str(studio.settings.home), DMPO_BASE_MODEL=studio.settings.base_model, DMPO_RENDER__NUM_STEPS="2"
    )
    push = ["adapters", "push", "1", REPO, "--licence", "openrail", "--prompts", "1"]
    command = [sys.executable, "-c", TWICE, *push]
    finished = subprocess.run(command, cwd=PROJECT_ROOT, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert "version 1 is pushed" in finished.stdout
    assert "version 1 is there already" in finished.stdout
    api = hub.api()
    assert {tag.name for tag in api.list_repo_refs(REPO).tags} == {"v1"}
    there = Path(api.snapshot_download(REPO, revision="v1", local_dir=tmp_path / "there"))
    merge_version(studio.settings, 1, tmp_path / "merged", strength=1.0)
    target = tmp_path / "made.npz"
    arguments = [studio.settings.base_model, str(there), str(tmp_path / "merged"), str(target)]
    subprocess.run([sys.executable, "-c", RENDER, *arguments], check=True, capture_output=True)
    made = np.load(target)
    assert np.abs(made["adapted"] - made["base"]).max() > 0.05, "the adapter does something"
    np.testing.assert_allclose(made["merged"], made["adapted"], atol=2e-3)
    card = (there / "README.md").read_text()
    for part in ('license: "openrail"', "dmpo", "75%", "95 % interval", "seed 1", "2507.07510", "rank", LEARNED):
        assert part in card, part
    assert str(tmp_path) not in card, "no folder of this machine leaves it"
    assert len(list((there / "images").glob("*.png"))) == 2


def test_versions_are_revisions_and_an_older_one_does_not_take_mains_place(hub: HubProcess, tmp_path: Path) -> None:
    api = hub.api()
    for version in (2, 3, 1):
        folder = tmp_path / str(version)
        folder.mkdir()
        (folder / "weights.safetensors").write_bytes(b"weights of %d" % version)
        assert push_adapter(folder, REPO, version, private=True, api=api) == "pushed"
        assert push_adapter(folder, REPO, version, private=True, api=api) == "there already"
    refs = api.list_repo_refs(REPO)
    assert {tag.name for tag in refs.tags} == {"v1", "v2", "v3"}
    at = {branch.name: branch.target_commit for branch in refs.branches}
    assert at["main"] == {tag.name: tag.target_commit for tag in refs.tags}["v3"]
    assert api.model_info(REPO).private


def test_what_a_version_learned_is_shown(studio: RenderingStudio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMPO_HOME", str(studio.settings.home))
    monkeypatch.setenv("DMPO_BASE_MODEL", studio.settings.base_model)
    monkeypatch.setenv("COLUMNS", "200")
    shown = CliRunner().invoke(app, ["adapters", "show", "1"])
    assert shown.exit_code == 0, shown.output
    words = " ".join(shown.output.split())
    for part in ("Agrees with 30 of 40 votes it has not seen.", LEARNED, "-9.1", "31 of 32 darker", "12.5 % changed"):
        assert part in words, part


def test_nothing_is_merged_over_a_folder_that_is_there(studio: RenderingStudio, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(BadInputError, match="is there already"):
        merge_version(studio.settings, 1, tmp_path / "there", strength=1.0)
