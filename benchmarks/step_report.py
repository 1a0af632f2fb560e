"""The tables of `benchmarks.step_speed`."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.hit_rates import hit_table, print_hits
from benchmarks.report import print_table
from dmpo_app.settings import Settings

WANTED_RATIO = {"pocket": "1.5"}
WANTED_FLOOR = {"pocket": "1.5 to 2.1 expected", "sd15": "wanted: 1.25"}
LAYERS = ("attention", "wide")
WALL, CPU = 0, 1
FORWARDS_OF_FLOOR = 2
"""Forward passes of a step's batch, which holds both images of its pairs: one for the forward, one for the backward."""


@dataclass
class Measured:
    """One contestant's turns. `failure` in words when it did not get through."""

    seconds: list[dict[str, list[float]]] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)
    facts: dict[str, object] = field(default_factory=dict)
    failure: str | None = None

    def of(self, kind: str, clock: int) -> list[float]:
        """Seconds a step of every turn."""
        return [turn[kind][clock] for turn in self.seconds]

    def mixed(self, share_known: float, clock: int) -> list[float]:
        """Seconds a step when 1 - `share_known` passes of the base model come with each."""
        pairs = zip(self.of("hit", clock), self.of("miss", clock), strict=True)
        return [share_known * hit + (1 - share_known) * miss for hit, miss in pairs]

    @property
    def memory(self) -> str:
        return f"{max(self.peaks) / 2**20:,.0f}" if self.peaks else "-"


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median and range."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def print_speed(measured: dict[str, Measured], model: str, batch: int) -> None:
    """All tables. Contestants are the scripts, whose names begin so, and ours by layers."""
    scripts = {name: side for name, side in measured.items() if name.startswith("script")}
    steps = Settings().round.num_steps
    # A round computes its unknown draws in full batches (`RoundReferences`).
    rounds = hit_table(Settings().round).items()
    unprepared = {name: 1 - hits.packed_passes / steps for (name, filler), hits in rounds if not filler}
    rows = [_row(name, side, None, scripts, batch) for name, side in scripts.items()]
    for layers in LAYERS:
        rows.append(_row(f"ours, {layers}: all references known", measured[layers], 1.0, scripts, batch))
        for when, share in unprepared.items():
            rows.append(_row(f"ours, {layers}: {when}, none prepared", measured[layers], share, scripts, batch))
    header = ["", "pairs/s"]
    for name in scripts:
        header += [f"times the {name}", "... by CPU time"]
    if model in WANTED_RATIO:
        print(f"Wanted: {WANTED_RATIO[model]} times the script.\n")
    print_table([*header, "peak memory, MB"], rows)
    _print_floor(measured, model)
    print_hits(hit_table(Settings().round))


def _row(name: str, side: Measured, known: float | None, scripts: dict[str, Measured], batch: int) -> list[str]:
    """`known`: 1 minus base passes a step; None for a script."""
    if side.failure is not None:
        return [name, side.failure, *["-" for _ in scripts for _ in (WALL, CPU)], "-"]

    def own(clock: int) -> list[float]:
        return side.of("step", clock) if known is None else side.mixed(known, clock)

    ratios = []
    for script in scripts.values():
        for clock in (WALL, CPU):
            turns = zip(script.of("step", clock), own(clock), strict=False)
            ratios.append(script.failure or spread([theirs / ours for theirs, ours in turns]))
    return [name, spread([batch / seconds for seconds in own(WALL)]), *ratios, side.memory]


def _print_floor(measured: dict[str, Measured], model: str) -> None:
    rows = []
    for layers in LAYERS:
        side = measured[layers]
        if side.failure is None:
            shares = [spread(_over_floor(side, kind, clock)) for kind in ("hit", "miss") for clock in (WALL, CPU)]
            turns = zip(side.of("miss", CPU), side.of("hit", CPU), strict=True)
            base_pass = spread([1000 * (miss - hit) for miss, hit in turns], 0)
            step = spread([1000 * hit for hit in side.of("hit", CPU)], 0)
            rows.append([layers, *shares, step, base_pass, str(side.facts["micro_pairs"])])
    goal = WANTED_FLOOR.get(model, "no goal")
    header = ["layers", f"step over floor ({goal})", "... by CPU time", "with a base pass", "... by CPU time"]
    print_table([*header, "step, CPU ms", "base pass, CPU ms", "pairs at once"], rows)


def _over_floor(side: Measured, kind: str, clock: int) -> list[float]:
    turns = zip(side.of(kind, clock), side.of("forward", clock), strict=True)
    return [seconds / (FORWARDS_OF_FLOOR * forward) for seconds, forward in turns]
