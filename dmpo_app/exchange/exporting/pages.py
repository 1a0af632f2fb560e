"""The judged pairs that a selection lets through, read page by page, with counts of what it does not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.exchange.exporting.selection import Selection
from dmpo_app.store import Store
from dmpo_app.store.voting.judgements import GivenVote, JudgedPair

PAGE = 500


class JudgedPairs:
    """The pairs of a selection with the votes of it, by id, the same ones each time they are gone through.

    Votes given after this was made do not take part. `left_out` counts, by reason, what the last pass left out.
    """

    def __init__(self, store: Store, base: BaseModelRef, selection: Selection, name_of: Callable[[int], str]) -> None:
        self._store = store
        self._base = base
        self._selection = selection
        self._name_of = name_of
        self._last_vote = store.judgements.last_vote(base)
        self.left_out: Counter[str] = Counter()

    def __iter__(self) -> Iterator[JudgedPair]:
        self.left_out = Counter()
        after = 0
        while True:
            page = self._store.judgements.page(self._base, after=after, last_vote=self._last_vote, limit=PAGE)
            yield from (kept for pair in page if (kept := self._kept(pair)) is not None)
            if len(page) < PAGE:
                return
            after = page[-1].id

    def _kept(self, pair: JudgedPair) -> JudgedPair | None:
        selection = self._selection
        if selection.versions and pair.adapter_version not in selection.versions:
            return None
        votes = [vote for vote in pair.votes if self._is_wanted(vote)]
        if not votes:
            return None
        if pair.reported and not selection.reported:
            self.left_out["votes on reported pairs"] += len(votes)
            return None
        return replace(pair, votes=votes)

    def _is_wanted(self, vote: GivenVote) -> bool:
        wanted = self._selection
        return (
            (wanted.question is None or vote.question is wanted.question)
            and (wanted.since is None or vote.at >= wanted.since)
            and (wanted.until is None or vote.at < wanted.until)
            and (not wanted.annotators or self._name_of(vote.annotator_id) in wanted.annotators)
        )
