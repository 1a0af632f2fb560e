"""Cards: of an exported data set with the statistics it states, and of a published adapter."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np

from dmpo_app.domain.effects import VersionComparison
from dmpo_app.domain.lineage import AdapterRef, BaseModelRef
from dmpo_app.domain.verdict import GateVerdict
from dmpo_app.domain.vote import Outcome, Question
from dmpo_app.exchange.exporting import export_rows
from dmpo_app.exchange.exporting.output_files import SPLITS
from dmpo_app.labeling.quality.agreement import alpha_interval
from dmpo_app.labeling.quality.quality_report import QualityReport
from dmpo_app.labeling.quality.quality_votes import OUTCOMES, Interval, wilson_share
from dmpo_app.store.voting.vote_queries import VotedPair

_SEED = 0


@dataclass(slots=True)
class ExportStatistics:
    """Statistics of an export; memory grows by annotators and kinds of pairs, not by votes."""

    pairs: int = 0
    votes: Counter[Question] = field(default_factory=Counter)
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    annotators: set[int] = field(default_factory=set)
    versions: Counter[int] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    first: datetime | None = None
    last: datetime | None = None
    _outcome_patterns: dict[Question, Counter[tuple[int, ...]]] = field(default_factory=lambda: defaultdict(Counter))

    def add(self, pair: VotedPair) -> None:
        """Count an exported pair, with the votes behind its rows."""
        self.pairs += 1
        self.versions[pair.adapter_version] += 1
        outcomes: dict[Question, Counter[Outcome]] = defaultdict(Counter)
        for vote in pair.votes:
            self.votes[vote.question] += 1
            self.outcomes[vote.outcome] += 1
            self.annotators.add(vote.annotator_id)
            self.first = vote.at if self.first is None else min(self.first, vote.at)
            self.last = vote.at if self.last is None else max(self.last, vote.at)
        if pair.gold is None:  # they were picked for being easy
            for vote in export_rows.filter_preferences(pair.votes):
                outcomes[vote.question][vote.outcome] += 1
        for question, counts in outcomes.items():
            self._outcome_patterns[question][tuple(counts[answer] for answer in OUTCOMES)] += 1

    def num_overlapping(self, question: Question) -> int:
        """Number of pairs with votes of two or more annotators."""
        return sum(count for kind, count in self._outcome_patterns[question].items() if sum(kind) >= 2)

    def alpha(self, question: Question) -> Interval | None:
        """Krippendorff's alpha, nominal, with a 95 % interval over pairs; None where nothing can be compared."""
        kinds = {kind: count for kind, count in sorted(self._outcome_patterns[question].items()) if sum(kind) >= 2}
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


