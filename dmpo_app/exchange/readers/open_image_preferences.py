"""open-image-preferences-v1-binarized: chosen and rejected images with the models that made them."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from dmpo_app.exchange.readers.reader import Facts, Judgement, Row


class OpenImagePreferences:
    name = "open-image-preferences"
    description = "open-image-preferences-v1-binarized: prompt, chosen, rejected, chosen_model, rejected_model"

    def detect(self, columns: Collection[str]) -> bool:
        return {"chosen", "rejected", "chosen_model", "rejected_model"} <= set(columns)

    def judgements(self, row: Row) -> Iterable[Judgement]:
        # In the results variant `prompt` is the prompt's embedding and the text has another name.
        facts = Facts(made_a={"model": row.get("chosen_model")}, made_b={"model": row.get("rejected_model")})
        yield Judgement(row.get("images.prompt") or row["prompt"], row["chosen"], row["rejected"], 1.0, facts=facts)
