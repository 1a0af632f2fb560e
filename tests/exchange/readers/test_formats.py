"""Each format's rows become the pairs they stand for, and what cannot be used gets its reason."""

import io
import json
import os
import random
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image

from dmpo_app.errors import SetupError
from dmpo_app.exchange.readers.reader import (
    ImageFolder,
    LeftOutPair,
    LeftOutReason,
    PreferencePair,
    UnusableImageError,
    decode_image,
    read_row,
    wins_from_scores,
)
from dmpo_app.exchange.readers.registry import READERS, detect_reader, open_source
from tests.exchange.readers.preference_files import image_bytes, mixed_rows, pick_a_pic_row, write_pick_a_pic


def read_all(dataset: Path, split: str = "train") -> tuple[str, list[PreferencePair | LeftOutPair]]:
    source = open_source(str(dataset), split=split)
    reader = detect_reader(source.columns, source.name)
    rows = enumerate(source.open())
    return reader.name, [found for index, row in rows for found in read_row(reader, row, str(index), source.folder)]


def summary(found: list[PreferencePair | LeftOutPair]) -> list[Any]:
    """Wins of a, or the reason, in order."""
    return [item.wins_a if isinstance(item, PreferencePair) else item.reason for item in found]


def write_images(folder: Path, *names: str) -> None:
    for index, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(image_bytes(index, file_format="PNG"))


def test_pick_a_pic_with_ties_missing_labels_broken_and_identical_images(tmp_path: Path) -> None:
    rows = mixed_rows()
    name, found = read_all(write_pick_a_pic(tmp_path / "train-00000.parquet", rows))
    assert name == "pick-a-pic"
    assert summary(found) == [
        1.0, 0.0, 0.5, LeftOutReason.MISSING_LABEL, 1.0, LeftOutReason.BROKEN_IMAGE, 1.0, 0.5,
        LeftOutReason.IDENTICAL_IMAGES, 0.0, 1.0, 0.0,
    ]  # fmt: skip
    first = found[0]
    assert isinstance(first, PreferencePair)
    assert (first.prompt, first.image_a, first.image_b) == (rows[0]["caption"], rows[0]["jpg_0"], rows[0]["jpg_1"])
    assert (first.num_votes, first.source_id) == (1, "0")


def test_the_variant_of_pick_a_pic_without_images_counts_every_row_as_without_images(tmp_path: Path) -> None:
    rows = [pick_a_pic_row(index) for index in range(3)]
    path = write_pick_a_pic(tmp_path / "train.parquet", rows, leave_out=("jpg_0", "jpg_1"))
    assert summary(read_all(path)[1]) == [LeftOutReason.NO_IMAGE] * 3


def test_a_label_that_is_neither_choice_nor_tie_is_not_guessed_at() -> None:
    assert wins_from_scores(1, 0) == 1.0
    assert wins_from_scores(0.5, 0.5) == 0.5
    assert wins_from_scores(None, 1.0) is LeftOutReason.MISSING_LABEL
    assert wins_from_scores(float("nan"), 0.0) is LeftOutReason.MISSING_LABEL
    for scores in ((0, 0), (1, 1), (0.7, 0.3), ("left", "right"), (2, 0), (10**400, 0)):
        assert wins_from_scores(*scores) is LeftOutReason.UNCLEAR_LABEL


HPDV2 = next(reader for reader in READERS if reader.name == "hpdv2")


@pytest.mark.parametrize("paths", [["a.png"] * 40_000, [str(number) for number in range(46)]])
def test_a_row_that_would_be_more_pairs_than_any_ranking_is_left_out(paths: object) -> None:
    [left_out] = read_row(HPDV2, {"prompt": "a cat", "image_path": paths, "rank": None}, "0", ImageFolder())
    assert isinstance(left_out, LeftOutPair)
    assert left_out.reason is LeftOutReason.TOO_MANY_PAIRS


_IMAGES = {"image_a": "a.png", "image_b": "b.png"}
_ANNOTATION = {"result": [], "lead_time": "9" * 500_000}
TEXTS_FOR_LISTS: dict[str, dict[str, Any]] = {
    "hpdv2": {"prompt": "a cat", "image_path": "a" * 100_000, "rank": None},
    "label-studio": {"data": {"prompt": "a cat", **_IMAGES}, "annotations": [_ANNOTATION] * 900},
    "argilla": {"prompt": "a cat", **_IMAGES, "best.responses": "a" * 5_000_000},
}


@pytest.mark.parametrize("name", TEXTS_FOR_LISTS)
def test_a_text_where_a_list_or_a_number_belongs_is_not_taken_for_its_letters(name: str) -> None:
    reader = next(reader for reader in READERS if reader.name == name)
    tracemalloc.start()
    found = read_row(reader, TEXTS_FOR_LISTS[name], "0", ImageFolder())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert all(isinstance(one, LeftOutPair) for one in found)
    assert peak < 4_000_000


