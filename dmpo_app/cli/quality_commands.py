"""`dmpo quality`: how good the votes of a home are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from dmpo_app.cli.terminal import Home, Model, out
from dmpo_app.cli.terminal import settings_from as _settings
from dmpo_app.cli.terminal import spoken_errors as _spoken_errors

if TYPE_CHECKING:
    from dmpo_app.labeling.quality import QualityReport
    from dmpo_app.labeling.quality.shares import Share

MOST_ROWS = 40


def quality(
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the whole report to this file", show_default=False)
    ] = None,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", help="Write a line an annotator to this file", show_default=False)
    ] = None,
    home: Home = None,
    base_model: Model = None,
) -> None:
    """How good the votes are: agreement, repeats, sides, times, and what each annotator's votes count."""
    with _spoken_errors():
        from dmpo_app.labeling.quality.export import to_csv, to_json
        from dmpo_app.labeling.quality.quality_service import report_of
        from dmpo_app.server.wiring import open_lineage

        settings = _settings(home=home, base_model=base_model)
        with open_lineage(settings) as lineage:
            report = report_of(lineage.store, lineage.base, settings)
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
        ("repeats answered alike", report.repeats),
        ("gold pairs answered right", report.gold),
        ("image on the left", report.left),
        ("ties", report.ties),
        ("faster than 0.6 s", report.fast),
    ):
        facts.add_row(name, _said(share))
    facts.add_row("reliability", "weighs votes" if report.weights_in_use else "off: every vote counts alike")
    out.print(facts, highlight=False)
    if not report.annotators:
        return
    table = Table("annotator", "votes", "agrees", "repeats", "left", "median", "weight", "counts", "", box=None)
    for row in report.annotators[:MOST_ROWS]:
        median = "" if row.median_ms is None else f"{row.median_ms / 1000:.1f} s"
        shares = [_said(share, short=True) for share in (row.agreement, row.repeats, row.left)]
        cells = (row.name, str(row.votes), *shares, median, f"{row.weight:.2f}", f"{row.counts:.2f}")
        table.add_row(*cells, ", ".join(row.flags))
    out.print(table, highlight=False)
    if len(report.annotators) > MOST_ROWS:
        out.print(f"and {len(report.annotators) - MOST_ROWS} more; --csv FILE writes them all", highlight=False)


def _said(share: Share, *, short: bool = False) -> str:
    if share.value is None or share.low is None or share.high is None:
        return "" if short else "none"
    if short:
        return f"{share.value:.0%}"
    return f"{share.value:.0%} ({share.low:.0%} to {share.high:.0%}) of {share.trials}"
