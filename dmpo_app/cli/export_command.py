"""`dmpo export`: votes as files in the formats of the field, and as a data set on the hub."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dmpo_app.cli.terminal import StudioContext, exit_on_error, out, progress
from dmpo_app.domain.vote import Question
from dmpo_app.errors import BadInputError

if TYPE_CHECKING:
    from dmpo_app.exchange.exporting import ExportOptions, ExportSummary, Selection
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

Format = Annotated[str, typer.Argument(metavar="FORMAT", help=_KINDS)]
Folder = Annotated[Path | None, typer.Argument(help="Made or replaced; not needed with --push")]

Moment = Annotated[datetime | None, _time()]
Annotators = Annotated[
    list[str] | None, _select(help="Only of this hashed name, as `dmpo quality` shows it; repeatable")
]
Versions = Annotated[list[int] | None, _select(min=0, help="Only pairs of this version; repeatable")]
AskedQuestion = Annotated[Question | None, _select(help="Of preferences: what rounds learn from; of raw votes: all")]
MinVotes = Annotated[int, _select(min=1, help="Only pairs with so many votes")]
MinAgreement = Annotated[float, _select(min=0, max=1, help="... of which such a share says the same")]
Reported = Annotated[bool, _select("--reported", help="With pairs that were reported")]

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
    format_name: Format,
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
            _say(_write(folder, format_name, selection, options, settings), folder)
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
        _say(_write(target, format_name, selection, options, settings), folder)
        num_changed = push_export(target, repository, private=private)
    changes = f"{num_changed} files changed" if num_changed else "nothing changed"
    out.print(f"{repository}: {changes}", highlight=False)


def _write(target: Path, name: str, selection: Selection, options: ExportOptions, settings: Settings) -> ExportSummary:
    from dmpo_app.exchange.exporting import export_to, get_format
    from dmpo_app.server.wiring import open_lineage

    form = get_format(name)
    with open_lineage(settings) as lineage, progress() as bar:
        task = bar.add_task("pairs", total=lineage.store.pairs.count(lineage.base))
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


def _say(summary: ExportSummary, folder: Path | None) -> None:
    if folder is not None:
        out.print(str(folder), highlight=False, markup=False)
    out.print(f"{summary.rows} rows of {summary.votes} votes on {summary.pairs} pairs", highlight=False)
    for reason, count in sorted(summary.left_out.items()):
        out.print(f"left out: {count} {reason}", highlight=False, style="dim")


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.replace(tzinfo=UTC)
