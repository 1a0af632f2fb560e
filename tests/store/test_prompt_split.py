"""The split of prompts that the database itself enforces, and prompts as they are listed, tagged and retired."""

from datetime import timedelta
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, text
from sqlalchemy.exc import IntegrityError

from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.domain.prompt import NewPrompt, PromptQuery, PromptSource, fold
from dmpo_app.domain.vote import Annotator
from dmpo_app.errors import ConflictError, NotFoundError, RateLimitError
from dmpo_app.store import Store
from dmpo_app.store.db.database import MIGRATIONS
from dmpo_app.store.db.sqlite import safe_driver
from tests.store.store_data import Clock, new_pair, vote_once


def execute(store: Store, statement: str) -> None:
    store.database.write(lambda connection: connection.execute(text(statement)))


def new(words: str, *, held_out: bool = False, tags: tuple[str, ...] = ()) -> NewPrompt:
    return NewPrompt(words, fold(words), held_out, tags)


def add(store: Store, *prompts: NewPrompt) -> None:
    state = store.prompts.snapshot().state
    assert store.prompts.insert_imported(prompts, expected=state, by="test") is not None


def test_the_database_refuses_a_pair_of_a_held_out_prompt_or_of_its_twin(store: Store, base: BaseModelRef) -> None:
    store.pairs.add(base, new_pair(0, prompt="a fox"))
    add(store, new("kept out", held_out=True), new("Kept: out!"))
    for prompt in ("kept out", "Kept: out!"):
        move = f"UPDATE pairs SET prompt_id = (SELECT id FROM prompts WHERE text = '{prompt}')"
        with pytest.raises(IntegrityError, match="not moved to a held out prompt"):
            execute(store, move)
        with pytest.raises(IntegrityError, match="a held out prompt gets no pairs"):
            execute(
                store,
                "INSERT INTO pairs (base_id, prompt_id, image_a_id, image_b_id, source, adapter_version, num_votes, "
                f"num_taken, created_at) SELECT 1, id, 98, 99, 'pool', 0, 0, 0, 0 FROM prompts WHERE text = '{prompt}'",
            )
    assert store.prompts.for_pairs() == ["a fox"], "the twin of a held-out prompt is not drawn from either"


def test_the_database_refuses_to_hold_out_a_prompt_with_pairs_or_a_twin_of_it(store: Store, base: BaseModelRef) -> None:
    store.pairs.add(base, new_pair(0, prompt="a fox"))
    store.prompts.ensure(["an owl"], held_out=False)
    with pytest.raises(IntegrityError, match="a prompt with pairs is not held out"):
        execute(store, "UPDATE prompts SET held_out = true WHERE text = 'a fox'")
    with pytest.raises(IntegrityError, match="no twin with pairs"):
        add(store, new("A  FOX.", held_out=True))
    with pytest.raises(IntegrityError, match="never changed"):
        execute(store, "UPDATE prompts SET text = 'an owl at night' WHERE text = 'a fox'")
    execute(store, "UPDATE prompts SET held_out = true WHERE text = 'an owl'")
    assert [prompt.text for prompt in store.prompts.list(held_out=True)] == ["an owl"]


def test_a_list_cannot_bring_in_the_twin_of_a_prompt_of_the_other_side(store: Store, base: BaseModelRef) -> None:
    store.prompts.ensure(["a red fox"], held_out=True)
    with pytest.raises(ConflictError, match="'A red fox!' has a twin, 'a red fox', that is held out"):
        store.prompts.ensure(["A red fox!"], held_out=False)
    with pytest.raises(ConflictError, match="twin"):
        store.pairs.add(base, new_pair(0, prompt="a RED fox"))
    assert store.pairs.count(base) == 0


def test_lists_leave_a_prompt_that_was_moved_by_hand_where_it_is(store: Store, base: BaseModelRef) -> None:
    [fox] = store.prompts.ensure(["a fox"], held_out=False)
    assert store.prompts.move([fox.id], held_out=True, expected=store.prompts.snapshot().state, by="test") is not None
    [found] = store.prompts.ensure(["a fox"], held_out=False)
    assert found.held_out
    with pytest.raises(ConflictError, match="held out"):
        store.pairs.add(base, new_pair(0, prompt="a fox"))


