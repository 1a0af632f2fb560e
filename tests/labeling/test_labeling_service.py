import random
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from dmpo_app.domain.lineage import BaseModelRef, RoundStatus, Trigger
from dmpo_app.domain.vote import Choice, SubmittedVote
from dmpo_app.errors import BadInputError, ConflictError, ExpiredError, ForbiddenError, NotFoundError
from dmpo_app.labeling import LabelingService, Sealer, load_or_create_key
from dmpo_app.settings import Settings
from dmpo_app.store import Store
from tests.patience import PATIENCE
from tests.store.store_data import FINGERPRINT, HOUR, Clock, new_adapter, start_round
from tests.store.store_fixtures import reopened


def test_a_session_is_recognised_by_its_token_after_a_restart_too(service: LabelingService, store: Store) -> None:
    annotator, token = service.open_session("Anna")
    assert service.authenticate(token) == annotator
    assert annotator.handle == "Anna"
    store.close()
    with reopened(store) as again:
        base = again.models.register("pocket", "stable-diffusion", FINGERPRINT)
        restarted = LabelingService(
            again, base, Settings(), Sealer(load_or_create_key(store.home)), rng=random.Random(0)
        )
        assert restarted.authenticate(token) == annotator


def test_knowing_a_handle_gives_nobody_its_session(service: LabelingService) -> None:
    first, _ = service.open_session("anna")
    second, _ = service.open_session("anna")
    assert first.id != second.id
    with pytest.raises(ForbiddenError):
        service.authenticate(first.public_id)


def test_a_token_of_a_home_that_is_gone_is_refused(service: LabelingService, sealer: Sealer) -> None:
    with pytest.raises(ForbiddenError, match="home that is gone"):
        service.authenticate(sealer.seal_session("somebody else"))


@pytest.mark.parametrize(
    ("given", "kept"), [("  Anna  Maria\n", "Anna Maria"), ("e\u0301", "é"), ("李", "李"), ("<b>x</b>", "<b>x</b>")]
)
def test_a_handle_is_kept_as_it_would_be_written(service: LabelingService, given: str, kept: str) -> None:
    assert service.open_session(given)[0].handle == kept


@pytest.mark.parametrize("handle", ["", " \t ", "x" * 65, "a\x00b", "a\x1b[31m", "\ud800"])
def test_a_handle_that_is_no_name_is_refused(service: LabelingService, handle: str) -> None:
    with pytest.raises(BadInputError, match="handle"):
        service.open_session(handle)


@pytest.mark.parametrize("count", [0, -1, 17])
def test_only_so_many_assignments_can_be_held(service: LabelingService, count: int) -> None:
    with pytest.raises(BadInputError, match="between 1 and 16"):
        service.assignments(service.open_session("anna")[0], count).result()


def test_an_assignment_is_good_for_the_time_that_is_set(service: LabelingService, clock: Clock) -> None:
    anna, _ = service.open_session("anna")
    first, second = service.assignments(anna, 2).result()
    assert first.expires_at == second.expires_at == clock() + timedelta(minutes=60)


def test_votes_count_down_to_the_round_if_they_are_preferences(service: LabelingService) -> None:
    anna, _ = service.open_session("anna")
    choices = [Choice.LEFT, Choice.SKIP, Choice.TIE, Choice.BOTH_BAD, Choice.RIGHT, Choice.LEFT, Choice.LEFT]
    left = [
        service.votes_until_round(service.vote(anna, assignment.id, SubmittedVote(choice), 100).result())
        for assignment, choice in zip(service.assignments(anna, 7).result(), choices, strict=True)
    ]
    assert left == [3, 3, 2, 2, 1, 0, 0]


def test_a_vote_can_be_taken_back_and_given_anew(service: LabelingService, store: Store, base: BaseModelRef) -> None:
    anna, _ = service.open_session("anna")
    ben, _ = service.open_session("ben")
    (assignment,) = service.assignments(anna, 1).result()
    vote = service.vote(anna, assignment.id, SubmittedVote(Choice.LEFT), 100).result()
    with pytest.raises(ConflictError):
        service.vote(anna, assignment.id, SubmittedVote(Choice.RIGHT), 100).result()
    with pytest.raises(ForbiddenError):
        service.undo(ben, vote.vote_id)
    service.undo(anna, vote.vote_id)
    assert service.votes_until_round() == 4
    assert service.vote(anna, assignment.id, SubmittedVote(Choice.RIGHT), 100).result().is_new
    assert store.votes.count(base) == 1


