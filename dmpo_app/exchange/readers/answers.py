"""What labeling tools call the possible answers, since everybody who sets one up names them anew."""

from __future__ import annotations

import re
from collections.abc import Mapping

from dmpo_app.exchange.readers.pair import Reason

TIE, BOTH_BAD, SKIP = "tie", "both_bad", "skip"
_A = frozenset({"a", "left", "1", "first", "image_a", "image_1", "image1", "image_left", "left_image", "option_1"})
_B = frozenset({"b", "right", "2", "second", "image_b", "image_2", "image2", "image_right", "right_image", "option_2"})
_TIE = frozenset({"tie", "equal", "same", "draw", "both", "both_good", "no_preference", "no_difference", "similar"})
_BAD = frozenset({"both_bad", "neither", "none", "bad"})
_IMAGE = re.compile(r"\.(png|jpe?g|webp)$", re.IGNORECASE)
_PROMPTS = ("prompt", "caption", "text", "instruction", "images.prompt")


def answer_of(value: object, name_a: str, name_b: str) -> tuple[float | Reason, str | None]:
    """(wins of a, outcome where that cannot hold it) of a label, or of a ranking: [{"value": name, "rank": 1}, ...].

    `name_a` and `name_b`: what the images are called in the row.
    """
    if isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
        ranks = {str(one.get("value")): one.get("rank") for one in value}
        rank_a, rank_b = ranks.get(name_a), ranks.get(name_b)
        if not (isinstance(rank_a, int) and isinstance(rank_b, int)):
            return Reason.UNCLEAR_LABEL, None
        return (0.5 if rank_a == rank_b else float(rank_a < rank_b)), None
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    said = re.sub(r"[^a-z0-9]+", "_", str(value).lower()).strip("_")
    for names, wins in (({_plain(name_a)}, 1.0), ({_plain(name_b)}, 0.0), (_A, 1.0), (_B, 0.0), (_TIE, 0.5)):
        if said in names:
            return wins, None
    return Reason.UNCLEAR_LABEL, BOTH_BAD if said in _BAD else None


def two_images(cells: Mapping[str, object]) -> tuple[str, str]:
    """The names of the two cells that hold images, in alphabetical order. Raises ValueError when there are not two."""
    names = sorted(name for name, cell in cells.items() if _is_image(cell))
    if len(names) != 2:
        raise ValueError(f"{len(names)} images, expected 2")
    return names[0], names[1]


def prompt_among(cells: Mapping[str, object], images: tuple[str, str]) -> object:
    """The cell that holds the prompt: the one that is called so, else the only other text. None: there is none."""
    for name in _PROMPTS:
        if isinstance(cells.get(name), str):
            return cells[name]
    others = [cell for name, cell in cells.items() if isinstance(cell, str) and name not in images]
    return others[0] if len(others) == 1 else None


def _is_image(cell: object) -> bool:
    if isinstance(cell, Mapping):
        return bool(cell.get("bytes") or cell.get("path"))
    if isinstance(cell, bytes):
        return True
    return isinstance(cell, str) and (cell.startswith("data:image/") or bool(_IMAGE.search(cell)))


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
