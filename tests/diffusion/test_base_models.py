import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub.utils import filter_repo_objects  # type: ignore[attr-defined]  # re-exported, but not marked as such

from dmpo_app.diffusion.base_models import detect_family, fingerprint, locate, resolve_sampling
from dmpo_app.diffusion.hub import download_patterns
from dmpo_app.domain.lineage import Sampling
from dmpo_app.errors import ModelUnavailableError, UnknownFamilyError
from dmpo_app.settings import POCKET_MODEL, RenderSettings
from examples.pocket_model.export import USUAL_SAMPLING
from tests.tiny_models.cases import CASES, Case
from tests.tiny_pipeline import make_tiny_pipeline


@pytest.fixture
def model(tmp_path: Path, tiny_model: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def edit_index(folder: Path, **changes: object) -> None:
    path = folder / "model_index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_stable_diffusion_folder_is_recognised(model: Path) -> None:
    assert detect_family(str(model)) == "stable_diffusion"
    assert locate(str(model)) == model


@pytest.mark.parametrize("name", ["StableDiffusionInpaintPipeline", "SanaPipeline", None])
def test_another_family_is_refused_and_the_message_names_what_is_supported(model: Path, name: str | None) -> None:
    edit_index(model, _class_name=name)
    with pytest.raises(UnknownFamilyError, match=r"StableDiffusionPipeline.*DMPO_BASE_MODEL"):
        fingerprint(str(model))


def test_the_fingerprint_does_not_depend_on_the_place_and_needs_no_torch(model: Path, tiny_model: Path) -> None:
    code = (
        "import sys; from dmpo_app.diffusion.base_models import fingerprint; print(fingerprint(sys.argv[1])); "
        "sys.exit('torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code, str(model)], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == fingerprint(str(tiny_model))
    assert len(ran.stdout.strip()) == 64


def test_other_weights_or_another_configuration_are_another_model(tmp_path: Path, model: Path) -> None:
    seen = {fingerprint(str(model)), fingerprint(str(make_tiny_pipeline(tmp_path / "other", seed=1)))}
    for name in ("unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"):
        data = bytearray((model / name).read_bytes())
        data[-1] ^= 1
        (model / name).write_bytes(bytes(data))
        seen.add(fingerprint(str(model)))
    config = model / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text().replace("epsilon", "v_prediction"))
    seen.add(fingerprint(str(model)))
    assert len(seen) == 5


def test_files_that_make_no_images_do_not_count(model: Path) -> None:
    before = fingerprint(str(model))
    (model / "README.md").write_text("hello")
    (model / "unet" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"another variant")
    edit_index(model, _name_or_path="elsewhere", safety_checker=[None, None])
    assert fingerprint(str(model)) == before


@pytest.mark.parametrize("missing", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_an_incomplete_folder_says_which_part_is_missing(model: Path, missing: str) -> None:
    shutil.rmtree(model / missing)
    with pytest.raises(ModelUnavailableError, match=f"no {missing} folder"):
        locate(str(model))


def test_weights_that_are_only_there_as_pickle_are_refused_with_the_way_out(model: Path) -> None:
    weights = model / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(ModelUnavailableError, match=r"pickle.*save_pretrained"):
        locate(str(model))


def test_sharded_weights_are_found_and_a_missing_shard_is_named(model: Path) -> None:
    weights = model / "unet" / "diffusion_pytorch_model.safetensors"
    shard = weights.with_name("diffusion_pytorch_model-00001-of-00002.safetensors")
    weights.rename(shard)
    names = {"a": shard.name, "b": shard.name.replace("00001-of", "00002-of")}
    (model / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    with pytest.raises(ModelUnavailableError, match="lacks diffusion_pytorch_model-00002-of-00002"):
        fingerprint(str(model))
    shutil.copy(shard, shard.with_name(names["b"]))
    assert len(fingerprint(str(model))) == 64


def test_a_safety_checker_that_is_named_must_be_there(model: Path) -> None:
    edit_index(model, safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"])
    with pytest.raises(ModelUnavailableError, match="safety_checker"):
        locate(str(model))


@pytest.mark.parametrize("source", ["/no/such/folder", "no such model", "../up", "a/b/c", "~/no-such-folder-at-home"])
def test_a_source_that_is_nothing_says_so(source: str) -> None:
    with pytest.raises(ModelUnavailableError, match=r"does not exist.*DMPO_BASE_MODEL"):
        detect_family(source)


def test_a_file_or_a_folder_without_an_index_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelUnavailableError, match="is a file"):
        detect_family(str(tmp_path / "model.safetensors"))
    with pytest.raises(ModelUnavailableError, match="from_single_file"):
        detect_family(str(tmp_path))
    (tmp_path / "model_index.json").write_text("{")
    with pytest.raises(ModelUnavailableError, match="cannot be read"):
        detect_family(str(tmp_path))


def test_a_hub_id_without_a_network_says_what_to_do(tmp_path: Path) -> None:
    code = (
        "from dmpo_app.diffusion.base_models import fingerprint\nfrom dmpo_app.errors import ModelUnavailableError\n"
        "try: fingerprint('somebody/some-model')\nexcept ModelUnavailableError as error: print(error)"
    )
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PATH": ""}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "cannot be reached" in ran.stdout
    assert "DMPO_BASE_MODEL" in ran.stdout


def test_a_model_in_the_hubs_cache_needs_no_network(tmp_path: Path, tiny_model: Path) -> None:
    snapshot = tmp_path / "hub" / "models--somebody--some-model" / "snapshots" / ("0" * 40)
    shutil.copytree(tiny_model, snapshot)
    refs = snapshot.parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text("0" * 40)
    code = "from dmpo_app.diffusion.base_models import fingerprint; print(fingerprint('somebody/some-model'))"
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PATH": ""}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == fingerprint(str(tiny_model))


def test_of_a_hub_repository_only_what_is_loaded_is_fetched() -> None:
    listing = [
        "model_index.json",
        "README.md",
        "v1-5-pruned-emaonly.safetensors",
        "v1-5-pruned.ckpt",
        "feature_extractor/preprocessor_config.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "text_encoder/model.fp16.safetensors",
        "text_encoder/pytorch_model.bin",
        "tokenizer/merges.txt",
        "tokenizer/vocab.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.non_ema.safetensors",
        "unet/diffusion_pytorch_model.bin",
    ]
    patterns = download_patterns(["unet/diffusion_pytorch_model", "text_encoder/model"])
    assert list(filter_repo_objects(listing, allow_patterns=patterns)) == [
        "model_index.json",
        "feature_extractor/preprocessor_config.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "tokenizer/merges.txt",
        "tokenizer/vocab.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
    ]


USUAL = {
    "sd1": (30, 7.5), "sd2-zero-snr": (30, 7.5), "sdxl": (30, 5.0), "sd3": (28, 4.5), "flux": (28, 3.5),
    "flux-schnell": (4, 0.0),
}  # fmt: skip


def test_every_family_is_recognised_and_has_its_usual_sampling(case: Case, folder: Path) -> None:
    assert detect_family(str(folder)) == case.family
    usual = resolve_sampling(str(folder), RenderSettings())
    assert (usual.num_steps, usual.guidance) == USUAL[case.name]
    assert resolve_sampling(str(folder), RenderSettings(num_steps=7, guidance=0)) == Sampling(7, 0.0)
    assert resolve_sampling(str(folder), RenderSettings(num_steps=7)) == Sampling(7, usual.guidance)


def test_the_pocket_model_says_itself_how_it_is_sampled() -> None:
    assert resolve_sampling(str(POCKET_MODEL), RenderSettings()) == Sampling(num_steps=20, guidance=3.0)
    assert resolve_sampling(str(POCKET_MODEL), RenderSettings()) == Sampling(**USUAL_SAMPLING)  # type: ignore[arg-type]


def test_how_a_model_is_sampled_makes_no_other_model_of_it_and_nonsense_is_refused(model: Path) -> None:
    before = fingerprint(str(model))
    (model / "sampling.json").write_text('{"num_steps": 5, "guidance": 2}')
    assert resolve_sampling(str(model), RenderSettings()) == Sampling(5, 2.0)
    assert fingerprint(str(model)) == before
    (model / "sampling.json").write_text('{"num_steps": "many"}')
    with pytest.raises(ModelUnavailableError, match=r"sampling.json must hold num_steps"):
        resolve_sampling(str(model), RenderSettings())


@pytest.mark.parametrize(
    "name",
    [
        "transformer/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        "text_encoder_2/model.safetensors",
        "text_encoder_3/model.safetensors",
        "tokenizer_2/tokenizer.json",
        "tokenizer_3/tokenizer.json",
        "scheduler/scheduler_config.json",
    ],
)
def test_every_part_of_a_large_model_counts(tmp_path: Path, case_folder: Callable[[Case], Path], name: str) -> None:
    original = case_folder(CASES["sd3"])
    copy = Path(shutil.copytree(original, tmp_path / "model"))
    assert fingerprint(str(copy)) == fingerprint(str(original))
    data = bytearray((copy / name).read_bytes())
    data[-2] ^= 1
    (copy / name).write_bytes(bytes(data))
    assert fingerprint(str(copy)) != fingerprint(str(original))
    (copy / name).unlink()
    if name.endswith(".safetensors"):
        with pytest.raises(ModelUnavailableError, match=f"{name} is missing"):
            locate(str(copy))


def test_a_large_model_needs_no_torch_to_be_told_apart(case_folder: Callable[[Case], Path]) -> None:
    folder = case_folder(CASES["flux"])
    code = (
        "import sys; from dmpo_app.diffusion.base_models import detect_family, fingerprint, resolve_sampling; "
        "from dmpo_app.settings import RenderSettings; "
        "source = sys.argv[1]; "
        "print(detect_family(source), fingerprint(source), resolve_sampling(source, RenderSettings()).num_steps); "
        "sys.exit('torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["flux", fingerprint(str(folder)), "28"]


def test_of_a_large_repository_all_encoders_and_tokenizers_are_fetched_and_nothing_else() -> None:
    wanted = [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder_2/config.json",
        "text_encoder_2/model-00001-of-00002.safetensors",
        "text_encoder_2/model.safetensors.index.json",
        "tokenizer_2/special_tokens_map.json",
        "tokenizer_2/spiece.model",
        "tokenizer_2/tokenizer.json",
        "tokenizer_2/tokenizer_config.json",
        "transformer/config.json",
        "transformer/diffusion_pytorch_model-00001-of-00003.safetensors",
        "transformer/diffusion_pytorch_model.safetensors.index.json",
    ]
    rest = [
        "flux1-dev.safetensors",
        "ae.safetensors",
        "dev_grid.jpg",
        "README.md",
        "text_encoder_2/model.fp16.safetensors",
    ]
    patterns = download_patterns(["transformer/diffusion_pytorch_model", "text_encoder_2/model"])
    assert list(filter_repo_objects([*wanted, *rest], allow_patterns=patterns)) == wanted
