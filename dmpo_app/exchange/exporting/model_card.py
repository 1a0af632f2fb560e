"""The model card of a published adapter: README.md as the Hub shows it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dmpo_app.domain.lineage import AdapterRef, BaseModelRef
from dmpo_app.labeling.quality.quality_report import QualityReport
from dmpo_app.labeling.quality.quality_votes import wilson_share

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
) -> str:
    """Build the model card. Nothing in it depends on when it is written."""
    settings = manifest["config"]["settings"]
    parts = [
        _front_matter(base, settings, licence=licence, base_is_on_hub=base_is_on_hub),
        f"# A taste, learned from votes: version {adapter.version}",
        f"A LoRA adapter for `{base.source if base_is_on_hub else base.family}`. People were shown two images of the "
        f"same prompt and said which is better; the adapter learned it by {_objective(settings)}.",
        _use(base, base_is_on_hub=base_is_on_hub),
        _training(adapter, manifest, settings),
        _votes(adapter, quality),
        _held_out(adapter),
        _images(images),
        _limits(adapter),
        "## Citation\n\n" + _CITATION,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(base: BaseModelRef, settings: Mapping[str, Any], *, licence: str, base_is_on_hub: bool) -> str:
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


def _votes(adapter: AdapterRef, quality: QualityReport) -> str:
    lines = [f"- {adapter.num_votes:,} votes were trained on"]
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
    if not adapter.proven:
        lines.append("These are few votes; the studio does not call the version proven.")
    return "## Held-out votes\n\n" + " ".join(lines)


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
