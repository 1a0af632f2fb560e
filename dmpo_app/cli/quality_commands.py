"""`dmpo quality` and `dmpo gold`: the quality of a home's votes, and pairs whose right answer is known."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from dmpo_app.cli.shared_options import StudioContext, StudioTyper
from dmpo_app.cli.terminal import console, exit_on_error, out

if TYPE_CHECKING:
    from dmpo_app.labeling.quality import QualityReport
    from dmpo_app.labeling.quality.quality_votes import Share


MOST_ROWS = 40


def quality(
    context: StudioContext,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the whole report to this file", show_default=False)
    ] = None,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", help="Write a line an annotator to this file", show_default=False)
    ] = None,
) -> None:
    """Report the quality of votes: agreement, repeats, sides, times, and the weight of each annotator's votes."""
    with exit_on_error():
        from dmpo_app.labeling.quality.quality_report import to_csv, to_json
        from dmpo_app.labeling.quality.quality_service import build_report
        from dmpo_app.server.wiring import open_lineage

        settings = context.load_settings()
        with open_lineage(settings) as lineage:
            report = build_report(lineage.store, lineage.base, settings)
        for path, text in ((json_file, to_json), (csv_file, to_csv)):
            if path is not None:
                path.write_text(text(report), encoding="utf-8", newline="")
                out.print(str(path), highlight=False)
        if json_file is None and csv_file is None:
            _show(report)


def _show(report: QualityReport) -> None:
    alpha = report.alpha
    facts = Table(show_header=False, box=None)
    facts.add_row("votes", f"{report.votes} on {report.pairs} pairs, {report.overlapping_pairs} judged by several")
    facts.add_row(
        "agreement (Krippendorff's alpha)",
        "nothing to compare" if alpha is None else f"{alpha.value:.2f} ({alpha.low:.2f} to {alpha.high:.2f})",
    )
    for name, share in (
        ("with what most others said", report.agreement),
        ("repeats with the same vote", report.repeats),
        ("gold pairs with the right vote", report.gold),
        ("image on the left", report.left),
        ("ties", report.ties),
        ("faster than 0.6 s", report.fast),
    ):
        facts.add_row(name, _format_share(share))
    facts.add_row("reliability", "weighs votes" if report.weights_in_use else "off: every vote counts alike")
    out.print(facts, highlight=False)
    if not report.annotators:
        return
    table = Table("annotator", "votes", "agrees", "repeats", "left", "median", "weight", "counts", "", box=None)
    for row in report.annotators[:MOST_ROWS]:
        median = "" if row.median_ms is None else f"{row.median_ms / 1000:.1f} s"
        shares = [_format_share(share, short=True) for share in (row.agreement, row.repeats, row.left)]
        cells = (row.name, str(row.votes), *shares, median, f"{row.weight:.2f}", f"{row.counts:.2f}")
        table.add_row(*cells, ", ".join(row.flags))
    out.print(table, highlight=False)
    if len(report.annotators) > MOST_ROWS:
        out.print(f"and {len(report.annotators) - MOST_ROWS} more; --csv FILE writes them all", highlight=False)


def _format_share(share: Share, *, short: bool = False) -> str:
    if share.value is None or share.low is None or share.high is None:
        return "" if short else "none"
    if short:
        return f"{share.value:.0%}"
    return f"{share.value:.0%} ({share.low:.0%} to {share.high:.0%}) of {share.trials}"


gold_app = StudioTyper(help="Pairs whose right answer is known, for DMPO_LABELING__GOLD_RATE.")
PairId = Annotated[int, typer.Argument(min=1, help="The pair's number, as reports and the API have it")]


class GoldOutcome(StrEnum):
    """The right answer of a gold pair."""

    A = "a"
    B = "b"
    TIE = "tie"


@gold_app.command()
def add(
    context: StudioContext,
    pair: PairId,
    answer: Annotated[GoldOutcome, typer.Argument(help="The better image: a is the one that was made first")],
) -> None:
    """Make a pair a gold pair. It is mixed in from now on, and votes on it are not trained on."""
    with exit_on_error():
        from dmpo_app.domain.vote import Outcome
        from dmpo_app.server.wiring import open_lineage

        settings = context.load_settings()
        with open_lineage(settings) as lineage:
            lineage.store.gold.set(lineage.base, pair, Outcome(answer.value), by="cli")
        if settings.labeling.gold_rate == 0:
            console.print(
                "Gold pairs are not shown yet; DMPO_LABELING__GOLD_RATE=0.05 makes them 5 % of all assignments."
            )


@gold_app.command()
def remove(context: StudioContext, pair: PairId) -> None:
    """Make a gold pair a pair like any other."""
    with exit_on_error():
        from dmpo_app.server.wiring import open_lineage

        with open_lineage(context.load_settings()) as lineage:
            lineage.store.gold.set(lineage.base, pair, None, by="cli")


@gold_app.command("list")
def list_gold(context: StudioContext) -> None:
    """List the gold pairs with their right answers."""
    with exit_on_error():
        from dmpo_app.server.wiring import open_lineage

        table = Table("pair", "right answer", "prompt", box=None)
        with open_lineage(context.load_settings()) as lineage:
            for pair_id, answer in lineage.store.gold.right_outcomes(lineage.base).items():
                table.add_row(str(pair_id), answer.value, lineage.store.pairs.get(pair_id).prompt)
        out.print(table)
