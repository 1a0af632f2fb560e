"""Taking part in a campaign: invitations, agreement, words that are clean."""

import random
from pathlib import Path

import pytest

from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.domain.vote import Choice, Question, Strength, SubmittedVote
from dmpo_app.errors import (
    BadInputError,
    ConflictError,
    ConsentRequiredError,
    NotFoundError,
    NotInvitedError,
    SetupError,
)
from dmpo_app.labeling import LabelingService, Sealer
from dmpo_app.labeling.service import read_consent
from dmpo_app.labeling.text_checks import MAX_COMMENT
from dmpo_app.settings import LabelingSettings, Settings
from dmpo_app.store import Store
from tests.store.store_data import HOUR, Clock


def service_with(store: Store, base: BaseModelRef, sealer: Sealer, clock: Clock, **labeling: object) -> LabelingService:
    settings = Settings(min_votes=4, home=store.home, labeling=LabelingSettings.model_validate(labeling))
    return LabelingService(store, base, settings, sealer, rng=random.Random(0), now=clock)


def test_by_invitation_only_a_link_opens_a_session(
    store: Store, base: BaseModelRef, sealer: Sealer, clock: Clock
) -> None:
    service = service_with(store, base, sealer, clock, access="invite")
    (invite,) = store.invites.create(["class"], max_uses=1, lifetime=HOUR, by="cli")
    link = sealer.seal_invite(invite.public_id)
    for wrong in (None, "", "nonsense", link[:-3], sealer.seal_session(invite.public_id), invite.public_id):
        with pytest.raises(NotInvitedError):
            service.open_session("anna", wrong)
    anna, token = service.open_session("anna", link)
    assert service.authenticate(token) == anna
    with pytest.raises(NotInvitedError, match="as often"):
        service.open_session("ben", link)


def test_with_a_text_to_agree_to_nothing_is_shown_or_taken_before(
    store: Store, base: BaseModelRef, sealer: Sealer, clock: Clock
) -> None:
    anna, _ = service_with(store, base, sealer, clock).open_session("anna")
    shown = service_with(store, base, sealer, clock).assignments(anna, 1).result()[0]
    service = service_with(store, base, sealer, clock, consent="We keep your votes.")
    with pytest.raises(ConsentRequiredError):
        service.assignments(anna, 1).result()
    with pytest.raises(ConsentRequiredError):
        service.vote(anna, shown.id, SubmittedVote(Choice.LEFT), 10).result()
    text = service.consent.text
    assert text is not None
    with pytest.raises(ConflictError, match="changed"):
        service.consent.agree(anna, "0" * 64)
    service.consent.agree(anna, text.sha256)
    assert service.vote(anna, shown.id, SubmittedVote(Choice.LEFT), 10).result().is_new
    assert service.assignments(anna, 1).result()


def test_a_new_text_or_version_is_agreed_to_anew(
    store: Store, base: BaseModelRef, sealer: Sealer, clock: Clock
) -> None:
    first = service_with(store, base, sealer, clock, consent="We keep your votes.")
    anna, _ = first.open_session("anna")
    assert first.consent.text is not None
    first.consent.agree(anna, first.consent.text.sha256)
    first.consent.require(anna)
    for changed in ({"consent": "We publish your votes."}, {"consent": "We keep your votes.", "consent_version": "2"}):
        with pytest.raises(ConsentRequiredError):
            service_with(store, base, sealer, clock, **changed).consent.require(anna)
    with pytest.raises(NotFoundError):
        service_with(store, base, sealer, clock).consent.agree(anna, "0" * 64)


def test_the_text_to_agree_to_may_lie_in_a_file_that_must_be_there(tmp_path: Path) -> None:
    path = tmp_path / "consent.txt"
    with pytest.raises(SetupError, match=r"consent\.txt"):
        read_consent(LabelingSettings(consent=str(path)))
    path.write_text(" Wir speichern, was du wählst.\n", encoding="utf-8")
    read = read_consent(LabelingSettings(consent=str(path)))
    assert read is not None
    assert read.text == "Wir speichern, was du wählst."
    path.write_text("  \n")
    with pytest.raises(SetupError, match="0 characters"):
        read_consent(LabelingSettings(consent=str(path)))


def test_somebody_who_signs_in_elsewhere_is_the_same_annotator_and_only_a_hash_is_stored(
    store: Store, base: BaseModelRef, sealer: Sealer, clock: Clock
) -> None:
    service = service_with(store, base, sealer, clock)
    first, token = service.open_session_as("huggingface", "ada-lovelace-1815", "Ada")
    assert service.open_session_as("huggingface", "ada-lovelace-1815", "A. L.")[0] == first
    assert service.authenticate(token) == first
    for provider, subject in (("oidc", "ada-lovelace-1815"), ("huggingface", "ada-lovelace-1816")):
        assert service.open_session_as(provider, subject, "Ada")[0].id != first.id
    assert sealer.identity("ab", "c") != sealer.identity("a", "bc")
    store.close()
    contents = b"".join(path.read_bytes() for path in sorted(store.home.glob("studio.db*")))
    assert b"lovelace" not in contents


@pytest.mark.parametrize("choice", [Choice.TIE, Choice.BOTH_BAD, Choice.SKIP])
def test_a_strength_goes_with_a_side(service: LabelingService, choice: Choice) -> None:
    anna, _ = service.open_session("anna")
    shown = service.assignments(anna, 1).result()[0]
    with pytest.raises(BadInputError, match="left or right"):
        service.vote(anna, shown.id, SubmittedVote(choice, Strength.CLEARLY), 10)


def test_a_comment_is_plain_text_of_bounded_length(service: LabelingService, store: Store) -> None:
    anna, _ = service.open_session("anna")
    shown = service.assignments(anna, 3).result()
    for wrong in ("x" * (MAX_COMMENT + 1), "a\x00b", "\ud800"):
        with pytest.raises(BadInputError, match="comment"):
            service.vote(anna, shown[0].id, SubmittedVote(Choice.LEFT, comment=wrong), 10).result()
    for one, given in zip(shown, (" e\u0301\r\nb ", "  \n", "x" * MAX_COMMENT), strict=True):
        service.vote(anna, one.id, SubmittedVote(Choice.LEFT, comment=given), 10).result()
    assert [vote.comment for vote in store.own_votes.page(anna.id)] == ["x" * MAX_COMMENT, None, "é\nb"]


def test_the_votes_on_the_trained_question_start_rounds(
    store: Store, base: BaseModelRef, sealer: Sealer, clock: Clock
) -> None:
    service = service_with(
        store, base, sealer, clock, questions=("overall", "appeal"), training_question=Question.APPEAL
    )
    anna, _ = service.open_session("anna")
    left = [
        service.votes_until_round(service.vote(anna, one.id, SubmittedVote(Choice.LEFT), 10).result())
        for one in service.assignments(anna, 4).result()
    ]
    assert left == [4, 3, 3, 2]


def test_settings_that_would_never_train_are_refused() -> None:
    with pytest.raises(ValueError, match="wait forever"):
        LabelingSettings(questions=(Question.FIT,))
    with pytest.raises(ValueError, match="asked once"):
        LabelingSettings(questions=(Question.OVERALL, Question.OVERALL))
