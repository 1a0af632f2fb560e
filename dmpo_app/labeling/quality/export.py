"""The report as files: JSON as it is, and the annotators as a table that spreadsheets cannot be tricked by."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict

from dmpo_app.labeling.quality.quality_report import AnnotatorQuality, QualityReport
from dmpo_app.labeling.quality.shares import Share
from dmpo_app.labeling.tables import safe_cell

_SHARES = ("agreement", "repeats", "gold", "left", "fast", "ties")


def to_json(report: QualityReport) -> str:
    """The whole report; what is not known is null."""
    return json.dumps(asdict(report), indent=1, allow_nan=False)


def to_csv(report: QualityReport) -> str:
    """A line an annotator; each share takes four columns. What is not known is empty."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\r\n")
    writer.writerow(_header())
    for row in report.annotators:
        writer.writerow([safe_cell(cell) if isinstance(cell, str) else cell for cell in _cells(row)])
    return file.getvalue()


def _header() -> list[str]:
    shares = [f"{name}{part}" for name in _SHARES for part in ("", "_low", "_high", "_trials")]
    return [
        "annotator", "votes", *shares, "left_p", "disagreement_p", "median_ms", "accuracy", "compared", "relative",
        "weight", "counts", "vote_share", "flags",
    ]  # fmt: skip


def _cells(row: AnnotatorQuality) -> list[object]:
    shares: list[Share] = [getattr(row, name) for name in _SHARES]
    return [
        row.name,
        row.votes,
        *(part for share in shares for part in (share.value, share.low, share.high, share.trials)),
        row.left_p,
        row.disagreement_p,
        row.median_ms,
        row.accuracy,
        row.compared,
        row.relative,
        row.weight,
        row.counts,
        row.vote_share,
        "; ".join(row.flags),
    ]
