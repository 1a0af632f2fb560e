"""The card of an exported data set, and the facts it states."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np

from dmpo_app.domain.vote import Outcome, Question
from dmpo_app.exchange.exporting.export_rows import (
    Column,
    Context,
    ExportOptions,
    Format,
    Selection,
    counted,
    model_name,
)
from dmpo_app.exchange.exporting.row_files import SPLITS
from dmpo_app.labeling.quality.agreement import alpha_interval
from dmpo_app.labeling.quality.quality_votes import ANSWERS, Interval
from dmpo_app.store.voting.judgements import JudgedPair

_SEED = 0


@dataclass(slots=True)
class Facts:
    """Counts of what was exported; memory grows by annotators and kinds of pairs, not by votes."""

    pairs: int = 0
    votes: Counter[Question] = field(default_factory=Counter)
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    annotators: set[int] = field(default_factory=set)
    versions: Counter[int] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    first: datetime | None = None
    last: datetime | None = None
    _kinds: dict[Question, Counter[tuple[int, ...]]] = field(default_factory=lambda: defaultdict(Counter))

    def add(self, pair: JudgedPair) -> None:
        """A pair of which rows were exported, with the votes behind them."""
        self.pairs += 1
        self.versions[pair.adapter_version] += 1
        answers: dict[Question, Counter[Outcome]] = defaultdict(Counter)
        for vote in pair.votes:
            self.votes[vote.question] += 1
            self.outcomes[vote.outcome] += 1
            self.annotators.add(vote.annotator_id)
            self.first = vote.at if self.first is None else min(self.first, vote.at)
            self.last = vote.at if self.last is None else max(self.last, vote.at)
        if pair.gold is None:  # they were picked for being easy
            for vote in counted(pair.votes):
                answers[vote.question][vote.outcome] += 1
        for question, given in answers.items():
            self._kinds[question][tuple(given[answer] for answer in ANSWERS)] += 1

    def overlapping(self, question: Question) -> int:
        """Pairs judged by two or more."""
        return sum(count for kind, count in self._kinds[question].items() if sum(kind) >= 2)

    def alpha(self, question: Question) -> Interval | None:
        """Krippendorff's, nominal, with a 95 % interval over pairs; None where nothing can be compared."""
        kinds = {kind: count for kind, count in sorted(self._kinds[question].items()) if sum(kind) >= 2}
        if not kinds:
            return None
        counts = np.repeat(np.array(list(kinds), np.int64), list(kinds.values()), axis=0)
        return alpha_interval(counts, np.random.default_rng(_SEED))


QUESTIONS: Mapping[Question, str] = {
    Question.OVERALL: "Which image is better?",
    Question.APPEAL: "Which image looks better?",
    Question.FIT: "Which image fits the prompt better?",
}
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def card(
    form: Format,
    columns: Sequence[Column],
    context: Context,
    selection: Selection,
    options: ExportOptions,
    facts: Facts,
) -> str:
    """The whole file; nothing in it is a prompt, a comment or a name, and nothing depends on when it is written."""
    parts = [
        _front_matter(form, options, facts),
        "# Preferences between generated images",
        f"People were shown two images made of the same prompt and said which is better. Format: {form.description}.",
        _counts(facts),
        _agreement(facts),
        _collected(form, context, options),
        _filters(selection),
        _columns(columns),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(form: Format, options: ExportOptions, facts: Facts) -> str:
    total = facts.rows.total()
    size = next((name for most, name in _SIZES if total < most), "n>1M")
    lines = [
        "---",
        *([f"license: {json.dumps(options.licence)}"] if options.licence else []),
        "pretty_name: Preferences between generated images",
        "size_categories:",
        f"- {size}",
        "tags:",
        "- preference",
        "- text-to-image",
        "- dmpo",
    ]
    if total:
        lines += ["configs:", "- config_name: default", "  data_files:"]
        for split in SPLITS:
            if facts.rows[split]:
                lines += [f"  - split: {split}", f"    path: data/{split}-*{form.suffix}"]
    return "\n".join([*lines, "---"])


def _counts(facts: Facts) -> str:
    lines = [
        f"- {facts.rows.total():,} rows ({', '.join(f'{split} {facts.rows[split]:,}' for split in SPLITS)})",
        f"- {facts.votes.total():,} votes of {len(facts.annotators):,} people on {facts.pairs:,} pairs",
        "- answers: " + (", ".join(f"{name.value} {n:,}" for name, n in sorted(facts.outcomes.items())) or "none"),
    ]
    if facts.first and facts.last:
        lines.append(f"- given from {facts.first:%Y-%m-%d} to {facts.last:%Y-%m-%d} (UTC)")
    lines += [f"- left out: {count:,} {reason}" for reason, count in sorted(facts.left_out.items())]
    return "## What is in it\n\n" + "\n".join(lines)


def _agreement(facts: Facts) -> str:
    lines = []
    for question, votes in sorted(facts.votes.items()):
        alpha, several = facts.alpha(question), facts.overlapping(question)
        found = "nothing to compare"
        if alpha is not None:
            found = f"Krippendorff's alpha {alpha.value:.2f} (95 % interval {alpha.low:.2f} to {alpha.high:.2f})"
        asked = f"`{question.value}` ({QUESTIONS[question]})"
        lines.append(f"- {asked}: {votes:,} votes, {several:,} pairs judged by several; {found}")
    return "## Questions and agreement\n\n" + "\n".join(lines) if lines else ""


def _collected(form: Format, context: Context, options: ExportOptions) -> str:
    rows = "each row is one vote" if context.rows == "votes" else f"each row is one pair, decided by {options.decide}"
    kept = (
        "Answers on gold pairs and repeats are there, marked in `purpose`; they say how good votes are and are nothing "
        "to train on."
        if form.is_raw
        else "Answers on gold pairs, repeats, skips and answers for neither image are left out"
        + ("." if form.holds_ties else ", and so are ties, which this format cannot hold.")
    )
    images = "with images as lossless PNG" if context.with_images else "without images"
    split = (
        f"About {options.held_out_share:.0%} of the prompts are held out as `test`, by the prompt's text alone: no "
        "prompt is in both splits.\n"
        if not form.is_raw and options.held_out_share
        else ""
    )
    return (
        "## How it was collected\n\n"
        f"With DMPO Studio. Images were made with `{model_name(context.base)}` and adapters trained on earlier votes; "
        "which one stood on the left was drawn by lot for each showing. Answers could be an image, a tie, both bad or "
        f"a skip. Here {rows}, {images}.\n{split}{kept} Votes that were taken back or withdrawn are not part of it. "
        "Annotators go by a keyed hash, which differs from studio to studio."
    )


def _filters(selection: Selection) -> str:
    described = selection.described()
    if not described:
        return ""
    return "## Filters\n\n" + "\n".join(f"- {name}: `{json.dumps(value)}`" for name, value in described.items())


def _columns(columns: Iterable[Column]) -> str:
    lines = [f"| `{one.name}` | {one.kind} | {one.meaning} |" for one in columns]
    return "## Columns\n\n| column | type | meaning |\n|---|---|---|\n" + "\n".join(lines)
