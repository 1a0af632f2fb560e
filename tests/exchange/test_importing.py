"""Other people's pairs and votes, taken into a home."""

import base64
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import Connection, select, text
from sqlalchemy.exc import IntegrityError

from dmpo_app.domain.data_import import ImportBatch, ImportCounts, ImportUse
from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.domain.vote import Choice, Outcome, Question, Strength
from dmpo_app.errors import ConflictError
from dmpo_app.exchange.importing.importer import Importer, get_reader
from dmpo_app.exchange.readers.registry import open_source
from dmpo_app.labeling.quality.quality_report import make_name_hasher
from dmpo_app.labeling.sign_in import load_or_create_key
from dmpo_app.settings import Settings
from dmpo_app.store import Store
from dmpo_app.store.imports.import_rows import HELD_OUT
from dmpo_app.store.schema import ImportedPairRow
from tests.exchange.exporting.campaign import Campaign
from tests.exchange.readers.preference_files import image_bytes, mixed_rows, pick_a_pic_row, write_pick_a_pic
from tests.store.store_data import HOUR, Clock, integrity_of, issue, scalar, vote_once

PNG = "PNG"


def importer(store: Store, base: BaseModelRef, path: Path, use: ImportUse = ImportUse.BOTH) -> Importer:
    source = open_source(str(path))
    return Importer(store, base, Settings(home=store.home), source, get_reader(source, "auto"), use)


def take_in(store: Store, base: BaseModelRef, path: Path, use: ImportUse = ImportUse.BOTH) -> ImportCounts:
    return importer(store, base, path, use).run().counts


def rows_of(store: Store, query: str) -> list[Any]:
    return [tuple(row) for row in store.read(query)]


def write_image(folder: Path, name: str, seed: int, size: tuple[int, int] = (40, 36)) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(image_bytes(seed, file_format=PNG, size=size))
    return path


def write_lines(path: Path, records: list[Any]) -> Path:
    path.write_text("\n".join(json.dumps(record) for record in records), encoding="utf-8")
    return path


def test_a_preview_counts_what_the_import_then_does_and_writes_nothing(
    store: Store, base: BaseModelRef, tmp_path: Path
) -> None:
    path = write_pick_a_pic(tmp_path / "data" / "train-0.parquet", mixed_rows()).parent
    preview = importer(store, base, path).preview()
    expected = ImportCounts(12, 10, 9, 2, 1, 0, {"broken image": 1, "identical images": 1})
    assert preview.counts == expected
    assert sorted(preview.left_out) == [("5", "broken image"), ("8", "identical images")]
    assert scalar(store, "SELECT (SELECT count(*) FROM imports) + (SELECT count(*) FROM pairs)") == 0
    assert take_in(store, base, path) == expected
    assert sorted(store.imports.left_out(1)) == [("5", "broken image"), ("8", "identical images")]


def test_images_are_stored_as_png_without_what_else_was_in_their_files(
    store: Store, base: BaseModelRef, tmp_path: Path
) -> None:
    exif, noted = Image.Exif(), io.BytesIO()
    exif[0x010E] = "taken at home"
    Image.open(io.BytesIO(image_bytes(1))).save(noted, "JPEG", exif=exif, comment=b"secret")
    rows = [pick_a_pic_row(0, jpg_0=noted.getvalue(), jpg_1=image_bytes(2, size=(50, 20)))]
    take_in(store, base, write_pick_a_pic(tmp_path / "train-0.parquet", rows))
    sizes = []
    for sha256, width, height in rows_of(store, "SELECT sha256, width, height FROM images ORDER BY id"):
        content = store.files.read_image(sha256)
        with Image.open(io.BytesIO(content)) as image:
            assert (image.format, image.mode, image.info) == ("PNG", "RGB", {})
            assert image.size == (width, height)
        assert b"secret" not in content
        sizes.append((width, height))
    assert sizes == [(40, 36), (50, 20)]


