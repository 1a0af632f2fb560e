"""Pick-a-Pic v1 and v2 (Kirstain et al. 2023, arXiv 2305.01569): a choice or a tie of one person, images as JPEG.

The `_no_images` variants hold addresses instead of images; nothing is fetched from there, every row counts as without
image bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from dmpo_app.exchange.readers.pair import Reason
from dmpo_app.exchange.readers.reader import Facts, Judgement, Row, wins_from_scores


class PickAPic:
    name = "pick-a-pic"
    description = "Pick-a-Pic v1, v2: caption, jpg_0, jpg_1, label_0, label_1"

    def detect(self, columns: Collection[str]) -> bool:
        return {"caption", "label_0", "label_1"} <= set(columns)

    def judgements(self, row: Row) -> Iterable[Judgement]:
        wins = wins_from_scores(row["label_0"], row["label_1"]) if row.get("has_label", True) else Reason.MISSING_LABEL
        facts = Facts(
            annotator=row.get("user_id"),
            given_at=row.get("created_at"),
            a_on_left=True,
            made_a={"model": row.get("model_0"), "uid": row.get("image_0_uid")},
            made_b={"model": row.get("model_1"), "uid": row.get("image_1_uid")},
        )
        yield Judgement(row["caption"], row.get("jpg_0"), row.get("jpg_1"), wins, facts=facts)
