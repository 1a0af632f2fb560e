"""HPDv3: JSON beside folders of images; `path1` is the preferred one."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from dmpo_app.exchange.readers.reader import Facts, Judgement, Row


class HPDv3:
    name = "hpdv3"
    description = "HPDv3: prompt, path1 (preferred), path2"

    def detect(self, columns: Collection[str]) -> bool:
        return {"prompt", "path1", "path2"} <= set(columns)

    def judgements(self, row: Row) -> Iterable[Judgement]:
        facts = Facts(made_a={"model": row.get("model1")}, made_b={"model": row.get("model2")})
        yield Judgement(row["prompt"], row["path1"], row["path2"], 1.0, facts=facts)