def build_card(
    form: export_rows.Format,
    columns: Sequence[export_rows.Column],
    context: export_rows.FormatContext,
    selection: export_rows.Selection,
    options: export_rows.ExportOptions,
    statistics: ExportStatistics,
) -> str:
    """Build the data set card; it holds no prompt, comment or name, and nothing depends on when it is written."""
    parts = [
        _front_matter(form, options, statistics),
        "# Preferences between generated images",
        f"People were shown two images made of the same prompt and said which is better. Format: {form.description}.",
        _counts(statistics),
        _agreement(statistics),
        _collection(form, context, options),
        _filters(selection),
        _columns(columns),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(form: export_rows.Format, options: export_rows.ExportOptions, statistics: ExportStatistics) -> str:
    total = statistics.rows.total()
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
            if statistics.rows[split]:
                lines += [f"  - split: {split}", f"    path: data/{split}-*{form.suffix}"]
    return "\n".join([*lines, "---"])


def _counts(statistics: ExportStatistics) -> str:
    lines = [
        f"- {statistics.rows.total():,} rows ({', '.join(f'{split} {statistics.rows[split]:,}' for split in SPLITS)})",
        f"- {statistics.votes.total():,} votes of {len(statistics.annotators):,} people on {statistics.pairs:,} pairs",
        "- outcomes: "
        + (", ".join(f"{name.value} {n:,}" for name, n in sorted(statistics.outcomes.items())) or "none"),
    ]
    if statistics.first and statistics.last:
        lines.append(f"- given from {statistics.first:%Y-%m-%d} to {statistics.last:%Y-%m-%d} (UTC)")
    lines += [f"- left out: {count:,} {reason}" for reason, count in sorted(statistics.left_out.items())]
    return "## What is in it\n\n" + "\n".join(lines)


def _agreement(statistics: ExportStatistics) -> str:
    lines = []
    for question, votes in sorted(statistics.votes.items()):
        alpha, num_overlapping = statistics.alpha(question), statistics.num_overlapping(question)
        alpha_text = "nothing to compare"
        if alpha is not None:
            alpha_text = f"Krippendorff's alpha {alpha.value:.2f} (95 % interval {alpha.low:.2f} to {alpha.high:.2f})"
        question_text = f"`{question.value}` ({QUESTIONS[question]})"
        lines.append(
            f"- {question_text}: {votes:,} votes, {num_overlapping:,} pairs with votes of several people; {alpha_text}"
        )
    return "## Questions and agreement\n\n" + "\n".join(lines) if lines else ""


def _collection(
    form: export_rows.Format, context: export_rows.FormatContext, options: export_rows.ExportOptions
) -> str:
    rows = "each row is one vote" if context.rows == "votes" else f"each row is one pair, decided by {options.decide}"
    excluded_votes = (
        "Votes on gold pairs, repeats and duels are there, marked in `purpose`; they say how good votes and versions "
        "are and are nothing to train on."
        if form.is_raw
        else "Votes on gold pairs, repeats, duels, skips and votes for neither image are left out"
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
        f"With DMPO Studio. Images were made with `{export_rows.model_name(context.base)}` and adapters trained on "
        "earlier votes; the one on the left was chosen at random for each assignment. Votes could be for an image, a "
        f"tie, both bad or a skip. Here {rows}, {images}.\n{split}{excluded_votes} Votes that were taken back or "
        "withdrawn are not part of it. Annotators go by a keyed hash, which differs from studio to studio."
    )


def _filters(selection: export_rows.Selection) -> str:
    filters = selection.to_json_values()
    if not filters:
        return ""
    return "## Filters\n\n" + "\n".join(f"- {name}: `{json.dumps(value)}`" for name, value in filters.items())


def _columns(columns: Iterable[export_rows.Column]) -> str:
    lines = [f"| `{one.name}` | {one.kind} | {one.meaning} |" for one in columns]
    return "## Columns\n\n| column | type | meaning |\n|---|---|---|\n" + "\n".join(lines)


_CITATION = """```bibtex
@article{li2025dmpo,
  title   = {Divergence Minimization Preference Optimization for Diffusion Model Alignment},
  author  = {Li and others},
  journal = {arXiv preprint arXiv:2507.07510},
  year    = {2025}
}
```"""


@dataclass(frozen=True, slots=True)
class CardImages:
    """Base and adapted image of one prompt and seed, as names of files beside the card."""

    prompt: str
    seed: int
    before: str
    after: str


def model_card(
    base: BaseModelRef,
    adapter: AdapterRef,
    manifest: Mapping[str, Any],
    quality: QualityReport,
    images: Sequence[CardImages],
    *,
    licence: str,
    base_is_on_hub: bool,
    taken_back: int = 0,
    comparisons: Sequence[VersionComparison] = (),
) -> str:
    """Build the model card. `taken_back`: votes it learned from that were taken back since, or count no more."""
    settings = manifest["config"]["settings"]
    parts = [
        _adapter_front_matter(base, settings, licence=licence, base_is_on_hub=base_is_on_hub),
        f"# A taste, learned from votes: version {adapter.version}",
        f"A LoRA adapter for `{base.source if base_is_on_hub else base.family}`. People were shown two images of the "
        f"same prompt and said which is better; the adapter learned it by {_objective(settings)}.",
        _use(base, base_is_on_hub=base_is_on_hub),
        _training(adapter, manifest, settings),
        _votes(adapter, quality, taken_back),
        _held_out(adapter),
        _learned(comparisons),
        _images(images),
        _limits(adapter),
        "## Citation\n\n" + _CITATION,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _adapter_front_matter(
    base: BaseModelRef, settings: Mapping[str, Any], *, licence: str, base_is_on_hub: bool
) -> str:
    lines = ["---", f"license: {json.dumps(licence)}", "library_name: diffusers", "pipeline_tag: text-to-image"]
    if base_is_on_hub:
        lines += [f"base_model: {json.dumps(base.source)}", "base_model_relation: adapter"]
    lines += ["tags:", "- lora", "- preference-optimization", f"- {settings['objective'].replace('_', '-')}"]
    return "\n".join([*lines, "---"])


def _objective(settings: Mapping[str, Any]) -> str:
    name = settings["objective"]
    return "DMPO, reverse KL between the model's preference and the people's" if name == "dmpo" else f"`{name}`"


def _use(base: BaseModelRef, *, base_is_on_hub: bool) -> str:
    source = base.source if base_is_on_hub else "path/to/the/base-model"
    return f"""```python
from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained("{source}")
pipe.load_lora_weights("this/repository")
```"""


def _training(adapter: AdapterRef, manifest: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    spec = manifest["spec"]
    rows = {
        "base model": f"{base_model_name(manifest)} (fingerprint `{manifest['base_model']['fingerprint'][:16]}`)",
        "parent": f"version {adapter.parent}" if adapter.parent else "the base model",
        "objective": settings["objective"],
        "beta, alpha": f"{_number(settings.get('beta'))}, {_number(settings.get('alpha'))}",
        "rank, lora_alpha": f"{spec['rank']}, {_number(spec['lora_alpha'])}",
        "learning rate": _number(settings["learning_rate"]),
        "steps": f"{manifest['step']} of {settings['num_steps']}, batches of {settings['batch_pairs']} pairs",
        "seed": str(manifest["seed"]),
        "sha256": f"`{adapter.sha256}`",
    }
    return "## Training\n\n" + _table(("", ""), list(rows.items()))


def base_model_name(manifest: Mapping[str, Any]) -> str:
    """The public name of a base model from a manifest: its hub id, or its folder's name."""
    source = str(manifest["base_model"]["source"])
    return source if source.count("/") == 1 and not source.startswith(("/", ".")) else source.rstrip("/").split("/")[-1]


def _votes(adapter: AdapterRef, quality: QualityReport, taken_back: int) -> str:
    lines = [f"- {adapter.num_votes:,} votes were trained on"]
    if taken_back:
        lines.append(f"- {taken_back:,} of the votes it learned from were taken back before this card was written")
    alpha = quality.alpha
    if alpha is None:
        lines.append("- agreement: no pair has votes of several people")
    else:
        lines.append(
            f"- agreement in this studio: Krippendorff's alpha {alpha.value:.2f} (95 % interval {alpha.low:.2f} to "
            f"{alpha.high:.2f}, {quality.overlapping_pairs:,} pairs with votes of several)"
        )
    lines.append(f"- {len(quality.annotators):,} annotators have voted here")
    return "## Votes\n\n" + "\n".join(lines)


def _held_out(adapter: AdapterRef) -> str:
    metrics = adapter.metrics
    count, accuracy = int(metrics.get("held_out_votes", 0)), metrics.get("held_out_accuracy")
    if not count or accuracy is None:
        return "## Held-out votes\n\nNone: how well this carries over to other prompts was not measured."
    share = wilson_share(round(accuracy * count), count)
    lines = [
        f"The adapter's implicit margin takes the people's side in {accuracy:.0%} of {count:,} votes on prompts that "
        f"were not trained on (95 % interval {share.low:.0%} to {share.high:.0%}; half is chance)."
    ]
    if "live_held_out_accuracy" in metrics and adapter.parent:
        lines.append(f"Version {adapter.parent}, which it followed: {metrics['live_held_out_accuracy']:.0%}.")
    if (verdict := GateVerdict.from_metrics(metrics)) is not None:
        lines.append(verdict.sentence)
    if not adapter.proven:
        lines.append("These are few votes; the studio does not call the version proven.")
    return "## Held-out votes\n\n" + " ".join(lines)


def _learned(comparisons: Sequence[VersionComparison]) -> str:
    """The effects on images of held-out prompts, without the prompts; nothing where they were not measured."""
    if not comparisons:
        return ""
    parts = ["## What it learned", *(f"- {comparison.effects.sentence}" for comparison in comparisons)]
    moved = [effect for effect in comparisons[-1].effects.measures if effect.moved]
    if moved:
        other = comparisons[-1].other_version
        head = ("measure", f"against {f'version {other}' if other else 'the base model'}", "95 % interval", "images")
        rows = [
            (
                effect.measure.replace("_", " "),
                f"{effect.size:+.2g} {effect.unit}",
                f"{effect.low:+.2g} to {effect.high:+.2g}",
                f"{effect.num_agreeing} of {comparisons[-1].effects.num_images} {effect.words}",
            )
            for effect in moved
        ]
        parts += ["", _table(head, rows)]
    return "\n".join([parts[0], "", *parts[1:]])


def _images(images: Sequence[CardImages]) -> str:
    if not images:
        return ""
    rows = [
        (f"{_escape_markdown(one.prompt)}, seed {one.seed}", f"![base]({one.before})", f"![adapted]({one.after})")
        for one in images
    ]
    return "## Before and after\n\n" + _table(("prompt and seed", "base model", "with the adapter"), rows)


def _limits(adapter: AdapterRef) -> str:
    return (
        "## Limits\n\n"
        f"It follows the taste of those who voted, on prompts like those they saw; {adapter.num_votes:,} votes say "
        "little of anything else. It inherits what the base model does well and badly, its licence's terms "
        "included."
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _escape_markdown(text: str) -> str:
    """Escape a prompt for a Markdown table: neither markup nor a cell's end."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]()<>#+-.!|&" else " " if c in "\r\n" else c for c in text)


def _number(value: Any) -> str:
    return "from the data" if value is None else f"{value:g}"
