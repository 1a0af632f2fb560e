"""Raw votes of a studio like this one: a line a vote, the images beside it as files named by their sha256.

Answers on gold pairs and repeats say how good the votes are and are no preferences to learn from; they are left out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from dmpo_app.exchange.readers.pair import Reason
from dmpo_app.exchange.readers.reader import Facts, Judgement, Row

_WINS = {"a": 1.0, "b": 0.0, "tie": 0.5}


class StudioVotes:
    name = "studio-votes"
    description = "raw votes of DMPO Studio: prompt, outcome, image_a, image_b, annotator, question"

    def detect(self, columns: Collection[str]) -> bool:
        return {"prompt", "outcome", "image_a", "image_b"} <= set(columns)

    def judgements(self, row: Row) -> Iterable[Judgement]:
        if row.get("purpose", "vote") != "vote":
            return
        image_a, image_b, outcome = row["image_a"], row["image_b"], row["outcome"]
        facts = Facts(
            annotator=row.get("annotator"),
            question=row.get("question"),
            outcome=outcome,
            strength=row.get("strength"),
            comment=row.get("comment"),
            elapsed_ms=row.get("elapsed_ms"),
            a_on_left=row.get("a_on_left"),
            given_at=row.get("created_at"),
            made_a=_made(image_a),
            made_b=_made(image_b),
        )
        wins = Reason.MISSING_LABEL if outcome is None else _WINS.get(outcome, Reason.UNCLEAR_LABEL)
        yield Judgement(row["prompt"], _file(image_a), _file(image_b), wins, facts=facts)


def _file(image: Mapping[str, Any]) -> object:
    return image.get("file") or f"images/{image['sha256']}.png"


def _made(image: Mapping[str, Any]) -> dict[str, object]:
    return {name: value for name, value in image.items() if name not in ("file", "bytes")}