def test_a_time_to_answer_that_cannot_be_is_refused(service: LabelingService) -> None:
    anna, _ = service.open_session("anna")
    (assignment,) = service.assignments(anna, 1).result()
    for elapsed_ms in (-1, 24 * 3600 * 1000 + 1):
        with pytest.raises(BadInputError, match="elapsed_ms"):
            service.vote(anna, assignment.id, SubmittedVote(Choice.LEFT), elapsed_ms).result()
    assert service.vote(anna, assignment.id, SubmittedVote(Choice.LEFT), 0).result().is_new


def test_an_image_is_shown_by_its_token_alone_and_not_for_ever(
    service: LabelingService, store: Store, clock: Clock
) -> None:
    anna, _ = service.open_session("anna")
    (assignment,) = service.assignments(anna, 1).result()
    token = service.image_url_token(assignment.left_image_id, assignment.expires_at)
    assert service.open_image(token) == store.images.get(assignment.left_image_id)
    with pytest.raises(NotFoundError):
        service.open_image(str(assignment.left_image_id))
    with pytest.raises(NotFoundError):
        service.open_image(service.image_url_token(999, assignment.expires_at))
    clock.advance(HOUR)
    with pytest.raises(ExpiredError):
        service.open_image(token)


def test_the_status_tells_where_things_stand(
    service: LabelingService, store: Store, base: BaseModelRef, problems: list[str | None]
) -> None:
    status = service.status()
    assert (status.votes, status.votes_until_round, status.pool, status.live_version) == (0, 4, 8, 0)
    assert (status.round, status.last_round, status.last_error) == (None, None, None)
    anna, _ = service.open_session("anna")
    votes = [
        service.vote(anna, one.id, SubmittedVote(Choice.LEFT), 10).result().vote_id
        for one in service.assignments(anna, 4).result()
    ]
    token = store.lease.acquire(base, "trainer", lease_seconds=30)
    assert token is not None
    running = start_round(store, base, token, votes)
    status = service.status()
    assert (status.votes, status.votes_until_round, status.pool, status.round) == (4, 0, 4, running)
    store.rounds.publish(running.id, new_adapter(votes), token=token)
    status = service.status()
    assert (status.votes_until_round, status.live_version, status.round) == (4, 1, None)
    assert status.last_round is not None
    assert (status.last_round.status, status.last_error) == (RoundStatus.PUBLISHED, None)
    problems[0] = "the model could not be loaded"
    assert service.status().last_error == "the model could not be loaded"


def test_the_status_says_why_a_round_failed_until_one_succeeds(
    service: LabelingService, store: Store, base: BaseModelRef
) -> None:
    anna, _ = service.open_session("anna")
    votes = [
        service.vote(anna, one.id, SubmittedVote(Choice.LEFT), 10).result().vote_id
        for one in service.assignments(anna, 4).result()
    ]
    token = store.lease.acquire(base, "trainer", lease_seconds=30)
    assert token is not None
    round_id = start_round(store, base, token, votes).id
    store.rounds.fail(round_id, "out of memory", token=token, final=False)
    assert service.status().last_error == "out of memory"
    store.rounds.fail(round_id, "out of memory, three times", token=token, final=True)
    assert service.status().last_error == "out of memory, three times"
    second = store.rounds.request(base, Trigger.REQUEST).id
    store.rounds.start(
        base, second, trigger=Trigger.REQUEST, seed=0, steps=1, config={}, votes=[], parent_version=0, token=token
    )
    store.rounds.publish(second, new_adapter([]), token=token)
    assert service.status().last_error is None


def test_labeling_and_the_store_import_neither_torch_nor_a_web_framework(tmp_path: Path) -> None:
    check = (
        "import sys, dmpo_app.labeling; print(sorted({'torch', 'gradio', 'fastapi', 'diffusers'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", check]
    process = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE)
    assert process.stdout.strip() == "[]"