def test_an_image_that_asks_for_gigabytes_costs_its_row(store: Store, base: BaseModelRef, tmp_path: Path) -> None:
    bomb = io.BytesIO()
    Image.new("1", (9000, 9000)).save(bomb, PNG)
    rows = [pick_a_pic_row(0, jpg_0=bomb.getvalue()), pick_a_pic_row(1)]
    counts = take_in(store, base, write_pick_a_pic(tmp_path / "train-0.parquet", rows))
    assert (counts.pairs, counts.left_out) == (1, {"image of more than 20 megapixels": 1})


def test_the_same_rows_add_nothing_whatever_file_they_come_in(store: Store, base: BaseModelRef, tmp_path: Path) -> None:
    rows = [pick_a_pic_row(index) for index in range(6)]
    swapped = [
        row | {"jpg_0": row["jpg_1"], "jpg_1": row["jpg_0"], "label_0": row["label_1"], "label_1": row["label_0"]}
        for row in rows
    ]
    path = write_pick_a_pic(tmp_path / "a" / "train-0.parquet", rows).parent
    assert take_in(store, base, path).votes == 6
    assert importer(store, base, path).preview().counts == ImportCounts()
    again = write_pick_a_pic(tmp_path / "b" / "train-0.parquet", [*rows[::-1], *swapped]).parent
    assert importer(store, base, again).preview().counts.duplicates == 12
    counts = take_in(store, base, again)
    assert (counts.pairs, counts.votes, counts.duplicates) == (0, 0, 12)
    other = write_pick_a_pic(tmp_path / "c" / "train-0.parquet", [swapped[0] | {"user_id": 8}]).parent
    assert take_in(store, base, other).votes == 1
    assert rows_of(store, "SELECT outcome FROM votes WHERE pair_id = 1") == [("a",), ("a",)]
    assert scalar(store, "SELECT count(*) FROM annotators") == 2


def test_no_pair_of_a_held_out_prompt_or_of_one_like_it_gets_in(
    store: Store, base: BaseModelRef, tmp_path: Path
) -> None:
    store.prompts.ensure(["A red cat!"], held_out=True)
    rows = [pick_a_pic_row(index) for index in range(5)]
    path = write_pick_a_pic(tmp_path / "train-0.parquet", rows)
    assert importer(store, base, path).preview().counts.left_out == {HELD_OUT: 1}
    assert take_in(store, base, path).left_out == {HELD_OUT: 1}
    assert rows_of(store, "SELECT count(*) FROM pairs JOIN prompts ON prompts.id = prompt_id WHERE held_out") == [(0,)]


def test_imported_prompts_are_not_drawn_on_for_new_pairs(store: Store, base: BaseModelRef, tmp_path: Path) -> None:
    store.prompts.ensure(["a red cat"], held_out=False)
    take_in(store, base, write_pick_a_pic(tmp_path / "train-0.parquet", [pick_a_pic_row(n) for n in range(5)]))
    assert list(store.prompts.for_pairs()) == ["a red cat"]
    assert list(store.prompts.for_pairs(["imported"])) == []


@pytest.mark.parametrize(("use", "votes", "shown"), [("votes", 4, 0), ("pairs", 0, 4), ("both", 4, 4)])
def test_pairs_can_be_shown_trained_on_or_both(
    store: Store, base: BaseModelRef, tmp_path: Path, use: str, votes: int, shown: int
) -> None:
    path = write_pick_a_pic(tmp_path / "train-0.parquet", [pick_a_pic_row(n) for n in range(4)])
    take_in(store, base, path, ImportUse(use))
    anna = store.annotators.ensure("anna")
    assert len(issue(store, base, anna, 8)) == shown
    assert store.votes.training_votes(base) == []
    assert store.votes.new_preferences(base).count == 0, "nothing has latents yet"
    for pair in store.imports.list_unencoded(base, after=0, limit=9):
        embeds = {} if pair.embeds else {pair.prompt: pair.prompt.encode()}
        store.imports.record_encoding(base, {pair.id: (b"latents a", b"latents b")}, embeds)
    assert store.imports.encoding_progress(base) is None
    assert len(store.votes.training_votes(base)) == store.votes.new_preferences(base).count == votes


