"""Scores by automatic scorers, and the pairs they are made for."""

import pytest
from sqlalchemy.exc import IntegrityError

from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.domain.vote import Annotator
from dmpo_app.errors import BadInputError
from dmpo_app.store import Store
from tests.store.store_data import new_pair, vote_once


def test_a_score_stays_what_it_was_first(store: Store, base: BaseModelRef) -> None:
    pair = store.pairs.add(base, new_pair())
    a, b = pair.image_a.id, pair.image_b.id
    store.scores.put("warmth/1/abc", {a: 0.25})
    store.scores.put("warmth/1/abc", {a: 0.75, b: -1.0})
    assert store.scores.get("warmth/1/abc", [a, b]) == {a: 0.25, b: -1.0}
    assert store.scores.get("warmth/2/abc", [a, b]) == {}


def test_thousands_of_images_can_be_asked_for_at_once(store: Store, base: BaseModelRef) -> None:
    pair = store.pairs.add(base, new_pair())
    store.scores.put("sharpness", {pair.image_b.id: 0.5})
    assert store.scores.get("sharpness", range(40_000)) == {pair.image_b.id: 0.5}


def test_a_score_that_is_no_number_or_of_no_image_is_refused(store: Store, base: BaseModelRef) -> None:
    pair = store.pairs.add(base, new_pair())
    with pytest.raises(BadInputError, match="sharpness gave image"):
        store.scores.put("sharpness", {pair.image_a.id: float("nan")})
    with pytest.raises(IntegrityError):
        store.scores.put("sharpness", {999: 1.0})


def test_pairs_for_training_name_their_files_and_the_newest_unjudged_come_first(
    store: Store, base: BaseModelRef, anna: Annotator
) -> None:
    pairs = store.pairs.add_many(base, [new_pair(number) for number in range(4)])
    vote_once(store, base, anna)
    unjudged = [pair for pair in pairs if pair.id != store.votes.training_votes(base)[0].pair_id]
    found = store.pairs.for_training(base, unjudged=2)
    assert [pair.id for pair in found] == [pair.id for pair in unjudged[-2:]]
    assert found[0].png_a == unjudged[-2].image_a.sha256
    assert found[0].latents_b == unjudged[-2].image_b.latents_sha256
    assert (found[0].image_a, found[0].prompt) == (unjudged[-2].image_a.id, unjudged[-2].prompt)
    assert [pair.id for pair in store.pairs.for_training(base, ids=[pairs[2].id, pairs[0].id])] == [
        pairs[0].id,
        pairs[2].id,
    ]
