"""Time and memory that a round's data set takes to build from many votes: it must not hold the images.

    python -m benchmarks.dataset_size [--votes 100000] [--images 2000 200000]

Each size is a home of its own in a process of its own: `--votes` votes on pairs whose rows are all there and whose
files are a few that all of them share. Built with few images and with many: memory may grow by the names of their
files, not by what is in them. Then batches are read, as a round does.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import torch
from sqlalchemy import Connection, insert

from benchmarks.report import machine, print_table
from dmpo_app.diffusion.tensor_files import dump_conditioning, dump_latents
from dmpo_app.domain.lineage import ImageKind, NewImage, NewPair, PairSource, Provenance
from dmpo_app.domain.vote import Choice, Outcome, Question
from dmpo_app.store import Store
from dmpo_app.store.schema import AnnotatorRow, AssignmentRow, AssignmentState, ImageRow, PairRow, VoteRow
from dmpo_app.store.store import utc_now
from dmpo_app.training.data.dataset import build_dataset

LATENTS, EMBEDS = (4, 64, 64), (77, 768)
"""What an image of Stable Diffusion 1.5 has at 512 pixels."""
NUM_PROMPTS = 500
BATCH = 8


def fill(store: Store, num_votes: int, num_pairs: int) -> None:
    """A lineage with that many votes on that many pairs, written as rows: asking the store for each takes minutes."""
    base = store.models.register("benchmark", "stable_diffusion", "f" * 64)
    generator = torch.Generator().manual_seed(0)
    provenance = Provenance("prompt 0", 0, "ddim", 30, 7.5, 0, 1.0, 2, 1, "cpu", "float32")
    images = [
        NewImage(b"png", 512, 512, provenance, dump_latents(torch.randn(LATENTS, generator=generator)))
        for _ in range(2)
    ]
    embeds = dump_conditioning({"prompt_embeds": torch.randn(EMBEDS, generator=generator)})
    first = store.pairs.add(base, NewPair("prompt 0", images[0], images[1], embeds, PairSource.POOL))
    prompts = store.prompts.ensure([f"prompt {n}" for n in range(NUM_PROMPTS)], held_out=False)

    def write(connection: Connection) -> None:
        now = utc_now()
        image = connection.execute(ImageRow.__table__.select().where(ImageRow.id == first.image_a.id)).one()._asdict()
        copies = [{**image, "id": 10 + n, "kind": ImageKind.PAIR} for n in range(2 * num_pairs)]
        _insert(connection, ImageRow, copies)
        pair = {"base_id": base.id, "source": PairSource.POOL, "adapter_version": 0, "created_at": now}
        pair |= {"prompt_id": prompts[0].id, "num_votes": 1, "num_taken": 1}
        _insert(
            connection,
            PairRow,
            [{**pair, "id": 10 + n, "image_a_id": 10 + 2 * n, "image_b_id": 11 + 2 * n} for n in range(num_pairs)],
        )
        annotators = -(-num_votes // num_pairs)
        _insert(
            connection,
            AnnotatorRow,
            [{"id": 10 + n, "public_id": f"p{n}", "handle": "", "created_at": now} for n in range(annotators)],
        )
        votes = [(n, 10 + n % num_pairs, 10 + n // num_pairs) for n in range(num_votes)]
        _insert(connection, AssignmentRow, [_assignment(*vote, base.id) for vote in votes])
        _insert(connection, VoteRow, [_vote(*vote, base.id) for vote in votes])

    store.database.write(write)


def _assignment(number: int, pair: int, annotator: int, base: int) -> dict[str, object]:
    now = utc_now()
    return {
        "id": 10 + number,
        "public_id": f"a{number}",
        "base_id": base,
        "annotator_id": annotator,
        "pair_id": pair,
        "question": next(iter(Question)),
        "a_on_left": True,
        "state": AssignmentState.ANSWERED,
        "created_at": now,
        "opened_at": now,
        "expires_at": now,
    }


def _vote(number: int, pair: int, annotator: int, base: int) -> dict[str, object]:
    return {
        "assignment_id": 10 + number,
        "base_id": base,
        "annotator_id": annotator,
        "pair_id": pair,
        "choice": Choice.LEFT,
        "outcome": Outcome.A if number % 3 else Outcome.B,
        "elapsed_ms": 1000,
        "created_at": utc_now(),
        "undone_at": None,
    }


def _insert(connection: Connection, table: type[object], rows: list[dict[str, object]]) -> None:
    for start in range(0, len(rows), 10_000):
        connection.execute(insert(table), rows[start : start + 10_000])


def measure(home: Path) -> None:
    """Build the data set of a filled home and read batches of it; prints seconds and resident memory."""
    process = psutil.Process()
    with Store.open(home) as store:
        base = store.models.register("benchmark", "stable_diffusion", "f" * 64)
        before = process.memory_info().rss
        started = time.perf_counter()
        dataset = build_dataset(store.votes.training_votes(base), store.files, alpha=0.05)
        built = time.perf_counter() - started
        after = process.memory_info().rss
        rng, cpu = random.Random(0), torch.device("cpu")
        started = time.perf_counter()
        for _ in range(100):
            pairs = [rng.randrange(len(dataset)) for _ in range(BATCH)]
            dataset.latents(pairs, cpu)
            dataset.conditioning(pairs, cpu)
        read = (time.perf_counter() - started) / 100
        end = process.memory_info().rss
    print(f"{len(dataset)} {built:.3f} {(after - before) / 1e6:.0f} {(end - after) / 1e6:.0f} {read * 1e3:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--votes", type=int, default=100_000)
    parser.add_argument("--images", type=int, nargs="+", default=[2_000, 200_000])
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure)
        return
    rows = []
    for images in arguments.images:
        with tempfile.TemporaryDirectory() as folder:
            with Store.open(Path(folder)) as store:
                fill(store, arguments.votes, images // 2)
            command = [sys.executable, "-m", "benchmarks.dataset_size", "--measure", folder]
            words = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        rows.append([f"{arguments.votes:,}", f"{images:,}", *words[1:]])
    print(f"\n{machine()}\n")
    print_table(["votes", "images", "built in, s", "for it, MB", "for 100 batches, MB", "a batch of 8, ms"], rows)


if __name__ == "__main__":
    main()
