"""Formats whose rows are pairs: Pick-a-Pic, chosen/rejected columns, HPDv3 and others, a studio's raw votes.

Pick-a-Pic is of Kirstain et al. 2023 (arXiv 2305.01569). Its `_no_images` variants hold addresses instead of images;
nothing is fetched from there, every row counts as without image bytes.

In raw votes, answers on gold pairs, repeats and duels say how good votes and versions are and are no preferences to
learn from; they are left out.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from dmpo_app.exchange.readers.reader import LeftOutReason, Row, RowMetadata, RowPair, has_columns, wins_from_scores


class PickAPicReader:
    name = "pick-a-pic"
    description = "Pick-a-Pic v1, v2: caption, jpg_0, jpg_1, label_0, label_1"
    columns = (frozenset({"caption", "label_0", "label_1"}),)
    extras: frozenset[str] | None = frozenset((
        "has_label", "user_id", "created_at", "jpg_0", "jpg_1", "model_0", "model_1", "image_0_uid", "image_1_uid",
    ))  # fmt: skip

    def detect(self, columns: Collection[str]) -> bool:
        return has_columns(self, columns)

    def read_pairs(self, row: Row) -> Iterable[RowPair]:
        wins = (
            wins_from_scores(row["label_0"], row["label_1"])
            if row.get("has_label", True)
            else LeftOutReason.MISSING_LABEL
        )
        metadata = RowMetadata(
            annotator=row.get("user_id"),
            given_at=row.get("created_at"),
            a_on_left=True,
            provenance_a={"model": row.get("model_0"), "uid": row.get("image_0_uid")},
            provenance_b={"model": row.get("model_1"), "uid": row.get("image_1_uid")},
        )
        yield RowPair(row["caption"], row.get("jpg_0"), row.get("jpg_1"), wins, metadata=metadata)


class ChosenRejectedReader:
    name = "chosen-rejected"
    description = "prompt, chosen, rejected"
    columns = (frozenset({"prompt", "chosen", "rejected"}),)
    extras: frozenset[str] | None = frozenset()

    def detect(self, columns: Collection[str]) -> bool:
        return has_columns(self, columns)

    def read_pairs(self, row: Row) -> Iterable[RowPair]:
        yield RowPair(row["prompt"], row["chosen"], row["rejected"], 1.0)


class HPDv3Reader:
    name = "hpdv3"
    description = "HPDv3: prompt, path1 (preferred), path2"
    columns = (frozenset({"prompt", "path1", "path2"}),)
    extras: frozenset[str] | None = frozenset({"model1", "model2"})

    def detect(self, columns: Collection[str]) -> bool:
        return has_columns(self, columns)

    def read_pairs(self, row: Row) -> Iterable[RowPair]:
        metadata = RowMetadata(provenance_a={"model": row.get("model1")}, provenance_b={"model": row.get("model2")})
        yield RowPair(row["prompt"], row["path1"], row["path2"], 1.0, metadata=metadata)


class OpenImagePreferencesReader:
    name = "open-image-preferences"
    description = "open-image-preferences-v1-binarized: prompt, chosen, rejected, chosen_model, rejected_model"
    columns = (frozenset({"chosen", "rejected", "chosen_model", "rejected_model"}),)
    extras: frozenset[str] | None = frozenset({"prompt", "images.prompt"})

    def detect(self, columns: Collection[str]) -> bool:
        return has_columns(self, columns)

    def read_pairs(self, row: Row) -> Iterable[RowPair]:
        # In the results variant `prompt` is the prompt's embedding and the text has another name.
        metadata = RowMetadata(
            provenance_a={"model": row.get("chosen_model")}, provenance_b={"model": row.get("rejected_model")}
        )
        yield RowPair(row.get("images.prompt") or row["prompt"], row["chosen"], row["rejected"], 1.0, metadata=metadata)


class PairsJsonlReader:
    name = "pairs-jsonl"
    description = "image_0, image_1, prompt, prefer_0, prefer_1"
    columns = (frozenset({"prompt", "image_0", "image_1", "prefer_0", "prefer_1"}),)
    extras: frozenset[str] | None = frozenset()

    def detect(self, columns: Collection[str]) -> bool:
        return has_columns(self, columns)

    def read_pairs(self, row: Row) -> Iterable[RowPair]:
        wins = wins_from_scores(row["prefer_0"], row["prefer_1"])
        yield RowPair(row["prompt"], row["image_0"], row["image_1"], wins)


_WINS = {"a": 1.0, "b": 0.0, "tie": 0.5}


class StudioVotesReader:
    name = "studio-votes"
    description = "raw votes of DMPO Studio: prompt, outcome, image_a, image_b, annotator, question"
    columns = (frozenset({"prompt", "outcome", "image_a", "image_b"}),)
    extras: frozenset[str] | None = frozenset((
        "purpose", "annotator", "question", "strength", "comment", "elapsed_ms", "a_on_left", "created_at",
    ))  # fmt: skip

    def detect(self, columns: Collection[str]) -> bool:
        return has_columns(self, columns)

    def read_pairs(self, row: Row) -> Iterable[RowPair]:
        if (row.get("purpose") or "vote") != "vote":
            return
        image_a, image_b, outcome = row["image_a"], row["image_b"], row["outcome"]
        metadata = RowMetadata(
            annotator=row.get("annotator"),
            question=row.get("question"),
            outcome=outcome,
            strength=row.get("strength"),
            comment=row.get("comment"),
            elapsed_ms=row.get("elapsed_ms"),
            a_on_left=row.get("a_on_left"),
            given_at=row.get("created_at"),
            provenance_a=_provenance(image_a),
            provenance_b=_provenance(image_b),
        )
        wins = LeftOutReason.MISSING_LABEL if outcome is None else _WINS.get(outcome, LeftOutReason.UNCLEAR_LABEL)
        yield RowPair(row["prompt"], _file_path(image_a), _file_path(image_b), wins, metadata=metadata)


def _file_path(image: Mapping[str, Any]) -> object:
    return image.get("file") or f"images/{image['sha256']}.png"


def _provenance(image: Mapping[str, Any]) -> dict[str, object]:
    return {name: value for name, value in image.items() if name not in ("file", "bytes")}
