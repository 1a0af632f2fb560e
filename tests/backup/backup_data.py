"""Homes with votes in them, and a storage that can be switched off, for tests of the backup."""

import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from dmpo_app.backup.backup_service import BackupUploader
from dmpo_app.backup.remotes.remote import Item, Remote
from dmpo_app.backup.startup import make_claim
from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.domain.vote import Annotator, Choice
from dmpo_app.errors import BackupUnreachableError
from dmpo_app.settings import BackupSettings
from dmpo_app.store import Store
from tests.store.store_data import FINGERPRINT, HOUR, new_pair

OFTEN = BackupSettings(url="unused", log_seconds=0.05, refuse_after_seconds=1, handover_seconds=5)


def utc_now() -> datetime:
    return datetime.now(UTC)


class Voters:
    """People who vote in a store; `given` are the ids of the votes that were acknowledged."""

    def __init__(self, store: Store, *, num_pairs: int = 12) -> None:
        self.store = store
        self.base: BaseModelRef = store.models.register("pocket", "stable-diffusion", FINGERPRINT)
        if store.pairs.count(self.base) == 0:
            store.pairs.add_many(self.base, [new_pair(number) for number in range(num_pairs)])
        self.given: list[int] = []
        self._rng = random.Random(0)

    def vote(self, count: int) -> None:
        """So many votes, each person as many as they are given."""
        while count > 0:
            person: Annotator = self.store.annotators.ensure("somebody")
            issued = self.store.assignments.issue(
                self.base, person.id, min(count, 12), rng=self._rng, lifetime=HOUR
            ).result()
            for assignment in issued:
                choice = self._rng.choice([Choice.LEFT, Choice.RIGHT, Choice.TIE])
                self.given.append(self.store.votes.record(assignment.id, person.id, choice, 900).vote_id)
            count -= len(issued)


def votes_in(home: Path) -> list[int]:
    """The ids of the votes a home holds, through its store."""
    with Store.open(home) as store:
        base = store.models.register("pocket", "stable-diffusion", FINGERPRINT)
        return [record.vote_id for record in store.vote_records.all(base)]


def shipper_of(
    home: Path,
    remote: Remote,
    settings: BackupSettings = OFTEN,
    now: Callable[[], datetime] = utc_now,
    most_deltas: int = 2000,
) -> BackupUploader:
    """The uploader of a home, under a claim of its own."""
    return BackupUploader(
        home, remote, make_claim(remote, home.name, now()), settings, now=now, most_deltas=most_deltas
    )


class Switch:
    """A storage that can be put out of reach: then every call raises BackupUnreachableError."""

    shortest_pause = 0.0

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self.url = remote.url
        self.off = False
        self.off_for_writing = False
        self.written: list[str] = []

    def names(self, prefix: str) -> list[str]:
        return self._there().names(prefix)

    def read(self, name: str) -> bytes:
        return self._there().read(name)

    def fetch(self, items: Sequence[tuple[str, Path]]) -> None:
        self._there().fetch(items)

    def put(self, items: Sequence[Item]) -> None:
        self._there(writing=True).put(items)
        self.written += [name for name, _ in items]

    def create(self, name: str, content: bytes) -> bool:
        return self._there(writing=True).create(name, content)

    def delete(self, names: Sequence[str]) -> None:
        self._there(writing=True).delete(names)

    def _there(self, *, writing: bool = False) -> Remote:
        if self.off or (writing and self.off_for_writing):
            raise BackupUnreachableError(f"{self.url} is switched off")
        return self._remote
