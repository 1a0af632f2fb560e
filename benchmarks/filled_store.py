"""A store filled with many pairs and votes in seconds, for benchmarks: rows are written as they are."""

import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from PIL import Image
from sqlalchemy import Connection, insert

from dmpo_app.domain.lineage import BaseModelRef, ImageKind, PairSource
from dmpo_app.domain.vote import Choice, Outcome, Question
from dmpo_app.io.files import sha256_hex
from dmpo_app.store import Store
from dmpo_app.store.schema import AnnotatorRow, AssignmentRow, AssignmentState, ImageRow, PairRow, VoteRow

_START = datetime(2026, 1, 1, tzinfo=UTC)
_BATCH = 5_000
_ANSWERS = ((Choice.LEFT, Outcome.A), (Choice.RIGHT, Outcome.B), (Choice.TIE, Outcome.TIE))


def fill(
    store: Store,
    num_pairs: int,
    *,
    size: int | None = None,
    num_annotators: int = 20,
    votes_per_pair: int = 1,
    num_prompts: int = 500,
) -> BaseModelRef:
    """A lineage with judged pairs: 60 % for an image a, 30 % b, 10 % ties.

    `size`: pixels a side of images, each a file of its own; None: no files, every image has a sha256 all the same.
    """
    base = store.models.register("benchmark", "stable_diffusion", "f" * 64)
    prompts = store.prompts.ensure([f"prompt {n} of a filled store" for n in range(num_prompts)], held_out=False)
    texts = [prompt.text for prompt in prompts]
    ids = [prompt.id for prompt in prompts]
    people = [
        {"id": 1 + n, "public_id": f"filled-{n}", "handle": "", "created_at": _START} for n in range(num_annotators)
    ]
    store.database.write(lambda connection: _insert(connection, AnnotatorRow, people))
    for start in range(0, num_pairs, _BATCH):
        numbers = range(start, min(start + _BATCH, num_pairs))
        names = list(_images(store, numbers, size))

        def write(connection: Connection, numbers: range = numbers, names: list[str] = names) -> None:
            images = [
                _image(base, texts[n % num_prompts], 2 * n + side, names[2 * i + side], size or 512)
                for i, n in enumerate(numbers)
                for side in (0, 1)
            ]
            _insert(connection, ImageRow, images)
            _insert(connection, PairRow, [_pair(base, ids[n % num_prompts], n, votes_per_pair) for n in numbers])
            votes = [(n, k) for n in numbers for k in range(votes_per_pair)]
            _insert(
                connection, AssignmentRow, [_assignment(base, *vote, votes_per_pair, num_annotators) for vote in votes]
            )
            _insert(connection, VoteRow, [_vote(base, *vote, votes_per_pair, num_annotators) for vote in votes])

        store.database.write(write)
    return base


def _images(store: Store, numbers: range, size: int | None) -> Iterator[str]:
    for number in range(2 * numbers.start, 2 * numbers.stop):
        if size is None:
            yield f"{number:064x}"
        else:
            content = png_of_noise(number, size)
            name = store.files.image_path(sha256_hex(content))
            name.parent.mkdir(parents=True, exist_ok=True)
            name.write_bytes(content)
            yield name.stem


def png_of_noise(number: int, size: int) -> bytes:
    """A PNG of coarse noise, another one for every number; about as large as a small image of a thing."""
    rng = np.random.default_rng(number)
    coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _image(base: BaseModelRef, prompt: str, number: int, sha256: str, size: int) -> dict[str, Any]:
    return {
        "id": 1 + number,
        "base_id": base.id,
        "kind": ImageKind.PAIR,
        "sha256": sha256,
        "latents_sha256": None,
        "width": size,
        "height": size,
        "prompt": prompt,
        "seed": number,
        "sampler": "ddim",
        "num_steps": 20,
        "guidance": 3.0,
        "adapter_version": 0,
        "strength": 1.0,
        "batch_size": 2,
        "num_threads": 1,
        "device": "cpu",
        "dtype": "float32",
        "created_at": _START,
    }


def _pair(base: BaseModelRef, prompt_id: int, number: int, votes: int) -> dict[str, Any]:
    return {
        "id": 1 + number,
        "base_id": base.id,
        "prompt_id": prompt_id,
        "image_a_id": 1 + 2 * number,
        "image_b_id": 2 + 2 * number,
        "source": PairSource.POOL,
        "adapter_version": 0,
        "num_votes": votes,
        "num_taken": votes,
        "created_at": _START,
    }


def _assignment(base: BaseModelRef, pair: int, turn: int, votes: int, people: int) -> dict[str, Any]:
    at = _START + timedelta(seconds=pair)
    return {
        "id": 1 + pair * votes + turn,
        "public_id": f"filled-{pair}-{turn}",
        "base_id": base.id,
        "annotator_id": 1 + (pair + turn) % people,
        "pair_id": 1 + pair,
        "question": Question.OVERALL,
        "a_on_left": True,
        "state": AssignmentState.ANSWERED,
        "created_at": at,
        "opened_at": at,
        "expires_at": at,
    }


def _vote(base: BaseModelRef, pair: int, turn: int, votes: int, people: int) -> dict[str, Any]:
    choice, outcome = _ANSWERS[(0, 0, 1, 0, 2, 0, 1, 0, 0, 1)[(pair + 3 * turn) % 10]]
    return {
        "id": 1 + pair * votes + turn,
        "assignment_id": 1 + pair * votes + turn,
        "base_id": base.id,
        "annotator_id": 1 + (pair + turn) % people,
        "pair_id": 1 + pair,
        "choice": choice,
        "outcome": outcome,
        "elapsed_ms": 1200,
        "created_at": _START + timedelta(seconds=pair),
        "undone_at": None,
    }


def _insert(connection: Connection, table: type[object], rows: list[dict[str, Any]]) -> None:
    connection.execute(insert(table), rows)
