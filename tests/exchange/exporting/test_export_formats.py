"""Each export format of votes, held against the formats as they are published and against the readers."""

import csv
from datetime import datetime

import pytest
from datasets import load_dataset

from dmpo_app.domain.judging import NewDuel
from dmpo_app.domain.vote import AssignmentRules, Outcome, Purpose, Question, Strength
from dmpo_app.exchange.readers.reader import PreferencePair, read_row
from dmpo_app.exchange.readers.registry import detect_reader, open_source
from tests.exchange.exporting.campaign import ALL_GOLD, ALL_REPEATS, NUM_PAIRS, Campaign, rows_of, schema_of
from tests.exchange.readers.preference_files import PICK_A_PIC_V2, image_bytes
from tests.store.store_data import new_image, publish_version

A, B, TIE = Outcome.A, Outcome.B, Outcome.TIE


def test_pick_a_pic_has_the_published_columns_types_and_order(campaign: Campaign) -> None:
    campaign.vote("anna", 0, B)
    folder, _ = campaign.export("pick-a-pic")
    assert schema_of(folder).remove_metadata() == PICK_A_PIC_V2
    (row,) = rows_of(folder)
    pair = campaign.store.pairs.get(campaign.pairs[0])
    assert row["jpg_0"] == campaign.store.files.read_image(pair.image_a.sha256)
    assert (row["label_0"], row["label_1"], row["best_image_uid"]) == (0.0, 1.0, pair.image_b.sha256)
    assert row["created_at"] == datetime(2026, 1, 1, 12, 1)
    assert (row["caption"], row["model_0"], row["num_example_per_prompt"]) == ("a red cat", "pocket", 1)
    assert 0 < row["user_id"] < 2**48


def test_pick_a_pic_without_images_lacks_their_columns_alone(campaign: Campaign) -> None:
    campaign.vote("anna", 0, A)
    folder, _ = campaign.export("pick-a-pic", with_images=False)
    names = [name for name in PICK_A_PIC_V2.names if name not in ("jpg_0", "jpg_1")]
    assert schema_of(folder).names == names


def test_open_image_preferences_has_the_published_columns(campaign: Campaign) -> None:
    campaign.vote("anna", 0, B)
    (row,) = campaign.rows("open-image-preferences")
    wanted = {"id", "prompt", "chosen", "rejected", "chosen_model", "rejected_model"}
    assert set(row) == wanted | {"evolution", "category", "sub_category"}
    assert row["chosen"]["path"] == f"{campaign.store.pairs.get(campaign.pairs[0]).image_b.sha256}.png"


@pytest.mark.parametrize("name", ["pick-a-pic", "open-image-preferences", "chosen-rejected"])
def test_what_is_read_back_is_what_was_voted(campaign: Campaign, name: str) -> None:
    answers = [A, B, A, TIE, B, A, B, A]
    for place, answer in enumerate(answers):
        campaign.vote("anna", place, answer)
    folder, summary = campaign.export(name)
    source = open_source(str(folder))
    reader = detect_reader(source.columns, source.name)
    assert reader.name == name
    read = [found for row in source.open() for found in read_row(reader, row, "row", source.folder)]
    wanted = []
    for place, answer in enumerate(answers):
        if answer is TIE and name != "pick-a-pic":
            continue
        pair = campaign.store.pairs.get(campaign.pairs[place])
        a, b = (campaign.store.files.read_image(image.sha256) for image in (pair.image_a, pair.image_b))
        wins = {A: 1.0, B: 0.0, TIE: 0.5}[answer]
        if name != "pick-a-pic":
            a, b, wins = (a, b, 1.0) if answer is A else (b, a, 1.0)
        wanted.append(PreferencePair(pair.prompt, a, b, wins, 1, "row"))
    assert read == wanted
    assert summary.rows == len(wanted)


def test_datasets_shows_chosen_and_rejected_as_images_and_knows_the_splits(campaign: Campaign) -> None:
    for pair in range(NUM_PAIRS):
        campaign.vote("anna", pair, A)
    folder, _ = campaign.export("chosen-rejected", held_out_share=0.4)
    loaded = load_dataset(str(folder), cache_dir=str(folder.parent / "cache"))
    assert set(loaded) == {"train", "test"}
    assert not set(loaded["train"]["prompt"]) & set(loaded["test"]["prompt"])
    assert loaded["train"].num_rows + loaded["test"].num_rows == NUM_PAIRS
    assert loaded["train"][0]["chosen"].size == (40, 36)


