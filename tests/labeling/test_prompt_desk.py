"""Reading, judging and importing prompts."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from dmpo_app.domain.lineage import NewPair
from dmpo_app.domain.prompt import (
    PromptQuery,
    Refusal,
    StoredPrompt,
    clean_tag,
    fold,
    has_control_characters,
    jaccard_similarity,
    word_set,
)
from dmpo_app.errors import BadInputError, ForbiddenError, RateLimitError, SetupError
from dmpo_app.labeling.prompt_desk import PromptImportRules, PromptService, plan_import
from dmpo_app.labeling.prompt_files import format_prompts
from dmpo_app.labeling.quality.standing import Standings
from dmpo_app.labeling.text_checks import BlockList, NearDuplicateIndex
from dmpo_app.parsing.prompt_rows import FileRow, read_file, read_text
from dmpo_app.settings import Settings
from dmpo_app.settings.sections import LabelingSettings
from dmpo_app.store import Store
from tests.store.store_data import FINGERPRINT, new_pair

NOTHING_BLOCKED = BlockList([])


def rows(*texts: object) -> list[FileRow]:
    return [FileRow(number, text) for number, text in enumerate(texts, 1)]


def known(*texts: str, held_out: bool = False) -> list[StoredPrompt]:
    return [StoredPrompt(number, text, fold(text), held_out) for number, text in enumerate(texts, 1)]


@pytest.fixture
def desk(store: Store) -> PromptService:
    return desk_of(store)


def desk_of(store: Store, *, public: bool = False, **changes: object) -> PromptService:
    base = store.models.register("pocket", "stable-diffusion", FINGERPRINT)
    labeling = LabelingSettings.model_validate(changes)
    own = Settings(home=store.home, public=public, labeling=labeling)
    return PromptService(store, base, own, Standings(store, base, own))


def texts_of(store: Store, held_out: bool | None = None) -> list[str]:
    return [prompt.text for prompt in store.prompts.list(held_out)]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("A red fox!", "a  RED, fox", True),
        ("café Ｍüller", "cafe muller", True),
        ("a f\u200box", "a fox", True),
        ("赤い 狐", "赤い狐", True),
        ("पीली बिल्ली", "पीले बिल्ली", False),
        ("a red fox", "a red ox", False),
        ("!!!", "???", False),
    ],
)
def test_what_makes_no_difference_is_folded_away(one: str, other: str, same: bool) -> None:
    assert (fold(one) == fold(other)) is same
    assert fold(fold(one)) == fold(one)


def test_controls_and_turned_writing_are_found_and_other_scripts_are_not() -> None:
    assert [has_control_characters(text) for text in ("a\x00", "\x1b[2J", "\u202egnp", "\ud800")] == [True] * 4
    assert not any(map(has_control_characters, ("a\tb\r\nc", "👩‍🚀 moon", "पीली बिल्ली", "شجرة")))
    assert clean_tag("World Knowledge (Gary & al.)") == "world-knowledge-gary-al"


words = st.lists(
    st.sampled_from(["red", "blue", "fox", "owl", "boat", "snow", "night", "two", "on", "in", "the", "a"]),
    min_size=1,
    max_size=9,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(words, max_size=12), words, st.sampled_from([0.5, 0.7, 0.8, 1.0]))
def test_the_index_finds_what_comparing_with_each_finds(many: list[list[str]], one: list[str], least: float) -> None:
    texts = [" ".join(words) for words in many]
    index = NearDuplicateIndex(enumerate(texts), least)
    text = " ".join(one)
    near = [n for n, other in enumerate(texts) if jaccard_similarity(word_set(text), word_set(other)) >= least - 1e-9]
    assert list(index.find(text)) == near


def test_every_kind_of_file_gives_its_prompts(tmp_path: Path) -> None:
    files = {
        "own.txt": "\ufeff# a comment\r\na fox\r\n\r\nan owl\r\n",
        "parti.tsv": 'Prompt\tCategory\tChallenge\na fox\tAnimals\tBasic\n"an owl"\tWorld Knowledge\tBasic\n',
        "drawbench.csv": 'Prompts,Category\na fox,Colors\n"an owl, at\nnight",Text\n',
        "lines.jsonl": '{"caption": "a fox"}\n{nonsense\n"an owl"\n',
        "hpsv2.json": json.dumps(["a fox", "an owl"]),
        "objects.json": json.dumps([{"id": 1, "prompt": "a fox"}, {"id": 2, "prompt": None}]),
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    table = pyarrow.table({"caption": ["a fox", None], "jpg_0": [b"x", b"y"]})
    parquet.write_table(table, tmp_path / "pick.parquet")

    def read(name: str, column: str | None = None) -> list[object]:
        return [row.prompt for row in read_file(tmp_path / name, column=column)]

    assert [str(text).strip() for text in read("own.txt")] == ["a fox", "an owl"]
    assert [row.category for row in read_file(tmp_path / "parti.tsv")] == ["Animals", "World Knowledge"]
    assert read("drawbench.csv") == ["a fox", "an owl, at\nnight"]
    assert read("drawbench.csv", "category") == ["Colors", "Text"]
    assert read("lines.jsonl") == ["a fox", {}, "an owl"]
    assert read("hpsv2.json") == ["a fox", "an owl"]
    assert read("objects.json") == ["a fox", None]
    assert read("pick.parquet") == ["a fox", None]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"id,words\n1,a fox\n", "none of the columns prompt, prompts, caption, text"),
        ("a.txt", b"\xff\xfea\x00", "not UTF-8"),
        ("a.json", b'{"prompt": "a fox"}', "expected a list"),
        ("a.json", b"[" * 100_000, "not JSON"),
        ("a.csv", b"prompt\n" + b"x" * 200_000, "not a table"),
        ("a.parquet", b"PAR1", "cannot be read as parquet"),
        ("a.png", b"", "of no known kind"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_in_words(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInputError, match=words):
        list(read_file(tmp_path / name))


def test_a_file_that_is_not_there_is_a_setup_problem(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"gone\.txt"):
        list(read_file(tmp_path / "gone.txt"))
    with pytest.raises(SetupError, match="BLOCKED_WORDS"):
        BlockList.read(tmp_path / "gone.txt")


def test_every_refused_row_has_its_reason() -> None:
    blocked = BlockList(["Ärger", "bad word"])
    texts = ["a red fox in snow", "", "   ", 7, None, "x" * 1001, "a\x00b", "ÄRGER im Wald", "a bad  word", "badword",
             "A red fox, in snow!", "a blue fox in snow at night", "a green owl"]  # fmt: skip
    plan = plan_import(
        rows(*texts),
        known("a blue fox in the snow at night", "an owl green", held_out=True),
        PromptImportRules(),
        blocked,
    )
    assert [prompt.text for prompt in plan.new_prompts] == ["a red fox in snow", "badword"]
    assert [(row.row, row.reason) for row in plan.refusals] == [
        (2, Refusal.EMPTY), (3, Refusal.EMPTY), (4, Refusal.NOT_TEXT), (5, Refusal.EMPTY), (6, Refusal.TOO_LONG),
        (7, Refusal.CONTROL_CHARACTERS), (8, Refusal.BLOCKED), (9, Refusal.BLOCKED), (11, Refusal.DUPLICATE),
        (12, Refusal.NEAR_HELD_OUT), (13, Refusal.NEAR_HELD_OUT),
    ]  # fmt: skip
    assert plan.refusals[-2].similar_prompt == "a blue fox in the snow at night"


def test_a_share_is_held_out_by_groups_of_near_duplicates_whatever_their_order() -> None:
    texts = [
        f"{colour} {thing} number {n}" for n in range(40) for colour in ("red", "blue") for thing in ("fox", "owl")
    ]
    texts += [f"{text}!" for text in texts] + [f"the {text} number" for text in texts]
    rules = PromptImportRules(held_out_share=0.3)
    plan = plan_import(rows(*texts), [], rules, NOTHING_BLOCKED)
    held_out = {prompt.folded for prompt in plan.new_prompts if prompt.held_out}
    assert len(plan.new_prompts) == 320
    assert 0.2 < len(held_out) / len(plan.new_prompts) < 0.4
    assert all((f"the {folded} number" in held_out) == (folded in held_out) for folded in map(fold, texts[:160]))
    again = plan_import(rows(*texts[::-1]), [], rules, NOTHING_BLOCKED)
    assert {prompt.folded for prompt in again.new_prompts if prompt.held_out} == held_out


def test_with_a_share_near_duplicates_join_the_side_they_are_near_to() -> None:
    held_out = known("one two three four five", held_out=True)
    training = [replace(prompt, id=9) for prompt in known("six seven eight nine ten")]
    texts = ["one two three four five more", "six seven eight nine ten more"]
    for share in (0.01, 0.99):
        plan = plan_import(rows(*texts), held_out + training, PromptImportRules(held_out_share=share), NOTHING_BLOCKED)
        assert [(prompt.text, prompt.held_out) for prompt in plan.new_prompts] == [(texts[0], True), (texts[1], False)]
    # A chain that reaches both sides is trained on, but for what is near the held-out one.
    chain = known("a1 a2 a3 a4", held_out=True) + [replace(prompt, id=9) for prompt in known("a1 a2 a3 a4 a5 a6")]
    plan = plan_import(
        rows("a1 a2 a3 a4 a5", "a1 a2 a3 a4 a5 a6 a7"), chain, PromptImportRules(held_out_share=0.99), NOTHING_BLOCKED
    )
    assert [(prompt.text, prompt.held_out) for prompt in plan.new_prompts] == [("a1 a2 a3 a4 a5 a6 a7", False)]
    assert [row.reason for row in plan.refusals] == [Refusal.NEAR_HELD_OUT]


def test_importing_again_changes_nothing_but_the_tags(store: Store, desk: PromptService) -> None:
    texts = rows(*(f"prompt number {n} of many" for n in range(600)))
    first = desk.import_prompts(texts, desk.rules(held_out_share=0.1, tags=["Set One"]), by="test")
    before = store.prompts.snapshot()
    again = desk.import_prompts(texts, desk.rules(held_out_share=0.5, tags=["two"]), by="test")
    assert (len(first.new_prompts), len(again.new_prompts), len(again.stored_prompts)) == (600, 0, 600)
    assert store.prompts.snapshot() == before
    assert store.prompt_catalog.counts().tags == {"set-one": 600, "two": 600}
    assert first.num_held_out == len(texts_of(store, held_out=True))


def test_held_out_prompts_too_near_to_training_ones_are_not_taken(store: Store, desk: PromptService) -> None:
    store.prompts.ensure(["a red fox in the snow"], held_out=False)
    plan = desk.import_prompts(rows("red fox in snow", "an owl"), desk.rules(held_out_share=1), by="test")
    assert [row.reason for row in plan.refusals] == [Refusal.NEAR_TRAINING]
    assert texts_of(store, held_out=True) == ["an owl"]


def test_prompts_change_sides_unless_they_were_trained_on_or_near_what_stays(store: Store, desk: PromptService) -> None:
    base = store.models.register("pocket", "stable-diffusion", FINGERPRINT)
    pair: NewPair = new_pair(0, prompt="a big red fox on snow tonight")
    store.pairs.add(base, pair)
    texts = ["a red fox on snow tonight", "one two three four five", "one two three four five six", "an owl"]
    near, one, two, owl = (prompt.id for prompt in store.prompts.ensure(texts, held_out=False))
    fox = store.prompts.list()[0].id
    refused = desk.move([fox, near, one, owl], held_out=True, by="test")
    assert [(row.row, row.reason) for row in refused] == [
        (fox, Refusal.HAS_PAIRS), (near, Refusal.NEAR_TRAINING), (one, Refusal.NEAR_TRAINING)
    ]  # fmt: skip
    assert desk.move([one, two], held_out=True, by="test") == []
    assert texts_of(store, held_out=True) == [*texts[1:3], "an owl"]
    assert [row.row for row in desk.move([two, owl], held_out=False, by="test")] == [two]
    assert desk.find_across_split() == []
    with pytest.raises(BadInputError, match="no prompt 99"):
        desk.move([99], held_out=True, by="test")


def test_annotators_add_prompts_only_where_the_campaign_allows_it(store: Store, tmp_path: Path) -> None:
    anna = store.annotators.ensure("anna")
    with pytest.raises(ForbiddenError, match="takes no others"):
        desk_of(store).propose(anna, "a fox")
    (tmp_path / "blocked.txt").write_text("# not here\nwolf\n")
    desk = desk_of(store, free_prompts=True, free_prompt_length=30, blocked_words=tmp_path / "blocked.txt")
    store.prompts.ensure(["a white owl at night"], held_out=True)
    for text, words in (
        (" ", "Write a prompt"),
        ("x" * 31, "at most 30 characters here, not 31"),
        ("a WÓLF", "does not allow"),
        ("a\x07b", "cannot be seen"),
        ("the white owl, at night", "judged by"),
    ):
        with pytest.raises(BadInputError, match=words):
            desk.propose(anna, text)
    assert desk.propose(anna, "  a red\n fox ") == ("a red fox", True)
    assert desk.propose(anna, "A red fox") == ("A red fox", False)
    assert store.prompts.for_pairs() == ["a red fox"]


def test_newcomers_of_a_public_studio_add_a_share_of_the_prompts_together(store: Store) -> None:
    signed_in = store.annotators.ensure_identified("a" * 64, "ada")
    store.prompts.ensure([f"a boat number {number}" for number in range(18)], held_out=False)
    public = desk_of(store, public=True, free_prompts=True)
    added = [public.propose(store.annotators.ensure("newcomer"), f"a tree number {number}") for number in range(2)]
    assert [is_new for _, is_new in added] == [True, True]
    with pytest.raises(RateLimitError, match="as many prompts as they may"):
        public.propose(store.annotators.ensure("another"), "a lighthouse")
    assert public.propose(signed_in, "a lighthouse")[1]
    own = desk_of(store, free_prompts=True)
    assert all(own.propose(store.annotators.ensure("anna"), f"a hill number {number}")[1] for number in range(5))


def test_what_is_exported_can_be_imported_elsewhere(store: Store, desk: PromptService) -> None:
    desk.import_prompts(rows('a "red" fox, in snow', "=1+1 owls"), desk.rules(tags=["x"]), by="test")
    page = desk.page(search="", query=PromptQuery())
    for file_format in ("txt", "csv", "jsonl"):
        again = read_text(format_prompts(page.prompts, file_format), file_format)
        assert [str(row.prompt).strip() for row in again] == ["=1+1 owls", 'a "red" fox, in snow']
    with pytest.raises(BadInputError, match="txt, csv, jsonl"):
        format_prompts(page.prompts, "pdf")


def test_suggestions_match_beginnings_of_words_and_mind_no_symbols(store: Store, desk: PromptService) -> None:
    store.prompts.ensure(["a red fox in the snow", "a red fox"], held_out=False)
    store.prompts.ensure(["a redder sunset"], held_out=True)
    assert [found.text for found in desk.suggest("RED f", 8)] == ["a red fox", "a red fox in the snow"]
    assert [found.text for found in desk.suggest("ed", 8)] == []
    for like in ("", "%", "_", "\x00", "'; --"):
        assert [found.held_out for found in desk.suggest(like, 2)] == [True, False], like


@pytest.mark.parametrize("mark", ["\ufe0f", "\U000e0100", "\u3164", "\u20d2", "\u180b", "\u1160", "\u17b4", "\u200b"])
def test_marks_that_cannot_be_seen_change_no_word(mark: str) -> None:
    assert fold(f"two ca{mark}ts") == "two cats"
    assert BlockList(["nude"]).blocks(fold(f"nu{mark}de"))
    assert not any(character.isalnum() for character in fold(mark)), "alone it is no prompt"
