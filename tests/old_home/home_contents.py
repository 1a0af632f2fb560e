"""Reading what an old home, its exports and its checkpoints hold, for the script that made it and for its tests."""

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors import safe_open

from dmpo_app.exchange.readers.reader import PreferencePair, read_row
from dmpo_app.exchange.readers.registry import detect_reader, open_source


def checkpoint_facts(folder: Path) -> dict[str, Any]:
    """A checkpoint's metadata: its step, and the plan that it belongs to."""
    with safe_open(folder / "checkpoint.safetensors", framework="pt") as file:
        facts: dict[str, Any] = json.loads(file.metadata()["state"])
    return facts


def judgements_in(data: Path) -> list[list[Any]]:
    """Every row of an export as the readers of preference data have it, an image by its hash."""
    source = open_source(str(data))
    reader = detect_reader(source.columns, source.name)
    read = [
        one for number, row in enumerate(source.open()) for one in read_row(reader, row, str(number), source.folder)
    ]
    return [_facts(one) if isinstance(one, PreferencePair) else [one.source_id, one.reason.value] for one in read]


def _facts(pair: PreferencePair) -> list[Any]:
    images = [hashlib.sha256(image).hexdigest() for image in (pair.image_a, pair.image_b)]
    return [pair.source_id, pair.prompt, *images, pair.wins_a, pair.num_votes]
