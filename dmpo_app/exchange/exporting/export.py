"""Exports the votes of a lineage to a folder: data, images, card and manifest, the same bytes for the same votes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.errors import BadInput, NotFound
from dmpo_app.exchange.exporting.dataset_card import Facts, card
from dmpo_app.exchange.exporting.export_rows import (
    Context,
    Decision,
    ExportOptions,
    Format,
    Judged,
    JudgedPairs,
    Rows,
    Selection,
    accuracies,
    majority,
    posterior,
)
from dmpo_app.exchange.exporting.folders import whole_folder, write_manifest, write_text
from dmpo_app.exchange.exporting.row_files import (
    PAIRS_WITH_IMAGES,
    PAIRS_WITHOUT_IMAGES,
    Shards,
    arrow,
    row_file,
    split_of,
)
from dmpo_app.labeling.quality.quality_service import hashed_names
from dmpo_app.labeling.tokens import load_or_create_key
from dmpo_app.settings import Settings
from dmpo_app.store import Store
from dmpo_app.store.files import Files, sha256_of


class ImageFiles:
    """Images of the store, each checked against its name before it leaves."""

    def __init__(self, files: Files, folder: Path) -> None:
        self._files = files
        self._folder = folder

    def read(self, sha256: str) -> bytes:
        """The PNG. Raises NotFound, also for a file whose content is not what its name says."""
        content = self._files.read_image(sha256)
        if sha256_of(content) != sha256:
            raise NotFound(f"the image {sha256} is damaged in the store")
        return content

    def keep(self, sha256: str) -> str:
        """Put it in the export's folder, once; returns its path there. Raises as `read` does."""
        name = f"images/{sha256[:2]}/{sha256}.png"
        path = self._folder / name
        if not path.exists():
            content = self.read(sha256)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return name


@dataclass(frozen=True, slots=True)
class ExportSummary:
    """What an export came to; `left_out` counts by reason, what of it is named there."""

    rows: int
    pairs: int
    votes: int
    left_out: dict[str, int]


def export_to(
    folder: Path,
    store: Store,
    base: BaseModelRef,
    settings: Settings,
    form: Format,
    selection: Selection,
    options: ExportOptions,
    *,
    progress: Callable[[int], None] = lambda _: None,
) -> ExportSummary:
    """Write an export of the votes there are now to `folder`, in place of an earlier one.

    Memory does not grow with votes (24 bytes each where the posterior decides) or images. `progress` is called with
    each pair's id. Raises BadInput, SetupProblem (pyarrow is missing, the home's key is damaged), Busy, StorageFull.
    """
    if form.suffix == ".parquet":
        arrow()
    selection = _completed(form, selection, settings)
    options = replace(options, licence=options.licence or settings.labeling.licence)
    rows = _rows(form, options)
    name_of = hashed_names(load_or_create_key(store.home), store.vote_records.public_ids(base))
    pairs = JudgedPairs(store, base, selection, name_of)
    decision: Decision = majority
    if options.decide == "posterior" and rows == "pairs":
        decision = partial(posterior, accuracy=accuracies(pairs))
    judged = Judged(form, pairs, selection, rows, decision)
    with_images = form.default_images if options.with_images is None else options.with_images
    with whole_folder(folder) as staging:
        images = ImageFiles(store.files, staging) if with_images else None
        context = Context(
            base=base,
            name_of=name_of,
            image=None if images is None else images.read,
            image_file=None if images is None else images.keep,
            rows=rows,
            comments=options.comments,
            rows_of_prompt=judged.rows_of_prompt() if form.counts_prompts else {},
        )
        return _written(staging, judged, context, selection, options, progress)


def _completed(form: Format, selection: Selection, settings: Settings) -> Selection:
    compares = selection.min_votes > 1 or selection.min_agreement > 0  # answers to one question, then
    if selection.question is None and (compares or not form.is_raw):
        return replace(selection, question=settings.labeling.training_question)
    return selection


def _rows(form: Format, options: ExportOptions) -> Rows:
    if form.is_raw and options.rows == "pairs":
        raise BadInput(f"{form.name} holds a row for each vote; choose another format for a row for each pair")
    return options.rows or form.default_rows


def _written(
    staging: Path,
    judged: Judged,
    context: Context,
    selection: Selection,
    options: ExportOptions,
    progress: Callable[[int], None],
) -> ExportSummary:
    form, facts, columns = judged.form, Facts(), judged.form.columns(context)
    embedded = context.with_images and not form.is_raw
    shards = Shards(
        staging,
        form.suffix,
        span=PAIRS_WITH_IMAGES if embedded else PAIRS_WITHOUT_IMAGES,
        open_file=lambda path: row_file(path, columns),
    )
    for pair, judgements in judged:
        split = "train" if form.is_raw else split_of(pair.prompt, options.held_out_share)
        try:
            rows = [form.row(pair, one, context) for one in judgements]
        except NotFound:
            facts.left_out["pairs whose images are missing in the store"] += 1
            continue
        for row in rows:
            shards.add(split, pair.id, row)
        facts.rows[split] += len(rows)
        facts.add(replace(pair, votes=[vote for one in judgements for vote in one.votes]))
        progress(pair.id)
    shards.close()
    facts.left_out += judged.left_out
    write_text(staging / "README.md", card(form, columns, context, selection, options, facts))
    described = {
        "format": form.name,
        "selection": selection.described(),
        "options": {**options.described(), "rows": context.rows, "with_images": context.with_images},
        "rows": facts.rows.total(),
        "pairs": facts.pairs,
        "votes": facts.votes.total(),
        "left_out": dict(sorted(facts.left_out.items())),
    }
    write_manifest(staging, described, shards.rows)
    return ExportSummary(facts.rows.total(), facts.pairs, facts.votes.total(), dict(facts.left_out))
