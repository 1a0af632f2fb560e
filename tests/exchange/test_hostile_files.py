"""Files made to do harm: each is answered by a sentence, from a process of its own."""

import os
import re
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.hostile_containers import dictionary_bomb, hostile_files
from dmpo_app.domain.limits import ParserLimits
from dmpo_app.errors import BadInputError, SetupError, StudioError
from dmpo_app.exchange.readers.parsed import open_dataset
from dmpo_app.exchange.readers.registry import detect_reader, open_source
from dmpo_app.exchange.readers.source import open_rows
from dmpo_app.parsing.zip_files import unpack
from tests.exchange.readers.preference_files import pick_a_pic_row, write_pick_a_pic

LIMITS = ParserLimits(memory_mb=1024, cpu_seconds=20)
KINDS = {
    "nested lists, line": "nested too deeply",
    "nested objects, never closed": "nested too deeply",
    "number of a million digits, list": "digits",
    "a million empty objects": "columns none",
    "NUL bytes": "first line is no record",
    "rows of nothing": "claims 3,000,000 rows",
    "70 nested lists in a cell": "nested",
    "thrift list of 2e9": "size limit",
    "encrypted footer": "encrypted",
    "state.json names '../outside.arrow'": "no file of its folder",
    "arrow, metadata of 2 GB": "cannot be read as arrow|of memory",
    "zip, name of 300 bytes": "255 bytes",
    "zip, link": "a link or a device",
    "zip, file that is a folder": "as a file and as a folder",
    "zip, damaged lzma": "Corrupt",
    "zip, entries that share their bytes": "bytes of another entry",
}


def read(path: Path, limits: ParserLimits = LIMITS) -> int:
    """The number of rows of a file, or of what is in a zip file, as an import reads it."""
    dataset = unpack(path, path.parent / "unpacked", limits) if path.suffix == ".zip" else str(path)
    source = open_dataset(dataset, limits=limits)
    return sum(1 for _ in open_rows(source, detect_reader(source.columns, source.name), None, 0))


def test_each_kind_is_answered_by_a_sentence(tmp_path: Path) -> None:
    def answer(kind: str, name: str, content: bytes) -> str:
        folder = tmp_path / str(abs(hash(kind)))
        folder.mkdir()
        (folder / name).write_bytes(content)
        with pytest.raises(StudioError) as problem:
            read(folder / name)
        return str(problem.value)

    kinds = [file for file in hostile_files(with_large=False) if file.kind in KINDS]
    files = [file for file in kinds if file.name.endswith((".parquet", ".jsonl", ".json", ".zip"))]
    assert {file.kind for file in files} == set(KINDS)
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda file: answer(file.kind, file.name, file.content), files))
    for file, said in zip(files, answers, strict=True):
        assert re.search(KINDS[file.kind], said), f"{file.kind}: {said}"
        assert "nexpected" not in said


@pytest.mark.parametrize("column", ["junk", "caption"])
def test_a_large_string_in_a_dictionary_is_not_a_thousand_large_strings(tmp_path: Path, column: str) -> None:
    (tmp_path / "a.parquet").write_bytes(dictionary_bomb(column))
    assert read(tmp_path / "a.parquet", replace(LIMITS, memory_mb=768)) == 1000


def test_two_data_sets_are_opened_at_once(tmp_path: Path) -> None:
    for name in "ab":
        write_pick_a_pic(tmp_path / name / "train-0.parquet", [pick_a_pic_row(n) for n in range(5)])
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(read, [tmp_path / name for name in "abab"])) == [5] * 4


def test_rows_go_on_in_another_process_at_a_bookmark(tmp_path: Path) -> None:
    write_pick_a_pic(tmp_path / "train-0.parquet", [pick_a_pic_row(n) for n in range(9)], row_group_size=4)
    source = open_dataset(str(tmp_path), limits=LIMITS)
    stream = source.open()
    first = [row["ranking_id"] for _, row in zip(range(5), stream, strict=False)]
    rest = [row["ranking_id"] for row in source.open(stream.bookmark(), {"ranking_id"})]
    assert first + rest == list(range(9))
    assert [set(row) for row in source.open(None, {"caption"})] == [{"caption"}] * 9
    older = open_rows(source, detect_reader(source.columns, "a"), {"offset": 7}, 5)
    assert len(list(older)) == 4


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path)[-100:] if len(str(path)) < 100 else os.path.relpath(path))


@pytest.mark.skipif(os.name == "nt", reason="these are files of Unix")
@pytest.mark.parametrize("make", [_pipe, _socket, Path.mkdir, lambda path: path.symlink_to("/dev/zero"), Path.touch])
@pytest.mark.parametrize("name", ["train.parquet", "train.jsonl"])
def test_what_is_no_file_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, make: Callable[[Path], None]
) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path / name)
    with pytest.raises((BadInputError, SetupError), match=r"no regular file|is empty|leads out|holds none"):
        list(open_source(str(tmp_path)).open())
    with pytest.raises((BadInputError, SetupError), match=r"no regular file|is empty|holds none"):
        list(open_source(str(tmp_path / name)).open())


def test_a_link_is_followed_inside_its_folder_and_into_the_cache_of_the_hub_alone(tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "data" / "snapshots" / "abc", tmp_path / "data" / "blobs"
    snapshot.mkdir(parents=True)
    write_pick_a_pic(blobs / "f00", [pick_a_pic_row(0)])
    write_pick_a_pic(tmp_path / "elsewhere.parquet", [pick_a_pic_row(0)])
    (snapshot / "train-0.parquet").symlink_to(Path("..") / ".." / "blobs" / "f00")
    assert len(list(open_source(str(snapshot)).open())) == 1
    (snapshot / "train-1.parquet").symlink_to(tmp_path / "elsewhere.parquet")
    with pytest.raises(BadInputError, match="a link that leads out"):
        open_source(str(snapshot))
