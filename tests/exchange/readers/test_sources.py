"""Sources are read in order, no further than asked for, and go on from a bookmark."""

import json
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import pytest

from dmpo_app.errors import SetupError, StudioError
from dmpo_app.exchange.readers.registry import open_source
from dmpo_app.exchange.readers.source import RowsSource
from tests.exchange.readers.preference_files import pick_a_pic_row, write_pick_a_pic

LIGHT = ("jpg_0", "jpg_1")


def shards(folder: Path, count: int = 3, rows: int = 5) -> Path:
    for shard in range(count):
        some = [pick_a_pic_row(shard * rows + index) for index in range(rows)]
        write_pick_a_pic(folder / f"train-{shard:05d}.parquet", some, leave_out=LIGHT, row_group_size=2)
    return folder


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "json", "saved"])
@pytest.mark.parametrize("taken", [0, 1, 5, 8])
def test_reading_goes_on_exactly_where_a_bookmark_was_taken(tmp_path: Path, kind: str, taken: int) -> None:
    path = tmp_path / "data"
    if kind == "parquet":
        shards(path)
    elif kind == "saved":
        datasets.Dataset.from_dict({"ranking_id": list(range(15))}).save_to_disk(path, num_shards=3)
    else:
        path.mkdir()
        rows: list[Any] = [{"ranking_id": index} for index in range(15)]
        text = json.dumps(rows) if kind == "json" else "\n".join(json.dumps(row) for row in rows)
        (path / f"train.{kind}").write_text(text)
    stream = open_source(str(path)).open()
    first = [row["ranking_id"] for row in islice(stream, taken)]
    bookmark = json.loads(json.dumps(stream.bookmark()))
    rest = [row["ranking_id"] for row in open_source(str(path)).open(bookmark if taken else None)]
    assert first + rest == list(range(15))


def test_a_source_is_read_no_further_than_asked_for() -> None:
    made: list[int] = []

    class Rows:
        def __iter__(self) -> Iterator[dict[str, int]]:
            for index in range(10**9):
                made.append(index)
                yield {"n": index}

    source = RowsSource(Rows(), name="endless", columns=("n",))
    stream = source.open()
    assert [row["n"] for row in islice(stream, 3)] == [0, 1, 2]
    assert len(made) == 3
    assert next(iter(source.open(stream.bookmark())))["n"] == 3


def test_the_split_picks_the_files_of_a_folder(tmp_path: Path) -> None:
    shards(tmp_path)
    write_pick_a_pic(tmp_path / "test-0.parquet", [pick_a_pic_row(99)], leave_out=LIGHT)
    assert len(list(open_source(str(tmp_path)).open())) == 15
    assert [row["ranking_id"] for row in open_source(str(tmp_path), split="test").open()] == [99]
    with pytest.raises(SetupError, match="validation"):
        open_source(str(tmp_path), split="validation")


def test_the_fingerprint_follows_the_content(tmp_path: Path) -> None:
    one, two, other = shards(tmp_path / "a"), shards(tmp_path / "b"), shards(tmp_path / "c", rows=4)
    assert open_source(str(one)).fingerprint == open_source(str(two)).fingerprint
    assert open_source(str(one)).fingerprint != open_source(str(other)).fingerprint


def test_what_is_no_data_set_is_said(tmp_path: Path) -> None:
    for missing in (tmp_path / "gone.parquet", tmp_path / "gone"):
        with pytest.raises(SetupError, match="there is no data set"):
            open_source(str(missing))
    (tmp_path / "model.pkl").write_bytes(b"\x80\x04N.")
    with pytest.raises(SetupError, match="not of a known kind"):
        open_source(str(tmp_path / "model.pkl"))
    with pytest.raises(SetupError, match=r"holds none; expected .parquet"):
        open_source(str(tmp_path))
    (tmp_path / "a.jsonl").write_text("{}\n")
    (tmp_path / "b.parquet").write_bytes(b"")
    with pytest.raises(SetupError, match="several kinds"):
        open_source(str(tmp_path))


def test_a_damaged_file_ends_reading_with_what_to_do(tmp_path: Path) -> None:
    path = shards(tmp_path, count=2) / "train-00001.parquet"
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(StudioError, match="run the same command again"):
        list(open_source(str(tmp_path)).open())


def test_without_the_library_its_installation_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards(tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(SetupError, match="`pip install pyarrow`"):
        open_source(str(tmp_path))


def test_a_hub_id_that_cannot_be_had_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SetupError, match="cannot be had from the hub"):
        open_source("nobody/no-such-data-set")
