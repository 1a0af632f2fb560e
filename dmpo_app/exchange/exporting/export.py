"""Export the votes of a lineage to a folder: data, images, card and manifest, the same bytes for the same votes."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.errors import BadInputError, DamagedFileError
from dmpo_app.exchange.exporting import export_rows, output_files
from dmpo_app.exchange.exporting.cards import ExportStatistics, build_card
from dmpo_app.labeling.quality.quality_report import make_name_hasher
from dmpo_app.labeling.sign_in import load_or_create_key
from dmpo_app.settings import Settings
from dmpo_app.store import Store
from dmpo_app.store.files import Files


class ImageFiles:
    """Images of the store for an export, each checked against its hash."""

    def __init__(self, files: Files, folder: Path) -> None:
        self._files = files
        self._folder = folder

    def read(self, sha256: str) -> bytes:
        """Read a PNG. Raises DamagedFileError."""
        return self._files.read_image(sha256)

    def copy(self, sha256: str) -> str:
        """Copy an image into the export's folder, once; returns its path there. Raises as `read` does."""
        name = f"images/{sha256[:2]}/{sha256}.png"
        path = self._folder / name
        if not path.exists():
            content = self.read(sha256)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return name


@dataclass(frozen=True, slots=True)
class ExportSummary:
    """The summary of an export; `left_out` counts by reason."""

    rows: int
    pairs: int
    votes: int
    left_out: dict[str, int]


def export_to(
    folder: Path,
    store: Store,
    base: BaseModelRef,
    settings: Settings,
    form: export_rows.Format,
    selection: export_rows.Selection,
    options: export_rows.ExportOptions,
    *,
    progress: Callable[[int], None] = lambda _: None,
) -> ExportSummary:
    """Export the present votes to `folder`, in place of an earlier export.

    Memory does not grow with votes (24 bytes each where the posterior decides) or images. `progress` is called with
    each pair's id. Raises BadInputError, SetupError (pyarrow is missing, the home's key is damaged), BusyError,
    StorageFullError.
    """
    if form.suffix == ".parquet":
        output_files.import_pyarrow()
    selection = _with_question(form, selection, settings)
    options = replace(options, licence=options.licence or settings.labeling.licence)
    rows = _row_kind(form, options)
    annotator_name = make_name_hasher(load_or_create_key(store.home), store.vote_records.public_ids(base))
    pairs = export_rows.SelectedPairs(store, base, selection, annotator_name)
    aggregate: export_rows.Aggregate = export_rows.majority_consensus
    if options.decide == "posterior" and rows == "pairs":
        aggregate = partial(export_rows.posterior_consensus, accuracy=export_rows.annotator_accuracies(pairs))
    rows_to_export = export_rows.ExportRows(form, pairs, selection, rows, aggregate)
    with_images = form.default_images if options.with_images is None else options.with_images
    with output_files.atomic_folder(folder) as staging:
        images = ImageFiles(store.files, staging) if with_images else None
        context = export_rows.FormatContext(
            base=base,
            annotator_name=annotator_name,
            read_image=None if images is None else images.read,
            copy_image=None if images is None else images.copy,
            rows=rows,
            comments=options.comments,
            rows_per_prompt=rows_to_export.rows_per_prompt() if form.counts_prompts else {},
        )
        return _write_export(staging, rows_to_export, context, selection, options, progress)


def _with_question(
    form: export_rows.Format, selection: export_rows.Selection, settings: Settings
) -> export_rows.Selection:
    needs_one_question = selection.min_votes > 1 or selection.min_agreement > 0  # answers to one question, then
    if selection.question is None and (needs_one_question or not form.is_raw):
        return replace(selection, question=settings.labeling.training_question)
    return selection


def _row_kind(form: export_rows.Format, options: export_rows.ExportOptions) -> export_rows.RowKind:
    if form.is_raw and options.rows == "pairs":
        raise BadInputError(f"{form.name} holds a row for each vote; choose another format for a row for each pair")
    return options.rows or form.default_rows


def _write_export(
    staging: Path,
    rows_to_export: export_rows.ExportRows,
    context: export_rows.FormatContext,
    selection: export_rows.Selection,
    options: export_rows.ExportOptions,
    progress: Callable[[int], None],
) -> ExportSummary:
    form, statistics, columns = rows_to_export.form, ExportStatistics(), rows_to_export.form.columns(context)
    has_embedded_images = context.with_images and not form.is_raw
    shards = output_files.Shards(
        staging,
        form.suffix,
        span=output_files.PAIRS_WITH_IMAGES if has_embedded_images else output_files.PAIRS_WITHOUT_IMAGES,
        open_file=lambda path: output_files.open_row_file(path, columns),
    )
    for pair, row_votes in rows_to_export:
        split = "train" if form.is_raw else output_files.assign_split(pair.prompt, options.held_out_share)
        try:
            rows = [form.row(pair, one, context) for one in row_votes]
        except DamagedFileError:
            statistics.left_out["pairs whose images are missing in the store"] += 1
            continue
        for row in rows:
            shards.add(split, pair.id, row)
        statistics.rows[split] += len(rows)
        statistics.add(replace(pair, votes=[vote for one in row_votes for vote in one.votes]))
        progress(pair.id)
    shards.close()
    statistics.left_out += rows_to_export.left_out
    output_files.write_text(staging / "README.md", build_card(form, columns, context, selection, options, statistics))
    manifest = {
        "format": form.name,
        "selection": selection.to_json_values(),
        "options": {**options.to_json_values(), "rows": context.rows, "with_images": context.with_images},
        "rows": statistics.rows.total(),
        "pairs": statistics.pairs,
        "votes": statistics.votes.total(),
        "left_out": dict(sorted(statistics.left_out.items())),
    }
    output_files.write_manifest(staging, manifest, shards.rows)
    return ExportSummary(statistics.rows.total(), statistics.pairs, statistics.votes.total(), dict(statistics.left_out))
