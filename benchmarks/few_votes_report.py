"""Tables and a figure of what `benchmarks.few_votes` has measured.

    python -m benchmarks.few_votes_report benchmarks/results/few-votes.jsonl [--figure docs/images/objectives.png]

A row is one objective with one set of settings, over its tastes and seeds. Win rate: share of held-out pictures in
which the taste prefers the adapted model to the base; the interval is a bootstrap over runs (BCa, 95 %), since pictures
of one run stand or fall together. Subject: change of the share of pictures with the prompted subject, in points, the
worst run. Diversity: distance between the two seeds of a prompt, as a share of the base model's, mean.
"""

from __future__ import annotations

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


def read(path: Path) -> dict[Group, list[Mapping[str, Any]]]:
    groups: dict[Group, list[Mapping[str, Any]]] = defaultdict(list)
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        run = record["run"]
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


def draw(path: Path, groups: Mapping[Group, Sequence[Mapping[str, Any]]], votes: int) -> None:
    """Win rates by objective, clean and with wrong votes side by side; a dot is a run."""
    from matplotlib import pyplot
    from matplotlib.lines import Line2D

    chosen = {key: records for key, records in groups.items() if key[0] == votes and not key[4]}
    names = sorted({(key[2], key[3]) for key in chosen})
    wrongs = sorted({key[1] for key in chosen})
    figure, axes = pyplot.subplots(figsize=(7, 1.2 + 0.42 * len(names)))
    for column, wrong in enumerate(wrongs):
        shift = (column - (len(wrongs) - 1) / 2) * 0.35
        for place, name in enumerate(names):
            records = chosen.get((votes, wrong, *name, ()), [])
            if not records:
                continue
            rates = [100 * record["wins"] / record["pairs"] for record in records]
            axes.scatter(rates, [place + shift] * len(rates), s=10, alpha=0.4, color=f"C{column}")
            axes.vlines(np.mean(rates), place + shift - 0.14, place + shift + 0.14, color=f"C{column}", linewidth=2)
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--figure", type=Path, help="write the figure of `--votes` votes here")
    parser.add_argument("--votes", type=int, default=96)
    arguments = parser.parse_args()
    groups = read(arguments.runs)
    tastes = sorted({record["run"]["taste"] for records in groups.values() for record in records})
    header = ["votes", "wrong", "objective", "beta x", "settings", "runs", "wins over base", "95 %", "least"]
    print_table([*header, *tastes, "subject, points", "diversity"], rows_of(groups, tastes))
    if arguments.figure:
        draw(arguments.figure, groups, arguments.votes)


if __name__ == "__main__":
    main()
