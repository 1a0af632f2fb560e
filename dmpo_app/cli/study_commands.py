"""Human studies between two versions: `dmpo study`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from dmpo_app.cli.terminal import StudioContext, StudioTyper, console, exit_on_error, out
from dmpo_app.domain.judging import version_name
from dmpo_app.domain.vote import Question
from dmpo_app.io.files import users_umask, write_atomically

if TYPE_CHECKING:
    from dmpo_app.domain.judging import Study, StudyRecord, StudyResult
    from dmpo_app.server.wiring import Lineage

study_app = StudioTyper(help="Human studies between two versions: people judge pairs of their images, blind.")

StudyName = Annotated[str, typer.Argument(help="Its name, as `dmpo study list` has it")]


@contextmanager
def _open(context: StudioContext) -> Iterator[Lineage]:
    from dmpo_app.server.wiring import open_lineage

    with exit_on_error(), open_lineage(context.load_settings()) as lineage:
        yield lineage


def _find(lineage: Lineage, name: str) -> StudyRecord:
    from dmpo_app.errors import NotFoundError

    studies = lineage.store.studies.list(lineage.base)
    for study in studies:
        if study.plan.name == name:
            return study
    names = ", ".join(repr(study.plan.name) for study in studies) or "none"
    raise NotFoundError(f"there is no study named {name!r}; there are: {names}")


def _summarize(lineage: Lineage, record: StudyRecord) -> Study:
    from dmpo_app.judging.study import summarize_study

    answers = lineage.store.studies.answers(lineage.base, record.id)
    return summarize_study(answers, version_a=record.plan.version_a, version_b=record.plan.version_b)


@study_app.command()
def create(
    context: StudioContext,
    name: Annotated[str, typer.Argument(help="A name, for you")],
    version: Annotated[int, typer.Argument(min=0, help="The version in question")],
    other: Annotated[int, typer.Argument(min=0, help="The version it is compared with; 0 is the base model")] = 0,
    raters: Annotated[int, typer.Option(min=1, max=100, help="People who judge each pair")] = 5,
    pairs: Annotated[int, typer.Option(min=1, max=10_000, help="Pairs of images")] = 50,
    question: Annotated[list[Question] | None, typer.Option(help="Asked about each pair; all by default")] = None,
) -> None:
    """Create a study. A running studio makes its pairs, and gives them to people who judge versions."""
    from dmpo_app.domain.judging import NewStudy

    with _open(context) as lineage:
        plan = NewStudy(name, version, other, tuple(question or Question), raters, pairs)
        lineage.store.studies.create(lineage.base, plan, by="cli")
    console.print(f"{pairs} pairs, {raters} people each. They are on the Label tab under Judge versions.")


@study_app.command("list")
def list_studies(context: StudioContext) -> None:
    """List the studies, oldest first, with how far they are."""
    table = Table("name", "versions", "pairs", "answers", "of", "state", box=None)
    with _open(context) as lineage:
        for study in lineage.store.studies.list(lineage.base):
            plan = study.plan
            wanted = plan.num_pairs * plan.num_raters * len(plan.questions)
            made = f"{study.num_made} of {plan.num_pairs}"
            state = "open" if study.closed_at is None else f"closed {study.closed_at:%Y-%m-%d}"
            versions = f"{plan.version_a} against {plan.version_b}"
            table.add_row(Text(plan.name), versions, made, str(study.num_answers), str(wanted), state)
    out.print(table)


@study_app.command()
def show(context: StudioContext, name: StudyName) -> None:
    """Show the result of a study: wins by majority with an interval, and how much people agree."""
    table = Table("question", "pairs", "wins", "losses", "ties", "win rate", "95 %", "agreement", box=None)
    with _open(context) as lineage:
        record = _find(lineage, name)
        results = _summarize(lineage, record).results
    for result in results:
        table.add_row(*_cells(result))
    versions = f"{version_name(record.plan.version_a)} against {version_name(record.plan.version_b)}"
    out.print(f"Wins of {versions}, by the majority of {record.plan.num_raters} people a pair:", highlight=False)
    out.print(table if results else "Nobody has answered yet.")


@study_app.command()
def export(
    context: StudioContext,
    name: StudyName,
    path: Annotated[Path, typer.Argument(help="The CSV file to write", dir_okay=False)],
) -> None:
    """Write the pairs of a study with their answers and majorities as CSV."""
    from dmpo_app.judging.study import study_csv

    with _open(context) as lineage:
        table = study_csv(_summarize(lineage, _find(lineage, name)))
        with users_umask():
            write_atomically(path, table.encode())
    console.print(f"{path} is written.", soft_wrap=True)


@study_app.command()
def close(context: StudioContext, name: StudyName) -> None:
    """Close a study: its pairs are given to nobody any more."""
    with _open(context) as lineage:
        lineage.store.studies.close(lineage.base, _find(lineage, name).id, by="cli")
    console.print(Text(f"{name} is closed."))


def _cells(result: StudyResult) -> tuple[str, ...]:
    rate, interval, agreement = "-", "-", "-"
    if result.win_rate is not None:
        rate = f"{result.win_rate:.1%}"
    if result.low is not None and result.high is not None:
        interval = f"{result.low:.1%} to {result.high:.1%}"
    if result.alpha is not None:
        agreement = f"{result.alpha:.2f}"
    counts = (result.num_pairs, result.wins, result.losses, result.ties)
    return (result.question.value, *(str(count) for count in counts), rate, interval, agreement)
