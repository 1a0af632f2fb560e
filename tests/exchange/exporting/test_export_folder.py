"""The folder of an export: the same bytes each time, whole or not at all, and little that changes with new votes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.filled_store import fill
from dmpo_app.domain.vote import Outcome
from dmpo_app.errors import BadInputError, BusyError
from dmpo_app.exchange.exporting import FORMATS, ExportOptions, Selection, export_to, get_format
from dmpo_app.exchange.exporting.output_files import MANIFEST, Shards, atomic_folder, open_row_file, read_manifest
from dmpo_app.io.files import sha256_of_file
from dmpo_app.settings import Settings
from dmpo_app.store import Store
from tests.exchange.exporting.campaign import Campaign, rows_of

_KILLED = """
import sys
from pathlib import Path
from dmpo_app.exchange.exporting import *
from dmpo_app.settings import Settings
from dmpo_app.store import Store

home, folder = map(Path, sys.argv[1:])
with Store.open(home) as store:
    base = store.models.register("benchmark", "stable_diffusion", "f" * 64)
    settings, form = Settings(home=home), get_format("pick-a-pic")
    while True:
        export_to(folder, store, base, settings, form, Selection(), ExportOptions(),
                  progress=lambda pair: print(pair, flush=True) if pair == 60 else None)
"""


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", [form.name for form in FORMATS])
def test_the_same_votes_are_the_same_bytes(campaign: Campaign, name: str) -> None:
    for pair in range(6):
        campaign.vote("anna", pair, Outcome.A)
        campaign.vote("ben", pair, (Outcome.A, Outcome.B)[pair % 2])
    first, _ = campaign.export(name, to="first", with_images=True, held_out_share=0.3)
    second, _ = campaign.export(name, to="second", with_images=True, held_out_share=0.3)
    assert files_of(first) == files_of(second)
    campaign.export(name, to="second", with_images=True, held_out_share=0.3)
    assert files_of(first) == files_of(second)
    listed = read_manifest((first / MANIFEST).read_text())
    assert set(listed) == set(files_of(first)) - {MANIFEST}
    assert all(sha256_of_file(first / path) == sha256 for path, sha256 in listed.items())


def test_the_card_says_what_is_in_it_and_nobody_s_name(campaign: Campaign) -> None:
    for pair in range(6):
        for name in ("anna", "ben"):
            campaign.vote(name, pair, (Outcome.A, Outcome.B)[pair % 2])
    folder, _ = campaign.export("chosen-rejected", licence="cc-by-4.0")
    text = (folder / "README.md").read_text()
    assert text.startswith('---\nlicense: "cc-by-4.0"\n')
    assert "path: data/train-*.parquet" in text
    assert "6 rows (train 6, test 0)" in text
    assert "12 votes of 2 people on 6 pairs" in text
    assert "Krippendorff's alpha 1.00" in text
    assert "| `rejected` | image |" in text
    secrets = ["anna", "ben", "/home/somebody", campaign.person("anna").public_id]
    for content in files_of(folder).values():
        assert not any(secret.encode() in content for secret in secrets)


def test_an_export_without_votes_is_an_empty_one(campaign: Campaign) -> None:
    for form in FORMATS:
        folder, summary = campaign.export(form.name)
        assert (summary.rows, rows_of(folder)) == (0, [])
        assert json.loads((folder / MANIFEST).read_text())["votes"] == 0


def test_an_image_that_is_missing_or_damaged_costs_its_pair_and_is_counted(campaign: Campaign) -> None:
    for pair in range(3):
        campaign.vote("anna", pair, Outcome.A)
    files = campaign.store.files
    images = [campaign.store.pairs.get(pair).image_a.sha256 for pair in campaign.pairs[:2]]
    files.image_path(images[0]).unlink()
    files.image_path(images[1]).write_bytes(b"another image")
    folder, summary = campaign.export("pick-a-pic")
    assert len(rows_of(folder)) == summary.rows == 1
    assert summary.left_out == {"pairs whose images are missing in the store": 2}


def test_a_withdrawn_vote_changes_the_file_of_its_pair_and_no_other(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dmpo_app.exchange.exporting.output_files.PAIRS_WITHOUT_IMAGES", 3)
    votes = [campaign.vote("anna", pair, Outcome.A) for pair in range(8)]

    def export() -> dict[str, str]:
        folder, _ = campaign.export("votes-jsonl")
        return read_manifest((folder / MANIFEST).read_text())

    before = export()
    assert sorted(path for path in before if path.startswith("data/")) == [
        f"data/train-{number:06d}-00.jsonl" for number in range(3)
    ]
    campaign.store.own_votes.withdraw(votes[0], campaign.person("anna").id)
    after = export()
    assert {path for path in before if before[path] != after[path]} == {"README.md", "data/train-000000-00.jsonl"}


def test_a_file_that_grows_too_large_goes_on_in_another_one(tmp_path: Path) -> None:
    shards = Shards(tmp_path, ".jsonl", span=100, open_file=lambda path: open_row_file(path, []), max_bytes=180)
    for pair in range(1, 7):
        shards.add("train", pair, {"text": "x" * 80})
    shards.close()
    assert shards.rows == dict.fromkeys((f"data/train-000000-{part:02d}.jsonl" for part in range(3)), 2)


def test_nothing_but_an_export_is_ever_replaced(campaign: Campaign) -> None:
    precious = campaign.folder / "precious"
    precious.mkdir(parents=True)
    (precious / "thesis.tex").write_text("six years")
    with pytest.raises(BadInputError, match="is no export"):
        campaign.export("pick-a-pic", to="precious")
    assert files_of(precious) == {"thesis.tex": b"six years"}
    assert [path.name for path in campaign.folder.iterdir()] == ["precious"]


def test_two_exports_to_one_folder_do_not_meet(tmp_path: Path) -> None:
    with (
        atomic_folder(tmp_path / "out") as staging,
        pytest.raises(BusyError, match="another export"),
        atomic_folder(tmp_path / "out"),
    ):
        pass
    assert not staging.exists()


def test_an_export_that_fails_leaves_the_earlier_one(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "out") as staging:
        (staging / MANIFEST).write_text("{}")

    def fail_half_way() -> None:
        with atomic_folder(tmp_path / "out") as staging:
            (staging / MANIFEST).write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    assert files_of(tmp_path) == {"out/manifest.json": b"{}"}


def test_a_killed_export_leaves_none_that_looks_whole_and_is_cleared_away_by_the_next(
    tmp_path: Path, store: Store
) -> None:
    base = fill(store, 400, size=32)
    folder = tmp_path / "out"
    command = [sys.executable, "-c", _KILLED, str(store.home), str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "60"
    time.sleep(0.02)  # the kill is to come anywhere in what is left of the export, not always at the pair that was told
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    if folder.exists():  # it was quick
        listed = read_manifest((folder / MANIFEST).read_text())
        assert all(sha256_of_file(folder / path) == sha256 for path, sha256 in listed.items())
    form = get_format("pick-a-pic")
    export_to(folder, store, base, Settings(home=store.home), form, Selection(), ExportOptions())
    assert len(rows_of(folder)) == 400
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == ["out"]
