"""What the pairs of a selection come to: which judgements of which become rows of a format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from dmpo_app.domain.vote import Outcome
from dmpo_app.exchange.exporting.export_rows import Format, Judgement, judgements_of
from dmpo_app.exchange.exporting.pages import JudgedPairs
from dmpo_app.exchange.exporting.selection import Rows, Selection
from dmpo_app.exchange.exporting.verdict import Verdict
from dmpo_app.store.voting.judgements import GivenVote, JudgedPair

Decision = Callable[[list[GivenVote]], Verdict | None]


class Judged:
    """The pairs of an export with the judgements that become rows, the same ones each time they are gone through.

    `left_out` counts the votes, by reason, that the last pass made no rows of.
    """

    def __init__(self, form: Format, pairs: JudgedPairs, selection: Selection, rows: Rows, decision: Decision) -> None:
        self.form = form
        self.pairs = pairs
        self._selection = selection
        self._rows: Rows = rows
        self._decision = decision
        self.left_out: Counter[str] = Counter()

    def __iter__(self) -> Iterator[tuple[JudgedPair, list[Judgement]]]:
        self.left_out = Counter()
        for pair in self.pairs:
            judgements = self._of(pair)
            if judgements:
                yield pair, judgements
        self.left_out += self.pairs.left_out

    def rows_of_prompt(self) -> Counter[str]:
        """How many rows there will be for each prompt."""
        count: Counter[str] = Counter()
        for pair, judgements in self:
            count[pair.prompt] += len(judgements)
        return count

    def _of(self, pair: JudgedPair) -> list[Judgement]:
        if pair.gold is not None and not self.form.is_raw:
            self.left_out["votes on gold pairs"] += len(pair.votes)
            return []
        verdict = self._decision(list(pair.votes))
        wanted = self._selection
        if not _is_enough(verdict, wanted):
            self.left_out["votes on pairs with too few of them or too little agreement"] += len(pair.votes)
            return []
        if self.form.is_raw:
            return [Judgement(Verdict(vote.outcome, 1.0, {}), [vote]) for vote in pair.votes]
        found = [] if verdict is None else list(judgements_of(pair, verdict, self._rows))
        held = [one for one in found if self.form.holds_ties or one.outcome is not Outcome.TIE]
        behind = sum(len(one.votes) for one in held)
        if behind < len(pair.votes):
            self.left_out["votes that are no preference here (ties, both bad, skips, repeats)"] += (
                len(pair.votes) - behind
            )
        return held


def _is_enough(verdict: Verdict | None, wanted: Selection) -> bool:
    if wanted.min_votes <= 1 and wanted.min_agreement <= 0:
        return True
    return verdict is not None and verdict.num_votes >= wanted.min_votes and verdict.agreement >= wanted.min_agreement
