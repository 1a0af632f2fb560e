"""Hit rate of the reference cache, counted from the examples that rounds draw.

    python -m benchmarks.hit_rates

A vote is on a pair of its own. Rounds come after every so many votes and draw as `RoundTrainer` does; what is kept from
the lineage's earlier rounds and from finding beta is counted as known. No model is run.
"""

import argparse
import random
from dataclasses import dataclass

from benchmarks.report import print_table
from dmpo_app.server.wiring import read_prompts
from dmpo_app.settings import RoundSettings, Settings
from dmpo_app.training.data.dataset import is_held_out
from dmpo_app.training.data.training_examples import evaluation_slots, examples_for_step, keyed_seed
from dmpo_app.training.reference.calibration import MAX_PAIRS


@dataclass(frozen=True, slots=True)
class Hits:
    """Hit rates of one round.

    `draws`: share of a round's draws whose errors were known when their step came. `steps`: share of its steps that
    needed no pass of the base model; a step with one unknown draw needs a whole one. `passes` is how many were needed,
    `packed_passes` how many the same unknown draws would have taken in full batches.
    """

    draws: float
    steps: float
    passes: int
    packed_passes: int


def hits_of_round(
    number: int, votes_a_round: int, settings: RoundSettings, prompts: list[str], *, filler: bool
) -> Hits:
    """Round `number` (from 1) of a lineage that trains after every `votes_a_round` votes.

    `filler`: the trainer had the time between the votes to prepare the references of every vote but the last.
    """
    rng = random.Random(settings.seed)
    of_pair = [prompts[rng.randrange(len(prompts))] for _ in range(number * votes_a_round)]
    slots = range(settings.slots_per_pair)
    known: set[tuple[int, int]] = set()
    for round_number in range(1, number + 1):
        pairs = range(round_number * votes_a_round)
        first = pairs[:MAX_PAIRS]
        known |= {(pair, slot) for pair in first for slot in evaluation_slots(settings.slots_per_pair)}
        if filler:
            known |= {(pair, slot) for pair in pairs[:-1] for slot in slots}
        train = [p for p in pairs if not is_held_out(of_pair[p], share=settings.held_out_share, seed=settings.seed)]
        hits = _run(round_number, train, settings, known)
    return hits


def _run(number: int, train: list[int], settings: RoundSettings, known: set[tuple[int, int]]) -> Hits:
    """One round; what it computes is known afterwards."""
    num_hits, passes, unknown = 0, 0, 0
    for step in range(settings.num_steps):
        draws = examples_for_step(
            step,
            num_pairs=len(train),
            batch_pairs=settings.batch_pairs,
            num_slots=settings.slots_per_pair,
            seed=keyed_seed(settings.seed, "round", number) % 2**31,
        )
        keys = {(train[draw.pair], draw.slot) for draw in draws}
        num_hits += sum((train[draw.pair], draw.slot) in known for draw in draws)
        passes += not keys <= known
        unknown += len(keys - known)
        known |= keys
    num_draws = settings.num_steps * settings.batch_pairs
    return Hits(
        draws=num_hits / num_draws,
        steps=1 - passes / settings.num_steps,
        passes=passes,
        packed_passes=-(-unknown // settings.batch_pairs),
    )


CASES = (
    ("first round, 48 votes", 1, 48),
    ("first round, 96 votes", 1, 96),
    ("tenth round, 48 votes each", 10, 48),
)


def hit_table(settings: RoundSettings) -> dict[tuple[str, bool], Hits]:
    """By case and whether the filler had time."""
    prompts = read_prompts(Settings().pool.train_prompts)
    return {
        (name, filler): hits_of_round(number, votes, settings, prompts, filler=filler)
        for name, number, votes in CASES
        for filler in (False, True)
    }


def print_hits(table: dict[tuple[str, bool], Hits]) -> None:
    rows = [
        (name, "yes" if filler else "no", f"{hits.draws:.0%}", f"{hits.steps:.0%}", hits.passes, hits.packed_passes)
        for (name, filler), hits in table.items()
    ]
    header = ("round", "prepared between votes", "draws known", "steps without a base pass", "base passes", "packed")
    print_table(header, rows)


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print_hits(hit_table(Settings().round))


if __name__ == "__main__":
    main()
