"""An attacker in a public studio: sessions, votes, reports and prompts as many as the limits let, beside honest people.

    python -m benchmarks.attackers [--seconds 120] [--networks 1 4] [--honest 3 5 20] [--pairs 200]

A real server over HTTP, public and open, free prompts on. The honest ones have a record from two days ago and go on
voting, ties: what counts here is whether they are taken. The attacker opens sessions from so many networks (addresses
of 127.0.0.0/8), 60 a minute each, and with every session votes for the left, reports pairs and proposes prompts.
Afterwards the store is looked at:
the attacker's share of the weight of a round, honest votes that count nothing, pairs that are out of the pool.
"""

import argparse
import asyncio
import random
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.hostile import assignments, bearer
from benchmarks.raw_http import Answer, Connection
from benchmarks.report import machine, print_table
from benchmarks.seeded_home import quiet_studio, seed
from dmpo_app.diffusion.base_models import detect_family, fingerprint
from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.domain.vote import Annotator, Choice
from dmpo_app.labeling.quality import VoteWeighing, VoteWeights
from dmpo_app.labeling.quality.quality_report import build_weighing
from dmpo_app.labeling.sign_in import Sealer, load_or_create_key
from dmpo_app.settings import LabelingSettings, Settings
from dmpo_app.settings.sections import PUBLIC_SHARE
from dmpo_app.store import Store, utc_now

RECORD = 25
"""Votes of each honest person two days before."""
PAUSE = 1.0
"""Seconds between two votes of an honest person."""
REPORTS, PROMPTS = 6, 5
"""... of each session of the attacker."""


def open_base(store: Store) -> BaseModelRef:
    source = Settings().base_model
    return store.models.register(source, detect_family(source), fingerprint(source))


def add_honest(home: Path, count: int) -> list[Annotator]:
    """Honest annotators with a record from two days ago: image a is the better one to all of them."""

    def two_days_ago() -> datetime:
        return utc_now() - timedelta(days=2)

    rng = random.Random(1)
    with Store.open(home, now=two_days_ago) as store:
        base = open_base(store)
        people = [store.annotators.ensure(f"honest {number}") for number in range(count)]
        for who in people:
            for _ in range(RECORD):
                [shown] = store.assignments.issue(base, who.id, 1, rng=rng, lifetime=timedelta(hours=1)).result()
                store.votes.record(shown.id, who.id, Choice.LEFT if shown.a_on_left else Choice.RIGHT, 1500)
    return people


@dataclass
class Tally:
    """Answers by what was asked for and status."""

    answers: Counter[tuple[str, int]] = field(default_factory=Counter)

    def add(self, kind: str, answer: Answer) -> Answer:
        self.answers[kind, answer.status] += 1
        return answer

    def taken(self, kind: str) -> int:
        return sum(count for (one, status), count in self.answers.items() if one == kind and status < 300)


async def post(connection: Connection, path: str, token: str | None, body: dict[str, Any]) -> Answer:
    headers = {} if token is None else bearer(token)
    return await connection.request("POST", f"/api/v1/{path}", body=body, headers=headers)


async def vote_honestly(url: str, token: str, until: float, tally: Tally) -> None:
    """Vote, each time on another pair. The side says nothing here: what counts is whether the vote is taken."""
    connection = Connection(url, local_address="127.0.0.5")
    while time.monotonic() < until:
        for shown in await assignments(connection, token, 1):
            body = {"assignment": shown["id"], "choice": "tie", "elapsed_ms": 1500}
            tally.add("votes", await post(connection, "votes", token, body))
        await asyncio.sleep(PAUSE)
    connection.close()


async def attack_from(url: str, network: int, until: float, tally: Tally) -> None:
    """Open a session, use it up, open the next one; when sessions are refused, wait for a second."""
    connection = Connection(url, local_address=f"127.0.{network}.1")
    while time.monotonic() < until:
        opened = tally.add("sessions", await post(connection, "session", None, {"handle": "mallory"}))
        if opened.status != 200:
            await asyncio.sleep(1)
            continue
        token = str(opened.json()["token"])
        shown = await assignments(connection, token)
        for number, one in enumerate(shown):
            body: dict[str, Any] = {"assignment": one["id"], "reason": "broken"}
            if number < REPORTS:
                tally.add("reports", await post(connection, "reports", token, body))
            else:
                body = {"assignment": one["id"], "choice": "left", "elapsed_ms": 700}
                tally.add("votes", await post(connection, "votes", token, body))
        for _ in range(PROMPTS):
            text = f"spam {random.getrandbits(64):016x} {random.getrandbits(64):016x}"
            tally.add("prompts", await post(connection, "prompts", token, {"text": text}))
    connection.close()


