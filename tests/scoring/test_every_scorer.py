"""Properties of all scorers: shape, type, independence of the batch, identity, and what is refused."""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from dmpo_app.errors import BadInputError, ModelUnavailableError, SetupError, StudioError
from dmpo_app.scoring import weights
from dmpo_app.scoring.registry import SCORERS, Scorer, build_scorer, score_in_batches
from dmpo_app.settings import PROJECT_ROOT
from tests.patience import PATIENCE
from tests.scoring.conftest import MAKERS

Images = list[PIL.Image.Image]
PICKLED = {  # what is published, and the part of it that holds the tensors
    "hpsv2": ("HPS_v2.1_compressed.pt", "state_dict"),
    "aesthetic": ("sac+logos+ava1-l14-linearMSE.pth", ""),
    "imagereward": ("ImageReward.pt", ""),
}


def build(name: str, sources: dict[str, str], *, batch_size: int = 16) -> Scorer:
    return build_scorer(name, source=sources.get(name), device="cpu", batch_size=batch_size)


@pytest.mark.parametrize("name", SCORERS)
def test_each_image_gets_one_finite_float32_score(
    name: str, sources: dict[str, str], images: Images, prompts: list[str]
) -> None:
    scorer = build(name, sources)
    scores = scorer.score(images, prompts)
    assert scores.shape == (len(images),)
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()
    assert np.ptp(scores) > 0
    assert scorer.name == name
    assert scorer.scale > 0


@pytest.mark.parametrize("name", SCORERS)
def test_a_score_does_not_depend_on_the_other_images_of_the_batch(
    name: str, sources: dict[str, str], images: Images, prompts: list[str]
) -> None:
    scorer = build(name, sources)
    together = scorer.score(images, prompts)
    rounding = 1e-4 * scorer.scale
    for batch_size in (1, 3):
        in_parts = build(name, sources, batch_size=batch_size).score(images, prompts)
        np.testing.assert_allclose(in_parts, together, rtol=1e-4, atol=rounding)
    backwards = scorer.score(images[::-1], prompts[::-1])
    np.testing.assert_allclose(backwards[::-1], together, rtol=1e-4, atol=rounding)


@pytest.mark.parametrize("name", SCORERS)
def test_the_same_images_score_the_same_to_the_last_bit(
    name: str, sources: dict[str, str], images: Images, prompts: list[str]
) -> None:
    first = build(name, sources).score(images, prompts)
    assert build(name, sources).score(images, prompts).tobytes() == first.tobytes()


@pytest.mark.parametrize("name", ["pickscore", "clip", "hpsv2", "imagereward"])
def test_scorers_that_read_prompts_tell_them_apart(name: str, sources: dict[str, str], images: Images) -> None:
    one, other = build(name, sources).score([images[0]] * 2, ["a red cat", "two boats"])
    assert one != other


@pytest.mark.parametrize("name", ["pickscore", "clip", "hpsv2", "imagereward"])
def test_what_stands_behind_the_longest_prompt_is_cut_off(name: str, sources: dict[str, str], images: Images) -> None:
    long = "a b c d e f g h i j k l m n o p q r s t u v w x y z " * 2
    one, other = build(name, sources).score([images[0]] * 2, [long + "red", long + "blue"])
    assert one == pytest.approx(other, rel=1e-5)


@pytest.mark.parametrize("name", SCORERS)
def test_no_images_have_no_scores_and_each_image_needs_its_prompt(
    name: str, sources: dict[str, str], images: Images
) -> None:
    scorer = build(name, sources)
    assert scorer.score([], []).shape == (0,)
    with pytest.raises(BadInputError, match="7 images and 1 prompts"):
        scorer.score(images, ["a red cat"])
    with pytest.raises(BadInputError, match="single string"):
        scorer.score(images, "a cat!!")


@pytest.mark.parametrize("name", MAKERS)
def test_the_identity_goes_with_the_weights_and_not_with_the_folder(
    name: str, sources: dict[str, str], tmp_path: Path
) -> None:
    identity = build(name, sources).identity
    assert name in identity
    shutil.copytree(sources[name], tmp_path / "copy")
    assert build(name, {name: str(tmp_path / "copy")}).identity == identity
    MAKERS[name](tmp_path / "other", seed=1)
    assert build(name, {name: str(tmp_path / "other")}).identity != identity


