"""Made-up contents for a store, a clock that stands still, and what must hold of every store at every moment."""

import atexit
import random
import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from dmpo_app.domain.lineage import (
    BaseModelRef,
    NewAdapter,
    NewImage,
    NewPair,
    PairSource,
    Provenance,
    RoundState,
    Trigger,
)
from dmpo_app.domain.vote import Annotator, Assignment, Choice, RecordedVote
from dmpo_app.store import Store
from dmpo_app.store.db.database import sqlite_url
from dmpo_app.store.db.sqlite import safe_driver

HOUR = timedelta(hours=1)
FINGERPRINT = "f" * 64


def make_home(folder: Path) -> Path:
    """An empty home at the present schema, to be copied: migrating one for every test would take most of the time."""
    Store.open(folder).close()
    return folder


def copy_empty_home(home: Path) -> Path:
    """An empty home at `home`, copied from one that this process keeps; what is there already stays as it is."""
    if not home.exists():
        shutil.copytree(_kept_empty_home(), home)
    return home


@cache
def _kept_empty_home() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="dmpo-empty-home-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return make_home(folder / "home")


class Clock:
    """A clock that moves when told to."""

    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.time

    def advance(self, by: timedelta) -> None:
        self.time += by


def new_image(
    prompt: str = "a fox", seed: int = 0, *, version: int = 0, png: bytes | None = None, latents: bytes | None = b""
) -> NewImage:
    """An image whose bytes follow from its seed unless given; few are different, for every file costs a disk flush."""
    provenance = Provenance(
        prompt=prompt,
        seed=seed,
        sampler="ddim",
        num_steps=20,
        guidance=3.0,
        adapter_version=version,
        strength=1.0,
        batch_size=2,
        num_threads=1,
        device="cpu",
        dtype="float32",
    )
    return NewImage(
        png=png if png is not None else f"png {seed % 8}".encode(),
        width=32,
        height=32,
        provenance=provenance,
        latents=f"latents {seed % 2}".encode() if latents == b"" else latents,
    )


def new_pair(number: int = 0, *, prompt: str | None = None, version: int = 0) -> NewPair:
    """A pair whose bytes follow from its number; four prompts take turns unless one is given."""
    text = prompt if prompt is not None else f"prompt {number % 4}"
    return NewPair(
        prompt=text,
        image_a=new_image(text, 2 * number, version=version),
        image_b=new_image(text, 2 * number + 1, version=version),
        prompt_embeds=f"embeds {text}".encode(),
        source=PairSource.POOL,
    )


def issue(store: Store, base: BaseModelRef, annotator: Annotator, count: int = 1, *, seed: int = 0) -> list[Assignment]:
    """Assignments good for an hour."""
    return store.assignments.issue(base, annotator.id, count, rng=random.Random(seed), lifetime=HOUR).result()


def vote_once(
    store: Store, base: BaseModelRef, annotator: Annotator, choice: Choice = Choice.LEFT
) -> tuple[Assignment, RecordedVote]:
    """Answer the next pair."""
    assignment = issue(store, base, annotator)[0]
    return assignment, store.votes.record(assignment.id, annotator.id, choice, 1500)


def start_round(store: Store, base: BaseModelRef, token: int, votes: list[int]) -> RoundState:
    """A running round over these votes."""
    return store.rounds.start(
        base,
        None,
        trigger=Trigger.VOTES,
        seed=7,
        steps=10,
        config={"rank": 8},
        votes=[(vote_id, False) for vote_id in votes],
        parent_version=0,
        token=token,
    )


def new_adapter(votes: list[int], *, folder_name: str = "00001-aaaaaaaa", parent: int = 0) -> NewAdapter:
    """An adapter as the trainer stages it."""
    return NewAdapter(
        parent=parent,
        folder_name=folder_name,
        sha256="a" * 64,
        proven=False,
        metrics={"accuracy": 0.75},
        vote_ids=votes,
    )


def publish_version(store: Store, base: BaseModelRef) -> int:
    """One more version, of no votes; returns its number."""
    token = store.lease.acquire(base, "publisher", lease_seconds=30)
    assert token is not None
    round_id = start_round(store, base, token, []).id
    version = store.adapters.next_version(base)
    published = store.rounds.publish(round_id, new_adapter([], folder_name=f"{version:05d}-aaaaaaaa"), token=token)
    store.lease.release(base, token)
    return published.version


def scalar(store: Store, query: str) -> object:
    """The first value of a query, read as the store reads."""
    return store.read(query)[0][0]


def broken_counts(store: Store) -> object:
    """The number of pairs whose counts differ from their votes and assignments: 0 at every moment."""
    return scalar(
        store,
        """
        SELECT count(*) FROM pairs p WHERE
            num_votes <> (SELECT count(*) FROM votes v WHERE v.pair_id = p.id AND undone_at IS NULL
                AND withdrawn_at IS NULL)
            OR num_taken - num_votes <>
                (SELECT count(*) FROM assignments a WHERE a.pair_id = p.id AND state IN ('open', 'reopened'))
            OR num_votes <> (SELECT count(*) FROM assignments a WHERE a.pair_id = p.id AND state = 'answered')
        """,
    )


def integrity_of(home: Path) -> str:
    """The result of SQLite's integrity check of a home's database; "ok" when all is well."""
    connection = safe_driver().connect(str(sqlite_url(home / "studio.db").database))
    try:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])
    finally:
        connection.close()
