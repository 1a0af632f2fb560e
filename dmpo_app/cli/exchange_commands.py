"""`dmpo export` and `dmpo import`: votes as files in the formats of the field, and other people's pairs into a home."""

from __future__ import annotations

import json
import logging
import sys
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack, nullcontext
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from dmpo_app.cli.terminal import StudioContext, console, exit_on_error, log_to_terminal, out, progress
from dmpo_app.domain.data_import import ImportCounts, ImportUse
from dmpo_app.domain.vote import Question
from dmpo_app.errors import BadInputError, SetupError
from dmpo_app.io.files import users_umask
from dmpo_app.io.processes import stop_signals

if TYPE_CHECKING:
    from dmpo_app.exchange.exporting import ExportOptions, ExportSummary, Selection
    from dmpo_app.exchange.importing.importer import Importer
    from dmpo_app.server.wiring import Lineage
    from dmpo_app.settings import Settings


_KINDS = "pick-a-pic, open-image-preferences, chosen-rejected, votes-jsonl or votes-csv"


class OutcomeRule(StrEnum):
    """Aggregation of the votes on a pair to one outcome."""

    MAJORITY = "majority"
    POSTERIOR = "posterior"


def _option(*names: str, panel: str, help: str | None = None, **attributes: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, **attributes)


_select = partial(_option, panel="Votes and pairs")
_time = partial(_select, formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"], help="A time, UTC", show_default=False)
_rows = partial(_option, panel="Rows")
_card = partial(_option, panel="Data set")

ExportFormat = Annotated[str, typer.Argument(metavar="FORMAT", help=_KINDS)]
Folder = Annotated[Path | None, typer.Argument(help="Made or replaced; not needed with --push")]

Moment = Annotated[datetime | None, _time()]
Annotators = Annotated[
    list[str] | None, _select(help="Only of this hashed name, as `dmpo quality` shows it; repeatable")
]
Versions = Annotated[list[int] | None, _select(min=0, help="Only pairs of this version; repeatable")]
AskedQuestion = Annotated[Question | None, _select(help="Of preferences: what rounds learn from; of raw votes: all")]
MinVotes = Annotated[int, _select(min=1, help="Only pairs with so many votes")]
MinAgreement = Annotated[float, _select(min=0, max=1, help="... of which such a share says the same")]
Reported = Annotated[bool, _select("--reported", help="With pairs that reports have retired")]

Aggregated = Annotated[bool | None, _rows("--aggregated/--raw", help="A row for each pair, or for each vote")]
Rule = Annotated[OutcomeRule, _rows(help="How, with --aggregated")]
WithImages = Annotated[bool | None, _rows("--with-images/--without-images")]
Comments = Annotated[bool, _rows("--comments", help="Of raw votes: with what people wrote")]

HeldOut = Annotated[float, _card(min=0, max=0.5, help="Share of the prompts in the split `test`")]
Licence = Annotated[str | None, _card(help="As the hub names it, e.g. cc-by-4.0 [DMPO_LABELING__LICENCE]")]
Push = Annotated[str | None, _card(help="A data set repository on the hub, owner/name")]
Private = Annotated[bool, _card("--private", help="Make the repository a private one")]


def export(
    context: StudioContext,
    format_name: ExportFormat,
    folder: Folder = None,
    since: Moment = None,
    until: Moment = None,
    annotator: Annotators = None,
    version: Versions = None,
    question: AskedQuestion = None,
    min_votes: MinVotes = 1,
    min_agreement: MinAgreement = 0.0,
    reported: Reported = False,
    aggregated: Aggregated = None,
    decide: Rule = OutcomeRule.MAJORITY,
    with_images: WithImages = None,
    comments: Comments = False,
    held_out: HeldOut = 0.1,
    licence: Licence = None,
    push: Push = None,
    private: Private = False,
) -> None:
    """Write votes to a folder, in a format of the field; push them to the hub."""
    with exit_on_error():
        from dmpo_app.exchange.exporting import ExportOptions, Selection

        settings = context.load_settings()
        selection = Selection(
            since=_utc(since),
            until=_utc(until),
            annotators=frozenset(annotator or ()),
            versions=frozenset(version or ()),
            question=question,
            min_votes=min_votes,
            min_agreement=min_agreement,
            reported=reported,
        )
        options = ExportOptions(
            rows=None if aggregated is None else ("pairs" if aggregated else "votes"),
            decide=decide.value,
            with_images=with_images,
            comments=comments,
            held_out_share=held_out,
            licence=licence,
        )
        if push is not None:
            _write_and_push(folder, format_name, selection, options, settings, push, private=private)
        elif folder is not None:
            _say_exported(_write_export(folder, format_name, selection, options, settings), folder)
        else:
            raise BadInputError("where to? Name a folder, a repository with --push owner/name, or both")


def _write_and_push(
    folder: Path | None,
    format_name: str,
    selection: Selection,
    options: ExportOptions,
    settings: Settings,
    repository: str,
    *,
    private: bool,
) -> None:
    """Write the export to the folder or, without one, to a temporary folder, and push it. Raises without a licence."""
    from dmpo_app.exchange.exporting.hub_push import push_export, require_licence

    require_licence(options.licence or settings.labeling.licence)
    with ExitStack() as stack:
        target = folder or Path(stack.enter_context(tempfile.TemporaryDirectory())) / "export"
        _say_exported(_write_export(target, format_name, selection, options, settings), folder)
        num_changed = push_export(target, repository, private=private)
    changes = f"{num_changed} files changed" if num_changed else "nothing changed"
    out.print(f"{repository}: {changes}", highlight=False)


def _write_export(
    target: Path, name: str, selection: Selection, options: ExportOptions, settings: Settings
) -> ExportSummary:
    from dmpo_app.exchange.exporting import export_to, get_format
    from dmpo_app.server.wiring import open_lineage

    form = get_format(name)
    with open_lineage(settings) as lineage, progress() as bar:
        task = bar.add_task("pairs", total=lineage.store.pairs.count(lineage.base))
        with users_umask():
            return export_to(
                target,
                lineage.store,
                lineage.base,
                settings,
                form,
                selection,
                options,
                progress=lambda _: bar.advance(task),
            )


def _say_exported(summary: ExportSummary, folder: Path | None) -> None:
    if folder is not None:
        out.print(str(folder), highlight=False, markup=False)
    out.print(f"{summary.rows} rows of {summary.votes} votes on {summary.pairs} pairs", highlight=False)
    for reason, count in sorted(summary.left_out.items()):
        out.print(f"left out: {count} {reason}", highlight=False, style="dim")


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.replace(tzinfo=UTC)


MAX_SHOWN = 20
EXIT_STOPPED = 130

Data = Annotated[str, typer.Argument(metavar="PATH|ID", help="A file, a folder or a hub id")]
ImportFormat = Annotated[str, typer.Option("--format", help="Of the rows; auto: told by their columns")]
Use = Annotated[
    ImportUse,
    typer.Option("--as", help="votes: train on the votes; pairs: show the pairs to people; both"),
]
People = Annotated[
    str | None,
    typer.Option(help="Keep annotators apart by this name; not given: by the format's", show_default=False),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Read everything, say what would be done, write nothing")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not preview and ask first")]
