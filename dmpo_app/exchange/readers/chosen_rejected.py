"""Rows of prompt, chosen and rejected, as trainers take them: the chosen image is image a."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from dmpo_app.exchange.readers.reader import Judgement, Row


class ChosenRejected:
    name = "chosen-rejected"
    description = "prompt, chosen, rejected"

    def detect(self, columns: Collection[str]) -> bool:
        return {"prompt", "chosen", "rejected"} <= set(columns)

    def judgements(self, row: Row) -> Iterable[Judgement]:
        yield Judgement(row["prompt"], row["chosen"], row["rejected"], 1.0)