def test_scorers_without_weights_have_identities_of_their_own() -> None:
    names = [name for name in SCORERS if name not in MAKERS]
    assert len({build(name, {}).identity for name in names}) == len(names) == 6


def test_an_unknown_scorer_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(BadInputError, match=r"hpsv3.*pickscore"):
        build_scorer("hpsv3", source=None, device="cpu", batch_size=1)


def test_a_batch_of_nothing_is_refused(sources: dict[str, str]) -> None:
    with pytest.raises(BadInputError, match="at least 1, not 0"):
        build("clip", sources, batch_size=0)


def test_a_source_for_what_has_no_weights_is_refused() -> None:
    with pytest.raises(BadInputError, match="takes no weights"):
        build_scorer("warmth", source="somewhere", device="cpu", batch_size=1)


def test_a_device_that_is_not_there_is_named(sources: dict[str, str]) -> None:
    with pytest.raises(SetupError, match="'quantum'"):
        build_scorer("clip", source=sources["clip"], device="quantum", batch_size=1)


@pytest.mark.parametrize("name", PICKLED)
def test_weights_that_are_published_as_pickle_only_must_be_converted_and_named(name: str) -> None:
    with pytest.raises(ModelUnavailableError, match=rf"{name} needs its weights.*converted.*python -c .*torch\.load"):
        build_scorer(name, source=None, device="cpu", batch_size=1)


@pytest.mark.parametrize(("name", "published"), [(name, published) for name, (published, _) in PICKLED.items()])
def test_a_pickle_file_is_never_opened_and_the_way_out_is_one_command(
    name: str, published: str, tmp_path: Path
) -> None:
    (tmp_path / published).write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    with pytest.raises(ModelUnavailableError, match=rf"pickle file.*python -c .*{re.escape(published)}"):
        build_scorer(name, source=str(tmp_path / published), device="cpu", batch_size=1)
    with pytest.raises(ModelUnavailableError, match=r"no safetensors file.*python -c"):
        build_scorer(name, source=str(tmp_path), device="cpu", batch_size=1)


@pytest.mark.parametrize("name", PICKLED)
def test_the_command_in_the_message_makes_a_file_that_scores_the_same(
    name: str,
    sources: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    images: Images,
    prompts: list[str],
) -> None:
    published, part = PICKLED[name]
    folder = tmp_path / "weights"
    shutil.copytree(sources[name], folder)
    (safetensors,) = (path for path in folder.glob("*.safetensors") if path.name != "model.safetensors")
    tensors = load_file(safetensors)
    safetensors.unlink()
    torch.save({part: tensors, "epoch": 3} if part else tensors, folder / published)
    python, option, code = shlex.split(SCORERS[name].conversion or "")
    assert (python, option) == ("python", "-c")
    monkeypatch.chdir(folder)
    exec(code, {})  # a process of its own would spend seconds on importing torch
    converted = build(name, {name: str(folder)}).score(images, prompts)
    np.testing.assert_array_equal(converted, build(name, sources).score(images, prompts))


def test_the_docs_name_every_scorer_and_give_the_same_commands() -> None:
    text = (PROJECT_ROOT / "docs" / "scorers.md").read_text(encoding="utf-8")
    for name, info in SCORERS.items():
        assert f"| `{name}` |" in text
        assert (info.conversion or "") in text
    assert weights.CLIP_FOLDER in text


def test_a_score_that_is_not_finite_never_leaves_a_scorer(images: Images, prompts: list[str]) -> None:
    def broken(images: Sequence[PIL.Image.Image], _: Sequence[str]) -> NDArray[np.float32]:
        return np.array([np.nan if image.size == (40, 90) else 1.0 for image in images], np.float32)

    with pytest.raises(StudioError, match=r"broken gave image 2 \('a red cat'\) the score nan"):
        score_in_batches("broken", broken, images, prompts, batch_size=2)


def test_an_image_without_pixels_is_refused() -> None:
    with pytest.raises(BadInputError, match="image 0 is 0 x 5"):
        build("warmth", {}).score([PIL.Image.new("RGB", (0, 5))], [""])


def test_listing_the_scorers_imports_neither_torch_nor_transformers() -> None:
    code = (
        "import sys; from dmpo_app.scoring import measures, registry, weights; "
        "registry.build_scorer('warmth', source=None, device='cpu', batch_size=1); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'diffusers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=PATIENCE).returncode == 0
