"""`dmpo board` and `dmpo verdicts`: all versions ranked by people's duels, and the decisions about versions."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from dmpo_app.cli.terminal import StudioContext, exit_on_error, out

if TYPE_CHECKING:
    from dmpo_app.domain.judging import Board, BoardRow, VerdictRecord
    from dmpo_app.judging.service import JudgingState

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs")]
_RESAMPLES = 1000


def board(context: StudioContext, as_json: AsJson = False) -> None:
    """Rank all versions by people's duels: chances of winning against the base model, with 95 % intervals."""
    with exit_on_error():
        from dmpo_app.judging.service import JudgingService
        from dmpo_app.server.wiring import open_lineage

        settings = context.load_settings()
        with open_lineage(settings) as lineage:
            service = JudgingService(lineage.store, lineage.base, settings.judging)
            made, state = service.board(resamples=_RESAMPLES), service.state()
        if as_json:
            out.print_json(json.dumps(asdict(made)))
            return
        _print_board(made, state)


def verdicts(context: StudioContext, as_json: AsJson = False) -> None:
    """List the verdicts about versions that were acted on, newest first."""
    with exit_on_error():
        from dmpo_app.server.wiring import open_lineage

        with open_lineage(context.load_settings()) as lineage:
            records = lineage.store.verdicts.list(lineage.base)
        if as_json:
            out.print_json(json.dumps([_verdict_out(record) for record in records]))
            return
        _print_verdicts(records)


def _print_board(made: Board, state: JudgingState) -> None:
    from dmpo_app.domain.judging import version_name

    for comparison in state.comparisons:
        out.print(f"{comparison.sentence}: {comparison.consequence}", highlight=False, soft_wrap=True)
    if made.anchor is None:
        out.print("No duel has been judged yet.")
        return
    table = Table("version", f"wins against {version_name(made.anchor)}", "95 % interval", "judgements", box=None)
    for row in made.rows:
        live = " *" if row.version == state.live_version else ""
        table.add_row(f"{row.version}{live}", *_win_rate(row), str(row.num_judgements))
    out.print(table)
    counts = {"judgement": made.num_judgements, "annotator": made.num_annotators, "prompt": made.num_prompts}
    given, people, prompts = (f"{count} {name}{'' if count == 1 else 's'}" for name, count in counts.items())
    out.print(f"{given} of {people} on {prompts}", highlight=False)


def _win_rate(row: BoardRow) -> tuple[str, str]:
    if row.win_rate is None:
        return "not compared yet", ""
    if row.win_rate_low is None or row.win_rate_high is None:
        return f"{row.win_rate:.0%}", ""
    return f"{row.win_rate:.0%}", f"{row.win_rate_low:.0%} to {row.win_rate_high:.0%}"


def _print_verdicts(records: list[VerdictRecord]) -> None:
    from dmpo_app.judging.service import verdict_sentence

    if not records:
        out.print("Nothing has been decided by held-out votes or duels yet.")
    for record in records:
        line = f"{record.created_at:%Y-%m-%d %H:%M} UTC  {verdict_sentence(record)}"
        out.print(line, highlight=False, soft_wrap=True)


def _verdict_out(record: VerdictRecord) -> dict[str, object]:
    return {**asdict(record), "created_at": record.created_at.isoformat()}