def test_what_was_compared_with_an_older_state_is_not_written(store: Store) -> None:
    state = store.prompts.snapshot().state
    [fox] = store.prompts.ensure(["a fox"], held_out=False)
    assert store.prompts.insert_imported([new("an owl")], expected=state, by="test") is None
    before = store.prompts.snapshot().state
    store.prompts.move([fox.id], held_out=True, expected=before, by="test")
    assert store.prompts.insert_imported([new("an owl")], expected=before, by="test") is None
    assert [prompt.text for prompt in store.prompts.list()] == ["a fox"]


def test_an_annotator_adds_so_many_prompts_a_day_and_more_the_day_after(
    store: Store, anna: Annotator, ben: Annotator, clock: Clock
) -> None:
    def propose(words: str, who: Annotator) -> bool | None:
        state = store.prompts.snapshot(held_out=True).state
        return store.prompts.propose(new(words), annotator_id=who.id, per_day=2, expected=state)

    assert [propose(words, anna) for words in ("a fox", "A fox!", "an owl")] == [True, False, True]
    with pytest.raises(RateLimitError, match="2 prompts within a day"):
        propose("a bear", anna)
    assert propose("a bear", ben)
    clock.advance(timedelta(hours=25))
    assert propose("a wolf", anna)
    page = store.prompt_catalog.page(BaseModelRef(1, "", "", ""), PromptQuery())
    assert [prompt.source for prompt in page.prompts] == [PromptSource.ANNOTATOR] * 4


def test_prompts_are_listed_with_tags_pairs_and_votes_and_found_by_words(
    store: Store, base: BaseModelRef, anna: Annotator
) -> None:
    add(store, new("a red fox", tags=("animals", "red")), new("a red boat"), new("an owl", held_out=True))
    store.pairs.add_many(base, [new_pair(n, prompt="a red fox") for n in range(2)])
    vote_once(store, base, anna)
    page = store.prompt_catalog.page(base, PromptQuery(search=("red",), limit=1))
    assert (page.total, [prompt.text for prompt in page.prompts]) == (2, ["a red boat"])
    page = store.prompt_catalog.page(base, PromptQuery(search=("red",), before=page.prompts[0].id))
    [fox] = page.prompts
    assert (fox.text, fox.tags, fox.num_pairs, fox.num_votes) == ("a red fox", ("animals", "red"), 2, 1)
    for query, texts in (
        (PromptQuery(tag="red"), ["a red fox"]),
        (PromptQuery(held_out=True), ["an owl"]),
        (PromptQuery(retired=True), []),
        (PromptQuery(search=("ed",)), []),
    ):
        assert [prompt.text for prompt in store.prompt_catalog.page(base, query).prompts] == texts, query
    counts = store.prompt_catalog.counts()
    assert (counts.num_training, counts.num_held_out, counts.tags) == (2, 1, {"animals": 1, "red": 1})


def test_a_retired_prompt_gives_no_new_pairs_and_comes_back_as_it_was(store: Store, base: BaseModelRef) -> None:
    add(store, new("a fox", tags=("animals",)), new("a boat"))
    fox = store.prompt_catalog.ids_tagged("animals")
    assert store.prompts.for_pairs(["animals", "things"]) == ["a fox"]
    assert (store.prompt_catalog.retire(fox, by="test"), store.prompt_catalog.retire(fox, by="test")) == (1, 0)
    assert store.prompts.for_pairs() == ["a boat"]
    assert [prompt.text for prompt in store.prompt_catalog.suggest(["fo"], 5)] == []
    assert store.prompt_catalog.restore(fox, by="test") == 1
    store.prompt_catalog.untag(fox, ["animals"], by="test")
    assert (store.prompts.for_pairs(), store.prompts.for_pairs(["animals"])) == (["a fox", "a boat"], [])
    with pytest.raises(NotFoundError, match="no prompt 99"):
        store.prompt_catalog.retire([*fox, 99], by="test")


def test_a_home_of_before_is_brought_up_and_its_twins_get_no_more_pairs(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite+pysqlite:///{tmp_path / 'studio.db'}", module=safe_driver())
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as opened:
        config.attributes["connection"] = opened
        command.upgrade(config, "0002")
        for words, held_out in (("a fox", 0), ("A fox.", 1), ("an owl", 0)):
            insert = text("INSERT INTO prompts (text, held_out, created_at) VALUES (:words, :held_out, 0)")
            opened.execute(insert, {"words": words, "held_out": held_out})
    engine.dispose()
    with Store.open(tmp_path) as store:
        assert store.prompts.for_pairs() == ["an owl"]
        assert [prompt.folded for prompt in store.prompts.snapshot().prompts] == ["a fox", "a fox", "an owl"]