Encode = Annotated[bool, typer.Option("--encode", help="Make latents at once; not given: the server does, when idle")]
LeftOut = Annotated[
    Path | None,
    typer.Option(
        help="Write what is left out here; not given: HOME/imports when it is more than 20", show_default=False
    ),
]


def import_data(
    context: StudioContext,
    data: Data,
    format_name: ImportFormat = "auto",
    use: Use = ImportUse.BOTH,
    split: Annotated[str, typer.Option(help="Of the data set")] = "train",
    subset: Annotated[
        str | None, typer.Option(help="Configuration of a hub id that has several", show_default=False)
    ] = None,
    people: People = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    encode: Encode = False,
    left_out: LeftOut = None,
) -> None:
    """Import pairs and votes: Pick-a-Pic, HPD, Label Studio, Argilla and others. Doing so again adds nothing."""
    log_to_terminal(logging.WARNING)
    with exit_on_error():
        from dmpo_app.exchange.importing.importer import Importer, get_reader
        from dmpo_app.exchange.readers.parsed import open_dataset
        from dmpo_app.server.wiring import open_lineage

        settings = context.load_settings()
        source = open_dataset(data, split=split, config=subset, limits=settings.parsing.limits)
        reader = get_reader(source, format_name)
        with open_lineage(settings) as lineage:
            importer = Importer(lineage.store, lineage.base, settings, source, reader, use, annotator_namespace=people)
            out.print(escape(f"{source.name} as {reader.name}"), highlight=False)
            _note_earlier(importer)
            if (dry_run or not yes) and not _preview_import(importer, lineage, left_out, ask=not dry_run):
                return
            is_whole = _run_import(importer, lineage, left_out)
            if is_whole and encode:
                _encode_imported(lineage, settings)
        if not is_whole:
            raise typer.Exit(EXIT_STOPPED)


