"""Invitations, agreements, identities and the log of acts."""

import hashlib
from datetime import timedelta
from functools import partial

import pytest
from sqlalchemy import text

from dmpo_app.domain.lineage import BaseModelRef, Trigger
from dmpo_app.domain.vote import Annotator, Choice
from dmpo_app.errors import BadInputError, NotFoundError, NotInvitedError
from dmpo_app.store import Store
from tests.store.store_data import Clock, new_pair, publish_version, scalar, vote_once
from tests.store.test_many_voters import in_threads

DAY = timedelta(days=1)


def test_an_invitation_never_opens_more_sessions_than_it_has_uses(store: Store) -> None:
    (invite,) = store.invites.create(["class"], max_uses=5, lifetime=DAY, by="cli")
    opened: list[Annotator] = []
    refused: list[str] = []

    def come(number: int) -> None:
        try:
            opened.append(store.invites.accept(invite.public_id, f"guest {number}"))
        except NotInvitedError as error:
            refused.append(str(error))

    in_threads([partial(come, number) for number in range(40)])
    assert (len({one.id for one in opened}), len(refused)) == (5, 35)
    assert all("as often as it may be" in message for message in refused)
    assert scalar(store, "SELECT count(*) FROM annotators") == 5, "who is refused leaves nothing behind"
    assert scalar(store, "SELECT count(*) FROM invite_uses") == store.invites.list()[0].num_uses == 5


def test_an_expired_or_made_up_invitation_opens_nothing(store: Store, clock: Clock) -> None:
    (invite,) = store.invites.create([""], max_uses=1, lifetime=DAY, by="cli")
    clock.advance(DAY)
    with pytest.raises(NotInvitedError, match="expired"):
        store.invites.accept(invite.public_id, "late")
    with pytest.raises(NotInvitedError, match="not one of this studio"):
        store.invites.accept("made up", "stranger")
    assert store.invites.list()[0].num_uses == 0


@pytest.mark.parametrize(("uses", "lifetime"), [(0, DAY), (10**7, DAY), (1, timedelta(0)), (1, 9999 * DAY)])
def test_invitations_out_of_range_are_refused(store: Store, uses: int, lifetime: timedelta) -> None:
    with pytest.raises(BadInputError, match="an invitation"):
        store.invites.create(["x"], max_uses=uses, lifetime=lifetime, by="cli")


def test_an_agreement_is_stored_once_and_belongs_to_its_text_and_version(
    store: Store, anna: Annotator, ben: Annotator, clock: Clock
) -> None:
    first = store.consents.agree(anna.id, "a" * 64, "1")
    clock.advance(DAY)
    assert store.consents.agree(anna.id, "a" * 64, "1") == first
    store.consents.agree(anna.id, "a" * 64, "2")
    assert [one.version for one in store.consents.agreements(anna.id)] == ["1", "2"]
    assert store.consents.find(anna.id, first.text_sha256, "3") is None
    assert store.consents.agreements(ben.id) == []


def test_the_texts_that_were_agreed_to_are_kept_word_for_word(
    store: Store, anna: Annotator, ben: Annotator, clock: Clock
) -> None:
    words = "Wir behalten Ihre Stimmen.\n\n– für immer"
    first = store.consents.agree(anna.id, words, "1")
    clock.advance(DAY)
    store.consents.agree(ben.id, words, "1")
    store.consents.agree(ben.id, "Other words.", "2")
    assert [(one.text, one.version, one.num_agreed) for one in store.consents.texts()] == [
        (words, "1", 2),
        ("Other words.", "2", 1),
    ]
    [kept] = store.consents.find_texts(first.text_sha256[:8].upper())
    assert (kept.text, kept.first_at) == (words, first.at)
    assert hashlib.sha256(words.encode()).hexdigest() == kept.text_sha256
    for unknown in ("", "0000", first.text_sha256[:3]):
        with pytest.raises(NotFoundError, match="dmpo consent list"):
            store.consents.find_texts(unknown)


def test_an_agreement_from_before_texts_were_kept_is_still_listed(store: Store, anna: Annotator) -> None:
    row = "INSERT INTO consents (annotator_id, text_sha256, version, created_at) VALUES (:who, :sha256, '1', 0)"
    store.database.write(lambda c: c.execute(text(row), {"who": anna.id, "sha256": "a" * 64}))
    assert [(one.text, one.num_agreed) for one in store.consents.texts()] == [(None, 1)]
    assert store.consents.agreements(anna.id)[0].text is None


def test_one_identity_is_one_annotator_however_often_they_come(store: Store) -> None:
    found: list[Annotator] = []
    in_threads([lambda: found.append(store.annotators.ensure_identified("f" * 64, "Ada"))] * 8)
    assert len(set(found)) == 1
    assert store.annotators.ensure_identified("e" * 64, "Ada").id != found[0].id
    assert store.annotators.get(found[0].public_id) == found[0]


def test_acts_of_administrators_are_on_record_and_what_changes_nothing_is_not(
    store: Store, base: BaseModelRef, anna: Annotator
) -> None:
    store.pairs.add_many(base, [new_pair(number) for number in range(2)])
    for _ in range(2):
        vote_once(store, base, anna, Choice.LEFT)
    publish_version(store, base)
    store.adapters.set_live(base, 0, "administrator")
    store.adapters.set_live(base, 0, "administrator")
    store.rounds.request(base, Trigger.REQUEST, by="cli")
    store.invites.create(["class", ""], max_uses=3, lifetime=DAY, by="cli")
    acts = store.audit.list()
    assert [(one.actor, one.act) for one in acts] == [
        ("cli", "create_invite"),
        ("cli", "create_invite"),
        ("cli", "train_now"),
        ("administrator", "make_live"),
    ]
    assert acts[-1].subject == "version 0"
    assert store.audit.list(before=acts[1].id, limit=1) == [acts[2]]


def test_a_round_that_votes_start_is_nobody_s_act(store: Store, base: BaseModelRef, anna: Annotator) -> None:
    store.pairs.add_many(base, [new_pair(number) for number in range(2)])
    for _ in range(2):
        vote_once(store, base, anna)
    store.rounds.request(base, Trigger.VOTES)
    assert store.audit.list() == []
