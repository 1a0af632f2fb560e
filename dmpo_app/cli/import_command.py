"""`dmpo import`: import pairs and votes of other people into a home."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from dmpo_app.cli.terminal import StudioContext, console, exit_on_error, log_to_terminal, out, progress
from dmpo_app.domain.data_import import ImportCounts, ImportUse
from dmpo_app.errors import BadInputError, SetupError
from dmpo_app.io import stop_signals

if TYPE_CHECKING:
    from dmpo_app.exchange.importing.importer import Importer
    from dmpo_app.server.wiring import Lineage
    from dmpo_app.settings import Settings

MAX_SHOWN = 20
EXIT_STOPPED = 130

Data = Annotated[str, typer.Argument(metavar="PATH|ID", help="A file, a folder or a hub id")]
Format = Annotated[str, typer.Option("--format", help="Of the rows; auto: told by their columns")]
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
    format_name: Format = "auto",
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
        from dmpo_app.exchange.readers.registry import open_source
        from dmpo_app.server.wiring import open_lineage

        settings = context.load_settings()
        source = open_source(data, split=split, config=subset)
        reader = get_reader(source, format_name)
        with open_lineage(settings) as lineage:
            importer = Importer(lineage.store, lineage.base, settings, source, reader, use, annotator_namespace=people)
            out.print(escape(f"{source.name} as {reader.name}"), highlight=False)
            _note_earlier(importer)
            if (dry_run or not yes) and not _preview(importer, lineage, left_out, ask=not dry_run):
                return
            is_whole = _run(importer, lineage, left_out)
            if is_whole and encode:
                _encode(lineage, settings)
        if not is_whole:
            raise typer.Exit(EXIT_STOPPED)


def _note_earlier(importer: Importer) -> None:
    before = importer.earlier_state()
    if before is not None:
        progress_text = "is complete" if before.is_complete else "goes on"
        out.print(f"this import {progress_text} at row {before.counts.rows:,}", highlight=False)


def _preview(importer: Importer, lineage: Lineage, left_out: Path | None, *, ask: bool) -> bool:
    """Preview the import; True to go on with it."""
    with console.status("reading") as status:
        preview = importer.preview(lambda counts: status.update(f"reading: {counts.rows:,} rows"))
    _show(preview.counts, "would be added")
    _list_left_out(preview.left_out, len(preview.left_out), importer, lineage, left_out)
    if not ask:
        return False
    if not (preview.counts.rows and (preview.counts.pairs or preview.counts.votes)):
        out.print("There is nothing new in it.")
        return preview.counts.rows > 0
    if not sys.stdin.isatty():
        raise BadInputError("nothing was written; --yes imports it without asking, --dry-run only shows what there is")
    return typer.confirm("Import it?")


def _run(importer: Importer, lineage: Lineage, left_out: Path | None) -> bool:
    """Run the import; True when all of it was imported."""
    before = importer.earlier_state()
    with stop_signals() as stopping, console.status("importing") as status:
        state = importer.run(
            lambda counts: status.update(f"importing: {counts.rows:,} rows, {counts.pairs:,} pairs"), stopping.is_set
        )
    if before is None or before.counts.rows < state.counts.rows:
        _show(state.counts, "added")
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


def _encode(lineage: Lineage, settings: Settings) -> None:
    from dmpo_app.cli.offline import encode_imported

    encoding = lineage.store.imports.encoding_progress(lineage.base)
    if encoding is None:
        return
    with stop_signals() as stopping, progress() as bar:
        total = encoding.total
        task = bar.add_task("encoding", total=total, completed=encoding.done)
        encode_imported(lineage, settings, lambda left: bar.update(task, completed=total - left), stopping.is_set)


def _show(counts: ImportCounts, verb: str) -> None:
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
    if path is None and count > MAX_SHOWN:
        path = lineage.store.home / "imports" / f"left-out-{importer.spec.fingerprint[:12]}.jsonl"
    if path is None or not sorted_rows:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = (json.dumps({"row": row, "reason": reason}) + "\n" for row, reason in sorted_rows)
        path.write_text("".join(lines), encoding="utf-8")
    except OSError as error:
        raise SetupError(f"{path} cannot be written ({error}); give another file: --left-out FILE") from error
    out.print(escape(f"    all {count:,} are in {path}"), highlight=False, style="dim")
