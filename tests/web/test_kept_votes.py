"""A person's input is refused while it could be lost, and acknowledged once it is as safe as was promised."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from dmpo_app.errors import BackupUnreachableError
from dmpo_app.labeling.service import LabelingService
from dmpo_app.labeling.sign_in import Sealer, load_or_create_key
from tests.exchange.readers.preference_files import pick_a_pic_row, write_pick_a_pic
from tests.web.api_studio import ADMIN, ApiStudio, client_of
from tests.web.test_imports_api import settled


class Keeper:
    """Safekeeping with two switches; `settled` counts how often it was waited for."""

    is_synchronous = True

    def __init__(self) -> None:
        self.refuses = self.never_settles = False
        self.settled = 0

    def check_writable(self) -> None:
        if self.refuses:
            raise BackupUnreachableError("the storage is out of reach")

    def wait_until_durable(self) -> None:
        if self.never_settles:
            raise BackupUnreachableError("the storage did not answer in time")
        self.settled += 1


@pytest.fixture
def keeper() -> Keeper:
    return Keeper()


@pytest.fixture
def kept(studio: ApiStudio, keeper: Keeper) -> ApiStudio:
    """The studio with its votes in the hands of `keeper`."""
    services = studio.services
    sealer = Sealer(load_or_create_key(services.store.home))
    labeling = LabelingService(
        services.store, services.base, services.settings, sealer, rng=random.Random(1), durability=keeper
    )
    return replace(studio, client=client_of(replace(services, labeling=labeling)))


def test_everything_a_person_records_is_refused_with_503_and_nothing_is_recorded(
    kept: ApiStudio, keeper: Keeper
) -> None:
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


def test_a_vote_whose_safekeeping_took_too_long_can_be_sent_again(kept: ApiStudio, keeper: Keeper) -> None:
    who = kept.session()
    [pair] = kept.assignments(who)
    keeper.never_settles = True
    assert kept.vote(who, pair["id"]).status_code == 503
    keeper.never_settles = False
    assert kept.vote(who, pair["id"]).status_code == 200
    assert kept.services.store.votes.count(kept.services.base) == 1
    assert keeper.settled == 1


def test_a_data_set_is_not_taken_in_while_it_could_be_lost(kept: ApiStudio, keeper: Keeper, tmp_path: Path) -> None:
    store, base = kept.services.store, kept.services.base
    before = store.pairs.count(base)
    content = write_pick_a_pic(tmp_path / "train.parquet", [pick_a_pic_row(n) for n in range(3)]).read_bytes()
    sent = kept.client.post("/api/v1/imports", params={"name": "a.parquet"}, content=content, headers=ADMIN)
    assert sent.status_code == 202
    assert settled(kept)["phase"] == "previewed"
    keeper.refuses = True
    kept.client.post("/api/v1/imports/take-in", headers=ADMIN)
    failed = settled(kept)
    assert (failed["phase"], failed["problem"]) == ("failed", "the storage is out of reach")
    assert store.pairs.count(base) == before
