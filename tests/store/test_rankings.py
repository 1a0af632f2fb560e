import random
from dataclasses import replace

import pytest

from dmpo_app.domain.lineage import BaseModelRef, NewPair
from dmpo_app.domain.vote import LETTERS, Annotator, Assignment, AssignmentRules, Choice, Outcome
from dmpo_app.errors import BadInputError, ConflictError
from dmpo_app.store import Store
from tests.store.store_data import HOUR, broken_counts, new_image, new_pair, scalar


def new_set(number: int = 0, size: int = 3) -> NewPair:
    pair = new_pair(number)
    return replace(pair, more=tuple(new_image(pair.prompt, 100 + 2 * number + i) for i in range(size - 2)))


def issue_sets(store: Store, base: BaseModelRef, annotator: Annotator, count: int = 1) -> list[Assignment]:
    sets = AssignmentRules(num_images=3)
    return store.assignments.issue(base, annotator.id, count, rng=random.Random(0), lifetime=HOUR, rules=sets).result()


def test_a_set_is_shown_in_an_order_drawn_for_it_with_each_of_its_images_once(
    store: Store, base: BaseModelRef, anna: Annotator
) -> None:
    sets = store.pairs.add_many(base, [new_set(number) for number in range(8)])
    store.pairs.add(base, new_pair(9))
    assert store.pairs.get(sets[0].id) == sets[0]
    shown = issue_sets(store, base, anna, 12)
    assert len(shown) == 8, "pairs are not shown among sets"
    images = {one.id: [one.image_a.id, one.image_b.id, *(image.id for image in one.more)] for one in sets}
    orders = set()
    for one in shown:
        places = [one.left_image_id, one.right_image_id, *one.more_image_ids]
        assert sorted(places) == sorted(images[one.pair_id])
        orders.add(tuple(images[one.pair_id].index(image) for image in places))
    assert len(orders) > 2
    assert store.pairs.count_unjudged(base) == 1
    assert store.pairs.count_unjudged(base, num_images=3) == 0


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_a_ranking_is_one_vote_that_keeps_the_whole_order(
    store: Store, base: BaseModelRef, anna: Annotator, order: tuple[int, ...]
) -> None:
    made = store.pairs.add(base, new_set())
    (shown,) = issue_sets(store, base, anna)
    taken = store.votes.record_ranking(shown.id, anna.id, order, 900, "hands")
    assert store.votes.record_ranking(shown.id, anna.id, order, 900, "hands") == replace(taken, is_new=False)
    with pytest.raises(ConflictError, match="with an order"):
        store.votes.record_ranking(shown.id, anna.id, order[::-1], 900, "hands")
    images = [made.image_a, made.image_b, *made.more]
    places = [shown.left_image_id, shown.right_image_id, *shown.more_image_ids]
    letters = {image.id: letter for image, letter in zip(images, LETTERS, strict=False)}
    (vote,) = store.votes.training_votes(base)
    assert vote.ranking == "".join(letters[places[place]] for place in order)
    assert vote.outcome is (Outcome.A if vote.ranking.index("a") < vote.ranking.index("b") else Outcome.B)
    assert vote.more_latents == (made.more[0].latents_sha256,)
    (own,) = store.own_votes.page(anna.id)
    assert (own.order, own.left_image_id, own.more_image_ids) == (order, places[0], tuple(places[2:]))
    (cast,) = store.vote_records.all(base)
    assert cast.outcome is vote.outcome, "the quality of votes sees one comparison, not three"
    assert store.votes.count(base) == 1
    assert broken_counts(store) == 0


def test_a_ranking_is_undone_and_given_anew_and_withdrawn_like_any_vote(
    store: Store, base: BaseModelRef, anna: Annotator
) -> None:
    store.pairs.add(base, new_set())
    (shown,) = issue_sets(store, base, anna)
    first = store.votes.record_ranking(shown.id, anna.id, (0, 1, 2), 900)
    store.votes.undo(first.vote_id, anna.id)
    (again,) = issue_sets(store, base, anna)
    assert replace(again, expires_at=shown.expires_at) == shown, "the same images at the same places"
    store.votes.record_ranking(shown.id, anna.id, (2, 1, 0), 900)
    assert store.own_votes.withdraw_all(anna.id) == 1
    assert store.votes.training_votes(base) == []
    assert scalar(store, "SELECT count(*) FROM votes WHERE ranking IS NOT NULL") == 2
    assert broken_counts(store) == 0


@pytest.mark.parametrize("order", [(0, 1), (0, 1, 1), (0, 1, 3), (0, 1, 2, 3), ()])
def test_an_order_that_does_not_name_every_place_once_is_refused(
    store: Store, base: BaseModelRef, anna: Annotator, order: tuple[int, ...]
) -> None:
    store.pairs.add(base, new_set())
    (shown,) = issue_sets(store, base, anna)
    with pytest.raises(BadInputError, match="names each of the places 0 to 2 once"):
        store.votes.record_ranking(shown.id, anna.id, order, 900)
    assert scalar(store, "SELECT count(*) FROM votes") == 0


def test_a_set_takes_no_side_but_can_be_skipped_and_a_pair_takes_no_order(
    store: Store, base: BaseModelRef, anna: Annotator
) -> None:
    store.pairs.add_many(base, [new_set(), new_pair(1)])
    (shown,) = issue_sets(store, base, anna)
    for choice in (Choice.LEFT, Choice.RIGHT, Choice.TIE):
        with pytest.raises(BadInputError, match="a set of 3 images"):
            store.votes.record(shown.id, anna.id, choice, 900)
    store.votes.record(shown.id, anna.id, Choice.SKIP, 900)
    (pair,) = store.assignments.issue(base, anna.id, 1, rng=random.Random(0), lifetime=HOUR).result()
    with pytest.raises(BadInputError, match="this is a pair"):
        store.votes.record_ranking(pair.id, anna.id, (0, 1), 900)


def test_a_repeat_of_a_set_is_arranged_the_other_way_round(store: Store, base: BaseModelRef, anna: Annotator) -> None:
    store.pairs.add(base, new_set())
    (shown,) = issue_sets(store, base, anna)
    store.votes.record_ranking(shown.id, anna.id, (0, 1, 2), 900)
    repeats = AssignmentRules(num_images=3, repeat_rate=1.0, repeat_after=0)
    (again,) = store.assignments.issue(base, anna.id, 1, rng=random.Random(0), lifetime=HOUR, rules=repeats).result()
    places = [shown.left_image_id, shown.right_image_id, *shown.more_image_ids]
    assert [again.left_image_id, again.right_image_id, *again.more_image_ids] == places[::-1]
    assert again.a_on_left is not shown.a_on_left
    store.votes.record_ranking(again.id, anna.id, (2, 1, 0), 900)
    assert len(store.votes.training_votes(base)) == 1, "a repeat is not trained on"
    assert len({vote.outcome for vote in store.vote_records.all(base)}) == 1