def _note_earlier(importer: Importer) -> None:
    before = importer.earlier_state()
    if before is not None:
        progress_text = "is complete" if before.is_complete else "goes on"
        out.print(f"this import {progress_text} at row {before.counts.rows:,}", highlight=False)


def _preview_import(importer: Importer, lineage: Lineage, left_out: Path | None, *, ask: bool) -> bool:
    """Preview the import; True to go on with it."""
    with console.status("reading") as status:
        preview = importer.preview(lambda counts: status.update(f"reading: {counts.rows:,} rows"))
    _show_counts(preview.counts, "would be added")
    _list_left_out(preview.left_out, len(preview.left_out), importer, lineage, left_out)
    if not ask:
        return False
    if not (preview.counts.rows and (preview.counts.pairs or preview.counts.votes)):
        out.print("There is nothing new in it.")
        return preview.counts.rows > 0
    if not sys.stdin.isatty():
        raise BadInputError("nothing was written; --yes imports it without asking, --dry-run only shows what there is")
    return typer.confirm("Import it?")


def _run_import(importer: Importer, lineage: Lineage, left_out: Path | None) -> bool:
    """Run the import; True when all of it was imported."""
    before = importer.earlier_state()
    with stop_signals() as stopping, console.status("importing") as status:
        state = importer.run(
            lambda counts: status.update(f"importing: {counts.rows:,} rows, {counts.pairs:,} pairs"), stopping.is_set
        )
    if before is None or before.counts.rows < state.counts.rows:
        _show_counts(state.counts, "added")
        num_left_out = sum(state.counts.left_out.values())
        _list_left_out(lineage.store.imports.left_out(state.id), num_left_out, importer, lineage, left_out)
    if not state.is_complete:
        out.print("Stopped; the same command goes on from here.")
        return False
    encoding = lineage.store.imports.encoding_progress(lineage.base)
    if encoding is not None:
        out.print(
            f"{encoding.total - encoding.done:,} pairs have no latents yet; `dmpo serve` makes them when idle",
            highlight=False,
        )
    return True


def _encode_imported(lineage: Lineage, settings: Settings) -> None:
    from dmpo_app.cli.offline import encode_imported

    encoding = lineage.store.imports.encoding_progress(lineage.base)
    if encoding is None:
        return
    with stop_signals() as stopping, progress() as bar:
        total = encoding.total
        task = bar.add_task("encoding", total=total, completed=encoding.done)
        encode_imported(lineage, settings, lambda left: bar.update(task, completed=total - left), stopping.is_set)


def _show_counts(counts: ImportCounts, verb: str) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in (
        ("rows read", counts.rows),
        (f"pairs {verb}", counts.pairs),
        (f"votes {verb}", counts.votes),
        ("  ties among them", counts.ties),
        ("pairs without a vote", counts.unlabelled),
        ("there already", counts.duplicates),
    ):
        table.add_row(name, f"{value:,}")
    for reason, count in sorted(counts.left_out.items(), key=lambda item: -item[1]):
        table.add_row(escape(f"left out: {reason}"), f"{count:,}")
    out.print(table, highlight=False)


def _list_left_out(
    rows: Iterable[tuple[str, str]], count: int, importer: Importer, lineage: Lineage, path: Path | None
) -> None:
    """List rows left out: the first on the terminal, all in a file where they are many or one was asked for."""
    sorted_rows = sorted(rows, key=lambda one: [int(part) for part in one[0].split("/")])
    for row, reason in islice(sorted_rows, MAX_SHOWN):
        out.print(escape(f"    row {row}: {reason}"), highlight=False, style="dim")
    file_umask = nullcontext() if path is None else users_umask()
    if path is None and count > MAX_SHOWN:
        path = lineage.store.home / "imports" / f"left-out-{importer.spec.fingerprint[:12]}.jsonl"
    if path is None or not sorted_rows:
        return
    try:
        with file_umask:
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = (json.dumps({"row": row, "reason": reason}) + "\n" for row, reason in sorted_rows)
            path.write_text("".join(lines), encoding="utf-8")
    except OSError as error:
        raise SetupError(f"{path} cannot be written ({error}); give another file: --left-out FILE") from error
    out.print(escape(f"    all {count:,} are in {path}"), highlight=False, style="dim")
