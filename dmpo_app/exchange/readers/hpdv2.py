"""HPDv2 (Wu et al. 2023, arXiv 2306.09341): JSON beside folders of images.

train.json has two images a row under `file_path` and says by `human_preference` which one was preferred. test.json has
several under `image_path` and `rank`, a lower rank being better: every two of them are a pair. The consensus of its
annotators counts as one vote; it is not the same as that many people agreeing on each pair.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import combinations
from typing import Any

from dmpo_app.exchange.readers.pair import Reason
from dmpo_app.exchange.readers.reader import Judgement, Row, wins_from_scores


class HPDv2:
    name = "hpdv2"
    description = "HPDv2: train.json (file_path, human_preference) and test.json (image_path, rank)"

    def detect(self, columns: Collection[str]) -> bool:
        return {"prompt", "file_path", "human_preference"} <= set(columns) or {"prompt", "image_path", "rank"} <= set(
            columns
        )

    def judgements(self, row: Row) -> Iterable[Judgement]:
        if "human_preference" in row:
            path_a, path_b = row["file_path"]
            yield Judgement(row["prompt"], path_a, path_b, _preference(row["human_preference"]))
            return
        ranks, paths = row["rank"], row["image_path"]
        if ranks is None:
            ranks = [None] * len(paths)
        for (path_a, rank_a), (path_b, rank_b) in combinations(zip(paths, ranks, strict=True), 2):
            yield Judgement(row["prompt"], path_a, path_b, _by_rank(rank_a, rank_b))


def _preference(labels: Any) -> float | Reason:
    if not labels:
        return Reason.MISSING_LABEL
    label_a, label_b = labels
    return wins_from_scores(label_a, label_b)


def _by_rank(rank_a: int | None, rank_b: int | None) -> float | Reason:
    if rank_a is None or rank_b is None:
        return Reason.MISSING_LABEL
    return 0.5 if rank_a == rank_b else float(rank_a < rank_b)