def test_the_images_of_a_row_are_read_once_and_only_so_much_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{number}.png" for number in range(5)]
    write_images(tmp_path, *names)
    row = {"prompt": "a cat", "image_path": names, "rank": list(range(5))}
    found = read_row(HPDV2, row, "0", ImageFolder(tmp_path))
    files = {id(file) for one in found if isinstance(one, PreferencePair) for file in (one.image_a, one.image_b)}
    assert (len(found), len(files)) == (10, 5)
    size = (tmp_path / names[0]).stat().st_size
    monkeypatch.setattr("dmpo_app.exchange.readers.reader.MAX_ROW_IMAGE_BYTES", 2 * size + 20)
    reasons = summary(read_row(HPDV2, row, "0", ImageFolder(tmp_path)))
    assert reasons.count(LeftOutReason.TOO_MUCH_DATA) == 9


@pytest.mark.skipif(os.name == "nt", reason="links take rights there")
def test_links_in_a_circle_are_no_image(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(UnusableImageError):
        ImageFolder(tmp_path).content("a/x.png")


@pytest.mark.parametrize("binarized", [True, False])
def test_chosen_and_rejected_images_of_a_saved_data_set(tmp_path: Path, binarized: bool) -> None:
    columns: dict[str, list[Any]] = {
        "prompt": ["a cat", "  ", "a dog"],
        "chosen": [{"bytes": image_bytes(index), "path": None} for index in range(3)],
        "rejected": [{"bytes": image_bytes(5), "path": None}] * 2 + [None],
    }
    if binarized:
        columns |= {"chosen_model": ["x"] * 3, "rejected_model": ["y"] * 3, "id": ["1", "2", "3"]}
    data = datasets.Dataset.from_dict(columns)
    data = data.cast_column("chosen", datasets.Image()).cast_column("rejected", datasets.Image())
    data.save_to_disk(tmp_path / "saved")
    data.to_parquet(tmp_path / "parquet" / "train-0.parquet")
    for folder in ("saved", "parquet"):
        name, found = read_all(tmp_path / folder)
        assert name == ("open-image-preferences" if binarized else "chosen-rejected")
        assert summary(found) == [1.0, LeftOutReason.EMPTY_PROMPT, LeftOutReason.NO_IMAGE]


def test_a_prompt_that_is_an_embedding_is_no_prompt() -> None:
    reader = next(reader for reader in READERS if reader.name == "open-image-preferences")
    row = {"prompt": [0.1, 0.2], "chosen": image_bytes(0), "rejected": image_bytes(1)}
    assert summary(read_row(reader, row, "0", ImageFolder())) == [LeftOutReason.EMPTY_PROMPT]
    assert summary(read_row(reader, row | {"images.prompt": "a cat"}, "0", ImageFolder())) == [1.0]


def test_both_files_of_hpdv2_which_name_their_columns_differently(tmp_path: Path) -> None:
    write_images(tmp_path, "train/a.png", "train/b.png", "test/a.png", "test/b.png", "test/c.png")
    train = [
        {"prompt": "a cat", "file_path": ["train/a.png", "train/b.png"], "human_preference": [0, 1]},
        {"prompt": "a cat", "file_path": ["train/a.png", "train/gone.png"], "human_preference": [0, 1]},
        {"prompt": "a cat", "file_path": ["train/a.png", "train/b.png"], "human_preference": []},
        {"prompt": "a cat", "file_path": ["train/a.png"], "human_preference": [1]},
    ]
    test = [
        {
            "prompt": "a dog",
            "image_path": ["test/a.png", "test/b.png", "test/c.png"],
            "rank": [2, 1, 2],
            "raw_annotations": [{"rank": [2, 1, 3], "user_hash": "u"}],
        }
    ]
    (tmp_path / "train.json").write_text(json.dumps(train))
    (tmp_path / "test.json").write_text(json.dumps(test))
    name, found = read_all(tmp_path, "train")
    assert name == "hpdv2"
    assert summary(found) == [0.0, LeftOutReason.NO_IMAGE, LeftOutReason.MISSING_LABEL, LeftOutReason.BROKEN_ROW]
    name, found = read_all(tmp_path, "test")
    assert name == "hpdv2"
    assert summary(found) == [0.0, 0.5, 1.0]  # a < b, a = c, b > c: a lower rank is better
    assert [item.source_id for item in found] == ["0/0", "0/1", "0/2"]


def test_hpdv3_puts_the_preferred_image_first(tmp_path: Path) -> None:
    write_images(tmp_path, "a.png", "b.png")
    (tmp_path / "train.json").write_text(json.dumps([{"prompt": "x", "path1": "a.png", "path2": "b.png"}]))
    assert read_all(tmp_path) == ("hpdv3", read_all(tmp_path)[1])
    assert summary(read_all(tmp_path)[1]) == [1.0]


def test_pairs_in_jsonl_with_images_beside_them(tmp_path: Path) -> None:
    write_images(tmp_path, "images/a.png", "images/b.png")
    row = {"image_0": "images/a.png", "image_1": "images/b.png", "prompt": "a cat"}
    labels = [(1, 0), (0, 1), (0.5, 0.5), (0, 0)]
    lines = [json.dumps(row | {"prefer_0": a, "prefer_1": b}) for a, b in labels]
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines))
    name, found = read_all(tmp_path / "pairs.jsonl")
    assert name == "pairs-jsonl"
    assert summary(found) == [1.0, 0.0, 0.5, LeftOutReason.UNCLEAR_LABEL]