async def campaign(url: str, tokens: Sequence[str], networks: int, seconds: float) -> tuple[Tally, Tally]:
    """(answers to the attacker, to the honest ones) of so many seconds."""
    until, attacker, honest = time.monotonic() + seconds, Tally(), Tally()
    await asyncio.gather(
        *(attack_from(url, 10 + network, until, attacker) for network in range(networks)),
        *(vote_honestly(url, token, until, honest) for token in tokens),
    )
    return attacker, honest


def share_of(weights: VoteWeights, annotators: Sequence[int], honest: set[int]) -> float:
    """Share of the weight of these votes, by annotator, that is not of the honest."""
    masses = [(weights.weight_for(one), one in honest) for one in annotators]
    return sum(mass for mass, is_honest in masses if not is_honest) / sum(mass for mass, _ in masses)


def look_at(home: Path, settings: Settings, honest: set[int]) -> tuple[str, str, int, str, str]:
    """(share before, share now, honest votes that count nothing, pairs out of the pool, prompts of the attacker)."""
    with Store.open(home) as store:
        base = open_base(store)
        votes = store.votes.training_votes(base)
        annotators = [vote.annotator_id for vote in votes]
        weights = build_weighing(store, base, settings).weights(votes)
        before = VoteWeighing("off", PUBLIC_SHARE).weights(votes)
        counted = sum(one in honest and weights.weight_for(one) > 0 for one in annotators)
        given = sum(int(store.own_votes.counts(one).live) for one in honest)
        out = store.read("SELECT count(*) FROM pairs WHERE retired_at IS NOT NULL OR hidden_at IS NOT NULL")[0][0]
        spam = store.read("SELECT count(*) FROM prompts WHERE text LIKE 'spam%'")[0][0]
        training = store.read("SELECT count(*) FROM prompts WHERE NOT held_out")[0][0]
        shares = [f"{share_of(one, annotators, honest):.1%}" for one in (before, weights)]
        num_pairs = store.pairs.count(base)
    return shares[0], shares[1], given - counted, f"{out / num_pairs:.1%}", f"{spam / training:.1%}"


def run(folder: Path, people: int, networks: int, arguments: argparse.Namespace) -> list[object]:
    """One row of the table."""
    home = seed(folder / f"home-{people}-{networks}", arguments.pairs, size=32)
    honest = add_honest(home, people)
    sealer = Sealer(load_or_create_key(home))
    tokens = [sealer.seal_session(one.public_id) for one in honest]
    with quiet_studio(home, PUBLIC="true", LABELING__ACCESS="open", LABELING__FREE_PROMPTS="true") as studio:
        attacker, taken = asyncio.run(campaign(studio.url, tokens, networks, arguments.seconds))
    labeling = LabelingSettings(access="open", free_prompts=True)
    found = look_at(home, Settings(home=home, public=True, labeling=labeling), {one.id for one in honest})
    kinds = [attacker.taken(kind) for kind in ("sessions", "votes", "reports", "prompts")]
    refused = sum(count for (_, status), count in taken.answers.items() if status >= 300)
    return [people, networks, *kinds, *found, refused]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120.0, help="of the attack, each time")
    parser.add_argument("--networks", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--honest", type=int, nargs="+", default=[3, 5, 20])
    parser.add_argument("--pairs", type=int, default=200)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [run(Path(folder), people, one, arguments) for people in arguments.honest for one in arguments.networks]
    print(f"{machine()}\n")
    head = ("honest", "networks", "sessions", "votes", "reports", "prompts", "share of weight before", "now")
    more = ("honest votes silenced", "pairs out of the pool", "prompts of the attacker", "honest votes refused")
    print_table((*head, *more), rows)


if __name__ == "__main__":
    main()
