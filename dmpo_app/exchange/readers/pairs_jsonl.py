"""JSONL with image_0, image_1, prompt, prefer_0 and prefer_1, as some trainers take it."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from dmpo_app.exchange.readers.reader import Judgement, Row, wins_from_scores


class PairsJsonl:
    name = "pairs-jsonl"
    description = "image_0, image_1, prompt, prefer_0, prefer_1"

    def detect(self, columns: Collection[str]) -> bool:
        return {"prompt", "image_0", "image_1", "prefer_0", "prefer_1"} <= set(columns)

    def judgements(self, row: Row) -> Iterable[Judgement]:
        wins = wins_from_scores(row["prefer_0"], row["prefer_1"])
        yield Judgement(row["prompt"], row["image_0"], row["image_1"], wins)
