"""`dmpo gold`: pairs whose right answer is known, to see whether people answer right."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from rich.table import Table

from dmpo_app.cli.terminal import Home, Model, console, out, settings_from, spoken_errors

gold_app = typer.Typer(no_args_is_help=True, help="Pairs whose right answer is known, for DMPO_LABELING__GOLD_RATE.")
PairId = Annotated[int, typer.Argument(min=1, help="The pair's number, as reports and the API have it")]


class Answer(StrEnum):
    """The right answer of a gold pair."""

    A = "a"
    B = "b"
    TIE = "tie"


@gold_app.command()
def add(
    pair: PairId,
    answer: Annotated[Answer, typer.Argument(help="The better image: a is the one that was made first")],
    home: Home = None,
    model: Model = None,
) -> None:
    """Make a pair a gold pair. It is mixed in from now on, and votes on it are not trained on."""
    with spoken_errors():
        from dmpo_app.domain.vote import Outcome
        from dmpo_app.server.wiring import open_lineage

        settings = settings_from(home=home, model=model)
        with open_lineage(settings) as lineage:
            lineage.store.gold.set(lineage.base, pair, Outcome(answer.value), by="cli")
        if settings.labeling.gold_rate == 0:
            console.print("Gold pairs are not shown yet; DMPO_LABELING__GOLD_RATE=0.05 makes them 5 % of all showings.")


@gold_app.command()
def remove(pair: PairId, home: Home = None, model: Model = None) -> None:
    """Make a gold pair a pair like any other."""
    with spoken_errors():
        from dmpo_app.server.wiring import open_lineage

        with open_lineage(settings_from(home=home, model=model)) as lineage:
            lineage.store.gold.set(lineage.base, pair, None, by="cli")


@gold_app.command("list")
def list_gold(home: Home = None, model: Model = None) -> None:
    """The gold pairs with their right answers."""
    with spoken_errors():
        from dmpo_app.server.wiring import open_lineage

        table = Table("pair", "right answer", "prompt", box=None)
        with open_lineage(settings_from(home=home, model=model)) as lineage:
            for pair_id, answer in lineage.store.gold.answers(lineage.base).items():
                table.add_row(str(pair_id), answer.value, lineage.store.pairs.get(pair_id).prompt)
        out.print(table)
