"""Tables and a figure of what `benchmarks.few_votes` has measured.

    python -m benchmarks.few_votes_report benchmarks/results/few-votes.jsonl [--seeds 1 2 3] [--tastes large left]
        [--votes 96] [--against dmpo 1] [--figure docs/images/objectives.png] [--map docs/images/alpha-beta.png]

A row is one objective with one set of settings, over its tastes and seeds. Win rate: share of held-out images in
which the taste prefers the adapted model to the base; the interval is a bootstrap over runs (BCa, 95 %), since images
of one run stand or fall together. Subject: change of the share of images with the prompted subject, in points, the
worst run. Diversity: distance between the two seeds of a prompt, as a share of the base model's, mean. `--against` adds
how much better one objective does than each other one on the runs that both have: the same votes, the same noise.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import bootstrap

from benchmarks.report import print_table
from dmpo_app.settings import RoundSettings

Group = tuple[int, float, str, float, tuple[str, ...]]
"""Votes, share that is wrong, objective, factor on beta, settings."""


@dataclass(frozen=True, slots=True)
class Summary:
    """One row. Rates in 0..1; `low` and `high` are None for a single run."""

    runs: int
    rate: float
    low: float | None
    high: float | None
    least: float
    fidelity: float
    diversity: float

    @property
    def interval(self) -> str:
        return "" if self.low is None or self.high is None else f"{self.low:.1%} to {self.high:.1%}"


def read(
    path: Path, seeds: Sequence[int] | None, tastes: Sequence[str] | None, votes: int | None
) -> dict[Group, list[Mapping[str, Any]]]:
    """The runs by group, in all or some of the seeds, tastes and numbers of votes."""
    groups: dict[Group, list[Mapping[str, Any]]] = defaultdict(list)
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        run = record["run"]
        if (seeds and run["seed"] not in seeds) or (tastes and run["taste"] not in tastes):
            continue
        if votes and run["votes"] != votes:
            continue
        key = (run["votes"], run["wrong"], run["objective"], run["spread"], tuple(run["set"]))
        groups[key].append(record)
    return groups


def summarise(records: Sequence[Mapping[str, Any]]) -> Summary:
    rates = np.array([record["wins"] / record["pairs"] for record in records])
    low = high = None
    if len(rates) > 1 and rates.std() > 0:
        found = bootstrap((rates,), np.mean, rng=np.random.default_rng(0)).confidence_interval
        low, high = float(found.low), float(found.high)
    changes = [record["fidelity"]["subject"] - record["base_fidelity"]["subject"] for record in records]
    return Summary(
        runs=len(rates),
        rate=float(rates.mean()),
        low=low,
        high=high,
        least=float(rates.min()),
        fidelity=100 * min(changes),
        diversity=float(np.mean([record["diversity"] for record in records])),
    )


def rows_of(groups: Mapping[Group, Sequence[Mapping[str, Any]]], tastes: Sequence[str]) -> list[list[str]]:
    rows = []
    for key in sorted(groups, key=lambda group: (group[0], group[1], group[4], group[2], group[3])):
        votes, wrong, objective, spread, settings = key
        records = groups[key]
        all_runs = summarise(records)
        by_taste = []
        for taste in tastes:
            of_taste = [record for record in records if record["run"]["taste"] == taste]
            by_taste.append(f"{summarise(of_taste).rate:.0%}" if of_taste else "")
        rows.append(
            [
                str(votes),
                f"{wrong:.0%}",
                objective,
                f"{spread:g}",
                " ".join(settings),
                str(all_runs.runs),
                f"{all_runs.rate:.1%}",
                all_runs.interval,
                f"{all_runs.least:.0%}",
                *by_taste,
                f"{all_runs.fidelity:+.0f}",
                f"{all_runs.diversity:.2f}",
            ]
        )
    return rows


def differences(groups: Mapping[Group, Sequence[Mapping[str, Any]]], objective: str, spread: float) -> list[list[str]]:
    """Rows of: votes, share wrong, the other objective, runs that both have, points of win rate that it is behind."""
    rows = []
    for key in sorted(groups):
        votes, wrong, name, factor, settings = key
        own = groups.get((votes, wrong, objective, spread, settings), [])
        if (name, factor) == (objective, spread) or not own or settings:
            continue
        mine, theirs = _by_run(own), _by_run(groups[key])
        shared = sorted(mine.keys() & theirs.keys())
        ahead = np.array([100 * (mine[run] - theirs[run]) for run in shared])
        if len(shared) < 2 or ahead.std() == 0:
            continue
        found = bootstrap((ahead,), np.mean, rng=np.random.default_rng(0)).confidence_interval
        interval = f"{found.low:+.1f} to {found.high:+.1f}"
        rows.append(
            [str(votes), f"{wrong:.0%}", name, f"{factor:g}", str(len(shared)), f"{ahead.mean():+.1f}", interval]
        )
    return rows


def _by_run(records: Sequence[Mapping[str, Any]]) -> dict[tuple[str, int], float]:
    return {(record["run"]["taste"], record["run"]["seed"]): record["wins"] / record["pairs"] for record in records}


def draw(path: Path, groups: Mapping[Group, Sequence[Mapping[str, Any]]], votes: int) -> None:
    """Win rates by objective, clean and with wrong votes side by side; a dot is a run."""
    from matplotlib import pyplot
    from matplotlib.lines import Line2D

    chosen = {key: records for key, records in groups.items() if key[0] == votes and not key[4]}
    names = sorted({(key[2], key[3]) for key in chosen})
    wrongs = sorted({key[1] for key in chosen})
    row = 0.8 / len(wrongs)
    figure, axes = pyplot.subplots(figsize=(7, 1.2 + 0.14 * len(wrongs) * len(names)))
    for column, wrong in enumerate(wrongs):
        shift = (column - (len(wrongs) - 1) / 2) * row
        for place, name in enumerate(names):
            records = chosen.get((votes, wrong, *name, ()), [])
            if not records:
                continue
            rates = [100 * record["wins"] / record["pairs"] for record in records]
            axes.scatter(rates, [place + shift] * len(rates), s=10, alpha=0.4, color=f"C{column}")
            axes.vlines(
                np.mean(rates), place + shift - 0.4 * row, place + shift + 0.4 * row, color=f"C{column}", linewidth=2
            )
    axes.axvline(50, color="0.7", linewidth=0.8, zorder=0)
    labels = [name if spread == 1 else f"{name}, beta x {spread:g}" for name, spread in names]
    axes.set_yticks(range(len(names)), labels)
    axes.invert_yaxis()
    axes.set(xlabel="wins over the base model, %", xlim=(0, 102), title=f"{votes} votes")
    handles = [Line2D([], [], color=f"C{i}", label=f"{wrong:.0%} wrong") for i, wrong in enumerate(wrongs)]
    axes.legend(handles=handles, frameon=False, fontsize=8, loc="lower left")
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def draw_map(path: Path, groups: Mapping[Group, Sequence[Mapping[str, Any]]]) -> None:
    """Win rates of DMPO over alpha and beta with a fifth of the votes wrong, on the runs that all cells have.

    Betas that were not tried with every alpha are left out.
    """
    from matplotlib import pyplot

    cells: dict[tuple[float, float], dict[tuple[str, int], float]] = {}
    for (_, wrong, objective, spread, settings), records in groups.items():
        alphas = [float(one.split("=")[1]) for one in settings if one.startswith("round.alpha=")]
        if objective == "dmpo" and wrong == 0.2 and len(alphas) == len(settings):
            cells[alphas[0] if alphas else RoundSettings().alpha, spread] = _by_run(records)
    if not cells:
        raise SystemExit("there are no runs of DMPO with a fifth of the votes wrong to draw a map of")
    alphas, spreads = (sorted({cell[axis] for cell in cells}) for axis in (0, 1))
    spreads = [spread for spread in spreads if all((alpha, spread) in cells for alpha in alphas)]
    shared = set.intersection(*(set(cells[alpha, spread]) for alpha in alphas for spread in spreads))
    grid = [[np.mean([100 * cells[alpha, spread][run] for run in shared]) for spread in spreads] for alpha in alphas]
    figure, axes = pyplot.subplots(figsize=(4.2, 3.4))
    heat_map = axes.imshow(grid, vmin=50, vmax=100, cmap="viridis", aspect="auto")
    for row, column in np.ndindex(len(alphas), len(spreads)):
        axes.text(column, row, f"{grid[row][column]:.0f}", ha="center", va="center", color="w")
    axes.set_xticks(range(len(spreads)), [f"x {spread:g}" for spread in spreads])
    axes.set_yticks(range(len(alphas)), [f"{alpha:g}" for alpha in alphas])
    axes.set(xlabel="beta, times the one from the data", ylabel="alpha", title=f"wins over base, %, {len(shared)} runs")
    figure.colorbar(heat_map)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--seeds", nargs="+", type=int, help="runs of these alone")
    parser.add_argument("--tastes", nargs="+", help="runs of these alone")
    parser.add_argument("--votes", type=int, help="runs with so many votes alone")
    parser.add_argument("--against", nargs=2, metavar=("OBJECTIVE", "BETA_X"), help="differences from this one too")
    parser.add_argument("--figure", type=Path, help="write a figure of the runs with default settings here")
    parser.add_argument("--map", type=Path, help="write the map of alpha and beta here")
    arguments = parser.parse_args()
    groups = read(arguments.runs, arguments.seeds, arguments.tastes, arguments.votes)
    tastes = sorted({record["run"]["taste"] for records in groups.values() for record in records})
    header = ["votes", "wrong", "objective", "beta x", "settings", "runs", "wins over base", "95 %", "least"]
    print_table([*header, *tastes, "subject, points", "diversity"], rows_of(groups, tastes))
    if arguments.against:
        objective, spread = arguments.against[0], float(arguments.against[1])
        print_table(
            ["votes", "wrong", "objective", "beta x", "runs", f"points that {objective} x {spread:g} is ahead", "95 %"],
            differences(groups, objective, spread),
        )
    if arguments.figure:
        draw(arguments.figure, groups, arguments.votes or 96)
    if arguments.map:
        draw_map(arguments.map, groups)


if __name__ == "__main__":
    main()