def test_imported_pairs_are_judged_here_like_any_other(store: Store, base: BaseModelRef, tmp_path: Path) -> None:
    take_in(store, base, write_pick_a_pic(tmp_path / "train-0.parquet", [pick_a_pic_row(0)]), ImportUse.PAIRS)
    anna = store.annotators.ensure("anna")
    vote_once(store, base, anna)
    [pair] = store.imports.list_unencoded(base, after=0, limit=9)
    assert store.votes.training_votes(base) == []
    store.imports.record_encoding(base, {pair.id: (b"a", b"b")}, {pair.prompt: b"embeds"})
    assert [vote.annotator_id for vote in store.votes.training_votes(base)] == [anna.id]


def test_raw_votes_of_a_studio_come_back_to_their_own_annotators(
    store: Store, base: BaseModelRef, tmp_path: Path
) -> None:
    take_in(store, base, write_pick_a_pic(tmp_path / "train-0.parquet", [pick_a_pic_row(0)]))
    [(annotator, public_id)] = rows_of(store, "SELECT id, public_id FROM annotators")
    own_name = make_name_hasher(load_or_create_key(store.home), {annotator: public_id})(annotator)
    files = [store.files.read_image(sha256) for (sha256,) in rows_of(store, "SELECT sha256 FROM images ORDER BY id")]
    names = [sha256 for (sha256,) in rows_of(store, "SELECT sha256 FROM images ORDER BY id")]
    for name, content in zip(names, files, strict=True):
        (tmp_path / "out" / "images").mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / "images" / f"{name}.png").write_bytes(content)
    sides = {"image_a": {"sha256": names[0], "seed": 3}, "image_b": {"sha256": names[1], "seed": 4}}
    vote = {"prompt": "a blue cat", "question": "fit", "annotator": own_name, "a_on_left": False} | sides
    extra = {"strength": "clearly", "comment": "=1+1", "elapsed_ms": 900, "created_at": "2026-01-01T10:00:00+00:00"}
    lines = [vote | extra | {"outcome": "b"}, vote | {"outcome": "both_bad", "question": "overall", "annotator": "x"}]
    lines += [vote | {"outcome": "a", "purpose": "repeat"}, vote | {"outcome": "dunno", "annotator": "y"}]
    write_lines(tmp_path / "out" / "votes.jsonl", [*lines, "no record"])
    counts = take_in(store, base, tmp_path / "out")
    assert (counts.rows, counts.pairs, counts.votes) == (5, 1, 2)
    found = rows_of(
        store, "SELECT choice, outcome, question, strength, comment, elapsed_ms FROM votes WHERE id > 1 ORDER BY id"
    )
    assert found == [
        (Choice.LEFT, Outcome.B, Question.FIT, Strength.CLEARLY, "=1+1", 900),
        ("both_bad", Outcome.BOTH_BAD, Question.OVERALL, None, None, 0),
    ]
    assert rows_of(store, "SELECT annotator_id FROM votes WHERE question = 'fit'") == [(annotator,)]
    assert take_in(store, base, tmp_path / "out").votes == 2, "the counts of the one import there is"
    assert scalar(store, "SELECT count(*) FROM votes") == 3