def test_raw_votes_say_everything_and_their_images_lie_beside(campaign: Campaign) -> None:
    vote = campaign.vote("anna", 1, B, strength=Strength.SLIGHTLY, comment="=1+1")
    campaign.vote("ben", 1, Outcome.SKIP, question=Question.FIT)
    folder, _ = campaign.export("votes-jsonl", with_images=True, comments=True)
    first, second = rows_of(folder)
    assignment = campaign.assignment(campaign.person("anna"), 1)
    assert (first["vote"], first["pair"], first["outcome"]) == (vote, campaign.pairs[1], "b")
    assert first["choice"] == ("right" if assignment.a_on_left else "left")
    assert (first["a_on_left"], first["strength"], first["comment"]) == (assignment.a_on_left, "slightly", "=1+1")
    assert (first["elapsed_ms"], first["created_at"]) == (1500, "2026-01-01T12:01:00+00:00")
    assert (second["question"], second["choice"], second["purpose"]) == ("fit", "skip", "vote")
    image = campaign.store.pairs.get(campaign.pairs[1]).image_b
    made = first["image_b"]
    assert (made["seed"], made["sampler"], made["num_steps"], made["guidance"]) == (3, "ddim", 20, 3.0)
    assert (made["base_model"], made["adapter_version"], made["sha256"]) == ("pocket", 0, image.sha256)
    assert (folder / made["file"]).read_bytes() == campaign.store.files.read_image(image.sha256)


def test_what_people_wrote_stays_here_unless_asked_for(campaign: Campaign) -> None:
    campaign.vote("anna", 0, A, comment="call me at 555 1234")
    for name in ("votes-jsonl", "votes-csv"):
        folder, _ = campaign.export(name)
        assert not any("call me" in path.read_text() for path in folder.rglob("*") if path.is_file())


def test_no_cell_of_the_table_is_a_formula(campaign: Campaign) -> None:
    campaign.vote("anna", 0, A, comment="=HYPERLINK(1)")
    folder, _ = campaign.export("votes-csv", comments=True)
    with next((folder / "data").iterdir()).open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["comment"] == "'=HYPERLINK(1)"
    assert (row["outcome"], row["image_a_seed"], row["image_b_seed"]) == ("a", "0", "1")
    assert all(not cell or cell[0] not in "=+-@\t\r\n" for cell in row.values())


def test_gold_pairs_and_repeats_are_marked_in_raw_votes_and_left_out_of_preferences(campaign: Campaign) -> None:
    gold = campaign.pairs[7]
    campaign.store.gold.set(campaign.base, gold, A, by="test")
    for pair in range(NUM_PAIRS - 1):
        campaign.vote("anna", pair, A)
    golden = campaign.answer(campaign.offered("anna", ALL_GOLD), B)
    repeated = campaign.answer(campaign.offered("anna", ALL_REPEATS), B)
    purposes = {row["vote"]: row["purpose"] for row in campaign.rows("votes-jsonl")}
    assert (purposes[golden], purposes[repeated]) == (Purpose.GOLD, Purpose.REPEAT)
    assert len(purposes) == NUM_PAIRS + 1
    preferences = campaign.rows("pick-a-pic")
    assert {row["ranking_id"] for row in preferences} == set(purposes) - {golden, repeated}
    assert {row["label_0"] for row in preferences} == {1.0}


def test_duels_are_marked_in_raw_votes_with_their_versions_and_left_out_of_preferences(campaign: Campaign) -> None:
    publish_version(campaign.store, campaign.base)
    campaign.store.prompts.ensure(["a held-out cat"], held_out=True)
    images = [
        new_image("a held-out cat", 1, version=version, png=image_bytes(50 + version, file_format="PNG"), latents=None)
        for version in (1, 0)
    ]
    campaign.store.duels.add(campaign.base, NewDuel("a held-out cat", images[0], images[1]))
    voted = campaign.vote("anna", 0, A)
    judged = campaign.answer(campaign.offered("ben", AssignmentRules(duels_only=True)), B)
    rows = {row["vote"]: row for row in campaign.rows("votes-jsonl")}
    assert (rows[judged]["purpose"], rows[judged]["source"]) == (Purpose.DUEL, "duel")
    versions = [rows[judged][image]["adapter_version"] for image in ("image_a", "image_b")]
    assert (versions, rows[judged]["image_a"]["base_model"]) == ([1, 0], "pocket")
    for name in ("pick-a-pic", "open-image-preferences"):
        folder, summary = campaign.export(name)
        assert len(rows_of(folder)) == 1
        assert summary.left_out["judgements of duels between versions"] == 1
    assert set(rows) == {voted, judged}
