"""`dmpo export`: votes as files in the formats of the field, and as a data set on the hub."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dmpo_app.cli.terminal import Home, Model, exit_on_error, out, progress, settings_from
from dmpo_app.domain.vote import Question
from dmpo_app.errors import BadInputError

if TYPE_CHECKING:
    from dmpo_app.exchange.exporting import ExportOptions, ExportSummary, Selection
    from dmpo_app.settings import Settings

Moment = Annotated[
    datetime | None, typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"], help="A time, UTC", show_default=False)
]
_KINDS = "pick-a-pic, open-image-preferences, chosen-rejected, votes-jsonl or votes-csv"


class OutcomeRule(StrEnum):
    """Aggregation of the votes on a pair to one outcome."""

    MAJORITY = "majority"
    POSTERIOR = "posterior"


def export(
    format_name: Annotated[str, typer.Argument(metavar="FORMAT", help=_KINDS)],
    folder: Annotated[Path | None, typer.Argument(help="Made or replaced; not needed with --push")] = None,
    since: Moment = None,
    until: Moment = None,
    annotator: Annotated[
        list[str] | None, typer.Option(help="Only of this hashed name, as `dmpo quality` shows it; repeatable")
    ] = None,
    version: Annotated[list[int] | None, typer.Option(min=0, help="Only pairs of this version; repeatable")] = None,
    question: Annotated[
        Question | None, typer.Option(help="Of preferences: what rounds learn from; of raw votes: all")
    ] = None,
    min_votes: Annotated[int, typer.Option(min=1, help="Only pairs with so many votes")] = 1,
    min_agreement: Annotated[float, typer.Option(min=0, max=1, help="... of which such a share says the same")] = 0.0,
    reported: Annotated[bool, typer.Option("--reported", help="With pairs that were reported")] = False,
    aggregated: Annotated[
        bool | None, typer.Option("--aggregated/--raw", help="A row for each pair, or for each vote")
    ] = None,
    decide: Annotated[OutcomeRule, typer.Option(help="How, with --aggregated")] = OutcomeRule.MAJORITY,
    with_images: Annotated[bool | None, typer.Option("--with-images/--without-images")] = None,
    comments: Annotated[bool, typer.Option("--comments", help="Of raw votes: with what people wrote")] = False,
    held_out: Annotated[float, typer.Option(min=0, max=0.5, help="Share of the prompts in the split `test`")] = 0.1,
    licence: Annotated[
        str | None, typer.Option(help="As the hub names it, e.g. cc-by-4.0 [DMPO_LABELING__LICENCE]")
    ] = None,
    push: Annotated[str | None, typer.Option(help="A data set repository on the hub, owner/name")] = None,
    private: Annotated[bool, typer.Option("--private", help="Make the repository a private one")] = False,
    home: Home = None,
    base_model: Model = None,
) -> None:
    """Write votes to a folder, in a format of the field; push them to the hub."""
    with exit_on_error():
        from dmpo_app.exchange.exporting import ExportOptions, Selection

        if folder is None and push is None:
            raise BadInputError("where to? Name a folder, a repository with --push owner/name, or both")
        settings = settings_from(home=home, base_model=base_model)
        if push is not None:
            from dmpo_app.exchange.exporting.hub_push import require_licence

            require_licence(licence or settings.labeling.licence)
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
        with ExitStack() as stack:
            target = folder or Path(stack.enter_context(tempfile.TemporaryDirectory())) / "export"
            _say(_write(target, format_name, selection, options, settings), folder)
            if push is not None:
                from dmpo_app.exchange.exporting.hub_push import push_export as push_to

                num_changed = push_to(target, push, private=private)
                out.print(
                    f"{push}: {f'{num_changed} files changed' if num_changed else 'nothing changed'}", highlight=False
                )


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
