"""Shares of the training weight that crowds of sessions get beside honest people: the caps' arithmetic, in seconds.

    python -m benchmarks.sybils             the same as `python -m benchmarks.crowds --sybils`

Every case is a crowd of honest people who vote by the images, mistaken in a tenth of their votes, and of sessions that
always say the opposite (the last ones only at times, which nothing prevents). The honest ones were there a week ago.
`before` is a cap of 5 % on every annotator alike; `now` is what a public studio does: records, the cap among the
established, a tenth for all newcomers. The slow sessions come a day before the round and vote enough for a record.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from benchmarks.report import print_table
from dmpo_app.domain.vote import Outcome
from dmpo_app.labeling.quality import VoteWeighing
from dmpo_app.labeling.quality.standing import find_established
from dmpo_app.settings import NewcomerSettings
from dmpo_app.settings.sections import PUBLIC_SHARE

MISTAKEN = 0.1
NOW = datetime(2026, 1, 8, tzinfo=UTC)
RULES = NewcomerSettings()


@dataclass(frozen=True, slots=True)
class Case:
    """People and sessions of an attacker, with the votes of each. `age`: since when the sessions vote, in hours."""

    honest: int
    honest_votes: int
    sessions: int
    session_votes: int
    age: float = 0.5
    pairs: int = 240
    turned: float = 1.0
    """Share of the sessions' votes that say the opposite."""

    @property
    def words(self) -> str:
        slow = f", {self.age:.0f} h ago" if self.age > 1 else ""
        slow += f", {self.turned:.0%} of them turned" if self.turned < 1 else ""
        return f"{self.sessions} x {self.session_votes}{slow}; {self.honest} honest x {self.honest_votes}"


CASES = (
    Case(20, 20, 1, 1000, pairs=1000),
    Case(5, 20, 1, 1000, pairs=1000),
    Case(20, 20, 30, 64),
    Case(3, 200, 30, 1),
    Case(3, 200, 3600, 1),
    Case(5, 100, 3600, 1),
    Case(20, 40, 3600, 5),
    Case(20, 40, 3600, 64),
    Case(3, 200, 30, 25, age=25),
    Case(5, 100, 300, 40, age=25),
    Case(20, 40, 300, 40, age=48),
)
NOT_PREVENTED = (Case(20, 40, 30, 40, age=25, turned=0.3), Case(20, 40, 300, 40, age=25, turned=0.3))
"""Sessions that vote honestly enough to be established: one patient person is then as many."""


@dataclass(frozen=True, slots=True)
class SybilVote:
    annotator_id: int
    pair_id: int
    outcome: Outcome
    a_on_left: bool
    elapsed_ms: int = 1500


def votes_of(case: Case, rng: np.random.Generator) -> list[SybilVote]:
    """The votes in the order they were given, the honest ones first; a pair's better image is drawn by lot."""
    a_is_better = rng.random(case.pairs) < 0.5
    votes = []
    for annotator in range(case.honest + case.sessions):
        is_honest = annotator < case.honest
        count = case.honest_votes if is_honest else case.session_votes
        for pair in rng.choice(case.pairs, count, replace=False):
            turned = rng.random() < (MISTAKEN if is_honest else case.turned)
            outcome = Outcome.A if bool(a_is_better[pair]) != turned else Outcome.B
            votes.append(SybilVote(annotator, int(pair), outcome, bool(rng.random() < 0.5)))
    return votes


def sybil_share(case: Case, votes: Sequence[SybilVote], weighing: VoteWeighing) -> tuple[float, int]:
    """(share of all weight that the sessions have, honest people whose votes count nothing)."""
    weights = weighing.weights(votes)
    masses = np.zeros(case.honest + case.sessions)
    for vote in votes:
        masses[vote.annotator_id] += weights.weight_for(vote.annotator_id)
    return float(masses[case.honest :].sum() / masses.sum()), int((masses[: case.honest] == 0).sum())


def established_in(case: Case, votes: Sequence[SybilVote]) -> frozenset[int]:
    week_ago, arrival = NOW - timedelta(days=7), NOW - timedelta(hours=case.age)
    first_votes = {vote.annotator_id: week_ago if vote.annotator_id < case.honest else arrival for vote in votes}
    return find_established(votes, vouched=(), first_votes=first_votes, rules=RULES, now=NOW)


def show() -> None:
    """Print the table of all cases."""
    rows = []
    for number, case in enumerate(CASES + NOT_PREVENTED):
        votes = votes_of(case, np.random.default_rng(number))
        established = established_in(case, votes)
        now = VoteWeighing("off", PUBLIC_SHARE, RULES.share, established)
        reliable = VoteWeighing("dawid_skene", PUBLIC_SHARE, RULES.share, established)
        before, _ = sybil_share(case, votes, VoteWeighing("off", PUBLIC_SHARE))
        share, silenced = sybil_share(case, votes, now)
        with_reliability, _ = sybil_share(case, votes, reliable)
        num_sessions = sum(one >= case.honest for one in established)
        num_honest = len(established) - num_sessions
        counts = f"{num_honest} of {case.honest}", f"{num_sessions} of {case.sessions}"
        shares = f"{before:.1%}", f"{share:.1%}", f"{with_reliability:.1%}"
        rows.append((case.words, *shares, silenced, *counts))
    head = ("sessions x votes; honest people", "before", "now", "now, weighed by reliability")
    print_table((*head, "honest silenced", "honest established", "sessions established"), rows)


if __name__ == "__main__":
    show()