def test_two_folders_of_winners_and_losers(tmp_path: Path) -> None:
    write_images(tmp_path, "winners/1.png", "losers/1.png", "winners/2.png", "winners/3.png", "losers/3.png")
    (tmp_path / "winners/1.txt").write_text("a cat\n")
    (tmp_path / "winners/2.txt").write_text("a dog")
    name, found = read_all(tmp_path)
    assert name == "winner-loser-folders"
    assert summary(found) == [1.0, LeftOutReason.NO_IMAGE, LeftOutReason.EMPTY_PROMPT]


def test_a_path_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    write_images(tmp_path, "secret.png", "data/a.png")
    (tmp_path / "data" / "link.png").symlink_to(tmp_path / "secret.png")
    folder = ImageFolder(tmp_path / "data")
    assert folder.content("a.png") == (tmp_path / "data" / "a.png").read_bytes()
    for name in ("../secret.png", str(tmp_path / "secret.png"), "link.png", "a\0.png", "", "gone.png"):
        with pytest.raises(UnusableImageError, match="no image bytes"):
            folder.content(name)
    with pytest.raises(UnusableImageError, match="no image bytes"):
        ImageFolder().content("a.png")


def test_an_image_is_bounded_before_it_is_decoded() -> None:
    buffer = io.BytesIO()
    Image.new("1", (5001, 4000)).save(buffer, "PNG")
    assert len(buffer.getvalue()) < 100_000
    with pytest.raises(UnusableImageError, match="20 megapixels"):
        decode_image(buffer.getvalue())


@pytest.mark.parametrize(
    "content", [b"not an image", b"\x89PNG\r\n\x1a\n", image_bytes(1)[:200], b"GIF89a" + b"\0" * 40]
)
def test_what_is_no_whole_png_jpeg_or_webp_is_broken(content: bytes) -> None:
    with pytest.raises(UnusableImageError, match="broken image"):
        decode_image(content)


def test_transparent_parts_are_white_and_the_cameras_note_is_followed() -> None:
    clear = io.BytesIO()
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(clear, "PNG")
    assert decode_image(clear.getvalue()).getpixel((0, 0)) == (255, 255, 255)
    turned, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 4)).save(turned, "JPEG", exif=exif)
    assert decode_image(turned.getvalue()).size == (4, 8)


def test_unknown_columns_are_refused_with_what_is_known() -> None:
    with pytest.raises(SetupError, match=r"text, url; known formats(.|\n)*pick-a-pic"):
        detect_reader(["url", "text"], "some file")


def test_each_format_is_told_by_its_columns_alone() -> None:
    assert len(Counter(reader.name for reader in READERS)) == len(READERS)
    columns = {"prompt", "chosen", "rejected", "chosen_model", "rejected_model", "id", "evolution"}
    assert detect_reader(columns, "x").name == "open-image-preferences"
    assert detect_reader({"prompt", "chosen", "rejected"}, "x").name == "chosen-rejected"


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
def test_damaged_images_are_broken_or_readable_and_never_anything_else(file_format: str) -> None:
    whole = image_bytes(3, file_format=file_format)
    rng = random.Random(0)
    outcomes: Counter[str] = Counter()
    for _ in range(300):
        damaged = bytearray(whole[: rng.randrange(len(whole) // 2, len(whole) + 1)])
        for _ in range(rng.randrange(4)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        try:
            outcomes[decode_image(bytes(damaged)).mode] += 1
        except UnusableImageError as problem:
            outcomes[problem.reason] += 1
    assert outcomes[LeftOutReason.BROKEN_IMAGE] > 100
    assert set(outcomes) <= {"RGB", LeftOutReason.BROKEN_IMAGE, LeftOutReason.TOO_LARGE}