def test_label_studio_with_a_pairwise_control_and_a_choice_for_ties(
    store: Store, base: BaseModelRef, tmp_path: Path
) -> None:
    write_image(tmp_path, "upload/1/x.png", 1)
    write_image(tmp_path, "local/y.png", 2)
    data = {"prompt": "a cat", "image1": "/data/upload/1/x.png", "image2": "/data/local-files/?d=local/y.png"}

    def said(kind: str, value: Any, who: Any, **more: Any) -> dict[str, Any]:
        return {"result": [{"type": kind, "value": value}], "completed_by": who, "lead_time": 1.5, **more}

    tasks = [
        {
            "data": data,
            "annotations": [
                said("pairwise", {"selected": "right"}, 1),
                said("choices", {"choices": ["Tie"]}, {"id": 2, "email": "x@example.org"}),
                said("pairwise", {"selected": "left"}, 3, was_cancelled=True),
            ],
        },
        {"data": data | {"image2": "https://example.invalid/z.png"}, "annotations": []},
        {"data": {"text": "no images"}, "annotations": []},
    ]
    (tmp_path / "project.json").write_text(json.dumps(tasks))
    counts = take_in(store, base, tmp_path / "project.json")
    assert (counts.rows, counts.pairs, counts.votes, counts.ties) == (3, 1, 2, 1)
    assert counts.left_out == {"no image bytes": 1, "a row of another shape than its format has": 1}
    assert rows_of(store, "SELECT outcome, elapsed_ms FROM votes") == [("b", 1500), ("tie", 1500)]
    assert scalar(store, "SELECT count(*) FROM annotators WHERE handle LIKE '%example%'") == 0


def test_both_exports_of_argilla(store: Store, base: BaseModelRef, tmp_path: Path) -> None:
    uri = ["data:image/png;base64," + base64.b64encode(image_bytes(n, file_format=PNG)).decode() for n in range(2)]
    fields = {"prompt": "a cat", "image_1": uri[0], "image_2": uri[1]}
    ranking = [{"value": "image_2", "rank": 1}, {"value": "image_1", "rank": 2}]
    responses = [
        {"value": "image_1", "user_id": "u1"},
        {"value": "Both bad", "user_id": "u2", "status": "submitted"},
        {"value": "image_2", "user_id": "u3", "status": "draft"},
        {"value": ranking, "user_id": "u4"},
    ]
    nested = [{"id": "1", "fields": fields, "responses": {"better": responses}}]
    (tmp_path / "nested.json").write_text(json.dumps(nested))
    counts = take_in(store, base, tmp_path / "nested.json")
    assert (counts.pairs, counts.votes) == (1, 3)
    assert rows_of(store, "SELECT outcome FROM votes ORDER BY id") == [("a",), ("both_bad",), ("b",)]
    flat = {**fields, "id": "1", "status": "completed", "better.responses": ["image_2"]}
    write_lines(tmp_path / "flat.jsonl", [flat | {"better.responses.users": ["u5"]}])
    assert take_in(store, base, tmp_path / "flat.jsonl").votes == 1


def test_folders_and_chosen_rejected_need_no_annotators(store: Store, base: BaseModelRef, tmp_path: Path) -> None:
    write_image(tmp_path, "winners/1.png", 1, (64, 32))
    write_image(tmp_path, "losers/1.png", 2)
    (tmp_path / "winners/1.txt").write_text("a cat")
    assert take_in(store, base, tmp_path).votes == 1
    assert rows_of(store, "SELECT handle FROM annotators") == [("winner-loser-folders",)]
    assert rows_of(store, "SELECT width, height FROM images ORDER BY id") == [(64, 32), (40, 36)]


def test_where_a_pair_comes_from_is_kept_and_never_changed(store: Store, base: BaseModelRef, tmp_path: Path) -> None:
    take_in(store, base, write_pick_a_pic(tmp_path / "train-0.parquet", [pick_a_pic_row(0)]))
    with store.database.reader() as connection:
        origin = connection.execute(select(ImportedPairRow.origin)).scalar_one()
    assert origin["a"] == {"model": "some-model", "uid": "0-0"}
    assert "7" not in str(rows_of(store, "SELECT handle FROM annotators")[0][0].split()[0])
    for statement in ("DELETE FROM imported_votes", "UPDATE imported_pairs SET source_row = 'x'"):
        work = partial(Connection.execute, statement=text(statement))
        with pytest.raises(IntegrityError, match="never"):
            store.database.write(work)


