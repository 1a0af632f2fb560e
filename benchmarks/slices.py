"""Cost of cutting a round into slices, each in a process forked for it, and a check that the adapter is the same.

    python -m benchmarks.slices [--steps 80] [--seconds 5 45] [--quick]

The pocket model's starter pairs are voted on; the same votes are trained on in one uncut round and in slices, each on a
copy of the home. Times are processor seconds of the slices' processes, with everything that a slice begins and ends
with: other programs on the machine change them less than the time on the clock, which is given too.
"""

import argparse
import os
import random
import resource
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
from safetensors.torch import load_file

from benchmarks.report import machine, print_table
from dmpo_app.domain.lineage import RoundStatus
from dmpo_app.domain.vote import Choice
from dmpo_app.hosting.zerogpu.gpu_calls import GpuWorker, gpu_seconds
from dmpo_app.hosting.zerogpu.start import assemble
from dmpo_app.server.wiring import Lineage, open_lineage
from dmpo_app.settings import RoundSettings, Settings
from tests.hosting.zerogpu.stand_in.spaces import Lender

UNCUT = 1e9
BETA = 503.0
"""That of the pocket model, so that none of the time is spent on finding it."""


@dataclass(frozen=True, slots=True)
class Run:
    """`cpu_seconds` of all processes of a round, `seconds` on the clock, how many slices, and the adapter."""

    slices: int
    cpu_seconds: float
    seconds: float
    weights: dict[str, torch.Tensor]


def prepare(settings: Settings, votes: int) -> None:
    """A home whose starter pairs one annotator has voted on, left or right by lot."""
    rng = random.Random(0)
    with open_lineage(settings) as lineage:
        store, base = lineage.store, lineage.base
        annotator = store.annotators.ensure("benchmark")
        taken = 0
        while taken < votes:
            for assignment in store.assignments.issue(
                base, annotator.id, min(10, votes - taken), rng=rng, lifetime=timedelta(hours=1)
            ).result():
                store.votes.record(assignment.id, annotator.id, rng.choice((Choice.LEFT, Choice.RIGHT)), 500)
                taken += 1


def train(settings: Settings, worker: GpuWorker, seconds: float) -> Run:
    """One round in slices of `seconds`, each in a process of its own."""
    with open_lineage(settings) as lineage:
        lender = Lender(reuse=False)
        rounds = assemble(lineage.store, lineage.base, settings, lender(duration=gpu_seconds)(worker.work)).trainer
        started, cpu_before = time.perf_counter(), cpu_of_children()
        state = rounds.next_round()
        assert state is not None
        while state.finished_at is None:
            *_, state = rounds.train_slice(state, seconds)
        took, cpu = time.perf_counter() - started, cpu_of_children() - cpu_before
        assert state.status in (RoundStatus.PUBLISHED, RoundStatus.REFUSED), state.reason
        return Run(len(lender.pids), cpu, took, weights_of(lineage))


def weights_of(lineage: Lineage) -> dict[str, torch.Tensor]:
    """Of the only version there is."""
    (adapter,) = lineage.store.adapters.list(lineage.base)
    weights: dict[str, torch.Tensor] = load_file(adapter.folder / "pytorch_lora_weights.safetensors")
    return weights


def cpu_of_children() -> float:
    """Processor seconds of all processes that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def report(uncut: Run, cut: Sequence[tuple[float, Run]]) -> None:
    rows = [("uncut", uncut.slices, f"{uncut.cpu_seconds:.1f}", f"{uncut.seconds:.1f}", "", "", "")]
    for seconds, run in cut:
        extra = run.slices - uncut.slices
        price = (run.cpu_seconds - uncut.cpu_seconds) / extra if extra else 0.0
        share = (run.cpu_seconds - uncut.cpu_seconds) / uncut.cpu_seconds
        bits = "yes" if same(run.weights, uncut.weights) else "NO"
        rows.append(
            (f"{seconds:g} s", run.slices, f"{run.cpu_seconds:.1f}", f"{run.seconds:.1f}", f"{share:+.1%}",
             f"{price:.2f}" if extra else "–", bits)
        )  # fmt: skip
    header = ("slices", "how many", "processor s", "clock s", "overhead", "processor s a further slice", "same bits")
    print_table(header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--seconds", type=float, nargs="+", default=[5.0, 45.0])
    parser.add_argument("--votes", type=int, default=48)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--quick", action="store_true", help="16 steps, slices of 2 and 5 s")
    options = parser.parse_args()
    steps, lengths = (16, [2.0, 5.0]) if options.quick else (options.steps, options.seconds)
    # Never refused for want of luck with held-out votes: it is the bits that are compared.
    wanted = RoundSettings(num_steps=steps, beta=BETA, held_out_share=0.0)
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        first = Settings(home=Path(folder) / "first", min_votes=2, round=wanted)
        prepare(first, options.votes)
        with open_lineage(first) as lineage:
            worker = GpuWorker.load(lineage.base, first, num_threads=options.threads)

        def run(seconds: float) -> Run:
            home = Path(shutil.copytree(first.home, Path(folder) / f"slices-{seconds:g}"))
            return train(first.model_copy(update={"home": home}), worker, seconds)

        uncut = run(UNCUT)
        cut = [(seconds, run(seconds)) for seconds in lengths]
    print(f"{machine()}; {options.threads} threads, {steps} steps\n")
    report(uncut, cut)


if __name__ == "__main__":
    main()
