"""What a person records is refused while it could be lost, and acknowledged once it is as safe as was promised."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from dmpo_app.errors import BackupUnreachable
from dmpo_app.labeling.service import LabelingService
from dmpo_app.labeling.tokens import Sealer, load_or_create_key
from tests.web.api_studio import Studio, client_of


class Keeper:
    """Safekeeping with two switches; `settled` counts how often it was waited for."""

    waits = True

    def __init__(self) -> None:
        self.refuses = self.never_settles = False
        self.settled = 0

    def admit(self) -> None:
        if self.refuses:
            raise BackupUnreachable("the storage is out of reach")

    def settle(self) -> None:
        if self.never_settles:
            raise BackupUnreachable("the storage did not answer in time")
        self.settled += 1


@pytest.fixture
def keeper() -> Keeper:
    return Keeper()


@pytest.fixture
def kept(studio: Studio, keeper: Keeper) -> Studio:
    """The studio with its votes in the hands of `keeper`."""
    services = studio.services
    sealer = Sealer(load_or_create_key(services.store.home))
    labeling = LabelingService(
        services.store, services.base, services.settings, sealer, rng=random.Random(1), safekeeping=keeper
    )
    return replace(studio, client=client_of(replace(services, labeling=labeling)))


def test_everything_a_person_records_is_refused_with_503_and_nothing_is_recorded(kept: Studio, keeper: Keeper) -> None:
    who = kept.session()
    first, second = kept.assignments(who, 2)
    vote = kept.vote(who, first["id"]).json()["vote"]
    keeper.refuses = True
    report = {"assignment": second["id"], "reason": "other"}
    answers = {
        "vote": kept.vote(who, second["id"]),
        "undo": kept.client.delete(f"/api/v1/votes/{vote}", headers=who),
        "report": kept.client.post("/api/v1/reports", json=report, headers=who),
        "withdraw": kept.client.post(f"/api/v1/votes/{vote}/withdraw", headers=who),
        "withdraw all": kept.client.post("/api/v1/votes/withdraw", headers=who),
        "session": kept.client.post("/api/v1/session", json={"handle": "Ben"}),
    }
    for what, answer in answers.items():
        assert (answer.status_code, answer.json().get("code")) == (503, "backup_unreachable"), (what, answer.text)
        assert int(answer.headers["Retry-After"]) >= 1
    assert kept.services.store.votes.count(kept.services.base) == 1
    keeper.refuses = False
    assert kept.vote(who, second["id"]).status_code == 201


def test_a_vote_whose_safekeeping_took_too_long_can_be_sent_again(kept: Studio, keeper: Keeper) -> None:
    who = kept.session()
    [pair] = kept.assignments(who)
    keeper.never_settles = True
    assert kept.vote(who, pair["id"]).status_code == 503
    keeper.never_settles = False
    assert kept.vote(who, pair["id"]).status_code == 200
    assert kept.services.store.votes.count(kept.services.base) == 1
    assert keeper.settled == 1
