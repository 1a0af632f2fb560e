import dataclasses
import random
from datetime import timedelta

import pytest

from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.domain.vote import Annotator, Choice
from dmpo_app.errors import BadInputError, ConflictError, NotFoundError
from dmpo_app.store import Store
from tests.store.store_data import HOUR, Clock, issue, new_image, new_pair, publish_version, vote_once


def test_a_pair_comes_back_as_it_was_stored(store: Store, base: BaseModelRef) -> None:
    pair = new_pair(3)
    stored = store.pairs.add(base, pair)
    assert store.pairs.get(stored.id) == stored
    assert stored.prompt == pair.prompt
    assert stored.image_a.provenance == pair.image_a.provenance
    assert store.files.read_image(stored.image_b.sha256) == pair.image_b.png
    with pytest.raises(NotFoundError):
        store.pairs.get(stored.id + 1)


def test_many_pairs_are_stored_in_order_or_not_at_all(store: Store, base: BaseModelRef) -> None:
    store.prompts.ensure(["kept out"], held_out=True)
    with pytest.raises(ConflictError, match="held out"):
        store.pairs.add_many(base, [new_pair(0), new_pair(1, prompt="kept out")])
    assert store.pairs.count(base) == 0
    stored = store.pairs.add_many(base, [new_pair(number) for number in range(20)])
    assert [pair.image_a.provenance.seed for pair in stored] == [2 * number for number in range(20)]
    assert store.pairs.count(base) == 20


def test_a_pair_that_could_not_be_trained_on_is_refused(store: Store, base: BaseModelRef) -> None:
    pair = new_pair(0)
    for broken, reason in (
        (dataclasses.replace(pair, image_b=new_image(pair.prompt, 1, latents=None)), "without latents"),
        (dataclasses.replace(pair, image_b=new_image("another", 1)), "other prompts"),
        (dataclasses.replace(pair, image_b=new_image(pair.prompt, 1, version=1)), "two versions"),
    ):
        with pytest.raises(BadInputError, match=reason):
            store.pairs.add(base, broken)


def test_embeddings_are_stored_once_a_prompt(store: Store, base: BaseModelRef, anna: Annotator) -> None:
    store.pairs.add(base, new_pair(0, prompt="a fox"))
    again = dataclasses.replace(new_pair(1, prompt="a fox"), prompt_embeds=b"other bits of the same prompt")
    store.pairs.add(base, again)
    for _ in range(2):
        vote_once(store, base, anna)
    embeds = {vote.prompt_embeds for vote in store.votes.training_votes(base)}
    assert [store.files.read_embeds(name) for name in embeds] == [b"embeds a fox"]
    assert len(list((store.home / "embeds").rglob("*.safetensors"))) == 1


def test_unjudged_pairs_have_no_live_vote_and_are_not_out_for_one(
    store: Store, base: BaseModelRef, anna: Annotator, clock: Clock
) -> None:
    store.pairs.add_many(base, [new_pair(number) for number in range(5)])
    assert store.pairs.count_unjudged(base) == 5
    first, second = issue(store, base, anna, 2)
    assert store.pairs.count_unjudged(base) == 3
    vote = store.votes.record(first.id, anna.id, Choice.SKIP, 10)
    assert store.pairs.count_unjudged(base) == 3
    clock.advance(HOUR)
    assert store.pairs.count_unjudged(base) == 4, "the other one's time is up, though nobody has closed it yet"
    store.votes.undo(vote.vote_id, anna.id)
    assert store.pairs.count_unjudged(base) == 4, "it is open again"
    clock.advance(HOUR)
    assert store.pairs.count_unjudged(base) == 5
    assert second.pair_id != first.pair_id


def test_unjudged_pairs_are_counted_by_version_and_lineage(store: Store, base: BaseModelRef, anna: Annotator) -> None:
    publish_version(store, base)
    store.pairs.add_many(base, [new_pair(0), new_pair(1), new_pair(2, version=1)])
    other = store.models.register("other", "stable-diffusion", "e" * 64)
    store.pairs.add(other, new_pair(0))
    assert store.pairs.count_unjudged(base, adapter_version=0) == 2
    assert store.pairs.count_unjudged(base, adapter_version=1) == 1
    assert issue(store, base, anna)[0].prompt == new_pair(2).prompt, "of the newest version first"
    assert store.pairs.count_unjudged(base, adapter_version=1) == 0
    assert store.pairs.count_unjudged(base) == 2
    assert store.pairs.count_unjudged(other) == 1


def test_pairs_are_counted_by_prompt(store: Store, base: BaseModelRef) -> None:
    store.pairs.add_many(base, [new_pair(0, prompt="a"), new_pair(1, prompt="b"), new_pair(2, prompt="a")])
    assert store.pairs.prompt_counts(base) == {"a": 2, "b": 1}


def test_a_prompt_is_trained_on_or_held_out_for_good(store: Store, base: BaseModelRef) -> None:
    trained = store.prompts.ensure(["b", "a", "b"], held_out=False)
    assert [prompt.text for prompt in trained] == ["b", "a", "b"]
    assert trained[0] == trained[2]
    held_out = store.prompts.ensure(["c"], held_out=True)
    assert store.prompts.ensure(["a", "b"], held_out=False) == [trained[1], trained[0]]
    for texts, side in ((["c", "new"], False), (["a", "new"], True)):
        with pytest.raises(ConflictError, match="cannot be both"):
            store.prompts.ensure(texts, held_out=side)
    assert store.prompts.list() == [trained[0], trained[1], held_out[0]]
    assert store.prompts.list(held_out=True) == held_out
    assert [prompt.text for prompt in store.prompts.list(held_out=False)] == ["b", "a"]


def test_two_thousand_prompts_are_one_call(store: Store) -> None:
    texts = [f"prompt {number}" for number in range(2000)]
    assert [prompt.text for prompt in store.prompts.ensure(texts, held_out=False)] == texts


def test_a_base_model_is_known_by_its_fingerprint(store: Store, base: BaseModelRef) -> None:
    moved = store.models.register("/elsewhere/pocket", "stable-diffusion", base.fingerprint)
    assert (moved.id, moved.source) == (base.id, "/elsewhere/pocket")
    assert store.models.register("pocket", "stable-diffusion", "e" * 64).id != base.id


def test_nobody_is_shown_a_pair_of_another_lineage(store: Store, base: BaseModelRef, anna: Annotator) -> None:
    other = store.models.register("other", "stable-diffusion", "e" * 64)
    store.pairs.add(other, new_pair(0))
    assert issue(store, base, anna, 3) == []
    assert len(issue(store, other, anna, 3)) == 1
    assert store.assignments.issue(base, anna.id, 3, rng=random.Random(0), lifetime=timedelta(hours=1)).result() == []