def test_what_made_an_imported_image_leaves_with_it(
    store: Store, base: BaseModelRef, clock: Clock, tmp_path: Path
) -> None:
    row = {**pick_a_pic_row(0), "model_0": "first-model", "model_1": "second-model", "label_0": 0.0, "label_1": 1.0}
    take_in(store, base, write_pick_a_pic(tmp_path / "train-0.parquet", [row]))
    campaign = Campaign(store, base, clock, tmp_path / "out", [])
    [picked] = campaign.rows("pick-a-pic")
    assert (picked["model_0"], picked["model_1"]) == ("first-model", "second-model")
    [preferred] = campaign.rows("open-image-preferences")
    assert (preferred["chosen_model"], preferred["rejected_model"]) == ("second-model", "first-model")
    [raw] = campaign.rows("votes-jsonl")
    assert raw["image_b"]["base_model"] == "second-model"


def test_two_imports_of_the_same_data_at_once_cannot_double_it(
    store: Store, base: BaseModelRef, tmp_path: Path
) -> None:
    path = write_pick_a_pic(tmp_path / "train-0.parquet", [pick_a_pic_row(n) for n in range(3)])
    one = importer(store, base, path)
    state = store.imports.begin(base, one.spec)
    one.run()
    with pytest.raises(ConflictError, match="another process"):
        store.imports.insert_batch(base, state, ImportBatch(0, [], [], {}, True), {}).result()


def test_a_kill_in_the_middle_and_a_second_run_lose_and_double_nothing(tmp_path: Path) -> None:
    data = tmp_path / "votes.jsonl"
    images = [f"data:image/jpeg;base64,{base64.b64encode(image_bytes(n, size=(16, 16))).decode()}" for n in range(1400)]
    votes = [
        {
            "prompt": f"cat {n % 9}",
            "outcome": "a",
            "image_a": {"file": images[2 * n]},
            "image_b": {"file": images[2 * n + 1]},
        }
        for n in range(700)
    ]
    write_lines(data, votes)
    home = tmp_path / "home"
    script = """
import sys
from pathlib import Path
from tests.exchange.test_importing import take_in
from tests.store.store_data import FINGERPRINT
from dmpo_app.store import Store
with Store.open(Path(sys.argv[1])) as store:
    take_in(store, store.models.register("pocket", "stable_diffusion", FINGERPRINT), Path(sys.argv[2]))
"""
    command = [sys.executable, "-c", script, str(home), str(data)]
    process = subprocess.Popen(command)
    with Store.open(home) as store:
        while process.poll() is None and scalar(store, "SELECT count(*) FROM votes") == 0:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        halfway = scalar(store, "SELECT count(*) FROM votes")
        assert halfway in (256, 512, 700)
        subprocess.run(command, check=True)
        for table in ("pairs", "votes", "imported_pairs", "imported_votes"):
            assert scalar(store, f"SELECT count(*) FROM {table}") == 700
        names = rows_of(store, "SELECT DISTINCT sha256 FROM images")
        assert all(store.files.image_path(name).is_file() for (name,) in names)
    assert integrity_of(home) == "ok"


def test_withdrawn_imported_votes_do_not_come_back(store: Store, base: BaseModelRef, tmp_path: Path) -> None:
    rows = [pick_a_pic_row(0)]
    take_in(store, base, write_pick_a_pic(tmp_path / "a" / "train-0.parquet", rows).parent)
    store.own_votes.withdraw_all(1)
    other = write_pick_a_pic(tmp_path / "b" / "train-0.parquet", [*rows, pick_a_pic_row(1)]).parent
    assert take_in(store, base, other).votes == 1
    anna = store.annotators.ensure("anna")
    issued = store.assignments.issue(base, anna.id, 4, rng=random.Random(0), lifetime=HOUR).result()
    assert len(issued) == 2
