"""A small campaign for exports: eight pairs of real images, and votes as a test asks for them."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dmpo_app.domain.lineage import BaseModelRef, NewPair, PairSource
from dmpo_app.domain.vote import Annotator, Assignment, AssignmentRules, Choice, Outcome, Question, Strength
from dmpo_app.exchange.exporting import ExportOptions, ExportSummary, Selection, export_to, get_format
from dmpo_app.settings import Settings
from dmpo_app.store import Store
from tests.exchange.readers.preference_files import image_bytes
from tests.store.store_data import FINGERPRINT, HOUR, Clock, new_image

NUM_PAIRS = 8
ALL_GOLD = AssignmentRules(gold_rate=1.0)
ALL_REPEATS = AssignmentRules(repeat_rate=1.0, repeat_after=1)


def pair_of_images(number: int, prompt: str) -> NewPair:
    """A pair of two different PNG files."""
    pngs = [image_bytes(2 * number + side, file_format="PNG") for side in (0, 1)]
    a, b = (new_image(prompt, 2 * number + side, png=pngs[side]) for side in (0, 1))
    return NewPair(prompt, a, b, f"embeds {prompt}".encode(), PairSource.POOL)


@dataclass
class Campaign:
    store: Store
    base: BaseModelRef
    clock: Clock
    folder: Path
    pairs: list[int]
    _people: dict[str, Annotator] = field(default_factory=dict)
    _shown: dict[int, dict[tuple[int, Question], Assignment]] = field(default_factory=dict)

    @classmethod
    def of(cls, store: Store, clock: Clock, folder: Path) -> Campaign:
        base = store.models.register("/home/somebody/models/pocket", "stable-diffusion", FINGERPRINT)
        prompts = [f"a {('red', 'blue', 'green')[n % 3]} cat" for n in range(NUM_PAIRS)]
        made = store.pairs.add_many(base, [pair_of_images(n, prompt) for n, prompt in enumerate(prompts)])
        return cls(store, base, clock, folder, [pair.id for pair in made])

    def person(self, name: str) -> Annotator:
        """The one of that name; made when it is first heard of."""
        if name not in self._people:
            self._people[name] = self.store.annotators.ensure(name)
        return self._people[name]

    def assignment(self, annotator: Annotator, pair: int, question: Question = Question.OVERALL) -> Assignment:
        """Of a pair by its place; a person is shown all of them at once."""
        if annotator.id not in self._shown:
            both = (Question.OVERALL, Question.FIT)
            shown = self.store.assignments.issue(
                self.base, annotator.id, 2 * NUM_PAIRS, rng=random.Random(0), lifetime=100 * HOUR, questions=both
            ).result()
            self._shown[annotator.id] = {(one.pair_id, one.question): one for one in shown}
        return self._shown[annotator.id][self.pairs[pair], question]

    def vote(
        self,
        name: str,
        pair: int,
        outcome: Outcome,
        *,
        question: Question = Question.OVERALL,
        strength: Strength | None = None,
        comment: str | None = None,
    ) -> int:
        """Somebody answers, a minute after the last one; returns the vote's id."""
        annotator = self.person(name)
        return self.answer(self.assignment(annotator, pair, question), outcome, strength, comment)

    def answer(
        self, assignment: Assignment, outcome: Outcome, strength: Strength | None = None, comment: str | None = None
    ) -> int:
        self.clock.advance(timedelta(minutes=1))
        sides = {Outcome.A: Choice.LEFT, Outcome.B: Choice.RIGHT}
        if not assignment.a_on_left:
            sides = {Outcome.A: Choice.RIGHT, Outcome.B: Choice.LEFT}
        choice = sides.get(outcome) or Choice(outcome.value)
        return self.store.votes.record(assignment.id, assignment.annotator_id, choice, 1500, strength, comment).vote_id

    def offered(self, name: str, rules: AssignmentRules) -> Assignment:
        """The next assignment by these rules, to somebody who has answered all of theirs."""
        annotator = self.person(name)
        return self.store.assignments.issue(
            self.base, annotator.id, 1, rng=random.Random(1), lifetime=HOUR, rules=rules
        ).result()[0]

    def export(
        self, name: str, selection: Selection | None = None, *, to: str | None = None, **options: Any
    ) -> tuple[Path, ExportSummary]:
        """Into a folder called as `to`, or as the format."""
        folder = self.folder / (to or name)
        settings = Settings(home=self.store.home)
        chosen = ExportOptions(**{"held_out_share": 0.0, **options})
        form = get_format(name)
        return folder, export_to(folder, self.store, self.base, settings, form, selection or Selection(), chosen)

    def rows(self, name: str, selection: Selection | None = None, **options: Any) -> list[dict[str, Any]]:
        """The rows of an export."""
        folder, _ = self.export(name, selection, **options)
        return rows_of(folder)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """All rows of an export, in the order of its files."""
    rows: list[dict[str, Any]] = []
    for path in sorted((folder / "data").iterdir()):
        if path.suffix == ".parquet":
            rows += pq.read_table(path).to_pylist()
        else:
            rows += [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return rows


def schema_of(folder: Path) -> pa.Schema:
    """Of the first file."""
    return pq.read_schema(min((folder / "data").iterdir()))
