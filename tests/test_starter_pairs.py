import io
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from dmpo_app.domain.lineage import NewImage, NewPair, PairSource, Provenance
from dmpo_app.errors import SetupError
from dmpo_app.exchange.importing.starter_pairs import read_starter_pairs, write_starter_pairs


def image(seed: int) -> NewImage:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (seed, 2 * seed, 3 * seed)).save(buffer, "PNG")
    made = Provenance("a cat", seed, "ddim", 20, 3.0, 0, 1.0, 2, 1, "cpu", "float32")
    return NewImage(buffer.getvalue(), 8, 8, made, latents=b"latents %d" % seed)


def pair(seed: int) -> NewPair:
    return NewPair("a cat", image(seed), image(seed + 1), b"embeddings", PairSource.STARTER)


def test_what_is_written_is_read_and_the_same_pairs_give_the_same_bytes(tmp_path: Path) -> None:
    pairs = [pair(1), pair(3)]
    for name in ("one.zip", "two.zip"):
        write_starter_pairs(tmp_path / name, "abc", pairs)
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    starter = read_starter_pairs(tmp_path / "one.zip")
    assert starter.fingerprint == "abc"
    assert list(starter.pairs) == pairs


def test_a_changed_member_is_refused(tmp_path: Path) -> None:
    write_starter_pairs(tmp_path / "good.zip", "abc", [pair(1)])
    with zipfile.ZipFile(tmp_path / "good.zip") as good, zipfile.ZipFile(tmp_path / "bad.zip", "w") as bad:
        for name in good.namelist():
            bad.writestr(name, b"something else" if name.endswith(".png") else good.read(name))
    with pytest.raises(SetupError, match="sha256"):
        read_starter_pairs(tmp_path / "bad.zip")


def test_a_file_that_is_no_zip_is_refused_with_advice(tmp_path: Path) -> None:
    (tmp_path / "not.zip").write_text("hello")
    with pytest.raises(SetupError, match="DMPO_POOL__STARTER_PAIRS"):
        read_starter_pairs(tmp_path / "not.zip")
