"""Pick-a-Pic v2: the columns, their types and their order as published; jpg_0 and jpg_1 hold the PNG files as they are.

PNG and not JPEG: readers tell them apart by their first bytes, and nothing of the picture is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC

from dmpo_app.domain.vote import Outcome
from dmpo_app.exchange.exporting.export_rows import WINS, Column, Context, Judgement, Row
from dmpo_app.exchange.exporting.selection import Rows
from dmpo_app.store.voting.judgements import GivenVote, JudgedPair

_SEVERAL = -1

_COLUMNS = (
    Column("are_different", "bool", "whether the two files differ"),
    Column("best_image_uid", "string", "the preferred image's uid, or `tie`"),
    Column("caption", "string", "the prompt"),
    Column("created_at", "timestamp[ns]", "when the (last) vote was given, UTC"),
    Column("has_label", "bool", "always true: what was not judged is not exported"),
    Column("image_0_uid", "string", "sha256 of the first image's file"),
    Column("image_0_url", "string", "empty: the images are stored nowhere else"),
    Column("image_1_uid", "string", "sha256 of the second image's file"),
    Column("image_1_url", "string", "empty"),
    Column("jpg_0", "binary", "the first image, a PNG file"),
    Column("jpg_1", "binary", "the second image, a PNG file"),
    Column("label_0", "float64", "1 preferred, 0 not, 0.5 a tie"),
    Column("label_1", "float64", "1 - label_0"),
    Column("model_0", "string", "what made the first image: base model and adapter version"),
    Column("model_1", "string", "what made the second image"),
    Column("ranking_id", "int64", "the vote's number; the pair's, where a row is a pair"),
    Column("user_id", "int64", "the annotator's keyed hash as a number; -1 for several"),
    Column("num_example_per_prompt", "int64", "rows with this prompt in the whole export"),
    Column("__index_level_0__", "int64", "the same as ranking_id"),
)


class PickAPic:
    name = "pick-a-pic"
    description = "Pick-a-Pic v2 parquet: caption, jpg_0, jpg_1, label_0, label_1 and what goes with them"
    suffix = ".parquet"
    default_rows: Rows = "votes"
    is_raw = False
    default_images = True
    holds_ties = True
    counts_prompts = True

    def columns(self, context: Context) -> Sequence[Column]:
        return [one for one in _COLUMNS if context.image is not None or one.kind != "binary"]

    def row(self, pair: JudgedPair, judgement: Judgement, context: Context) -> Row:
        a, b, wins = pair.image_a, pair.image_b, WINS[judgement.outcome]
        number = judgement.votes[0].id if context.rows == "votes" else pair.id
        row = {
            "are_different": a.sha256 != b.sha256,
            "best_image_uid": {Outcome.A: a.sha256, Outcome.B: b.sha256}.get(judgement.outcome, "tie"),
            "caption": pair.prompt,
            "created_at": max(vote.at for vote in judgement.votes).astimezone(UTC).replace(tzinfo=None),
            "has_label": True,
            "image_0_uid": a.sha256,
            "image_0_url": "",
            "image_1_uid": b.sha256,
            "image_1_url": "",
            "label_0": wins,
            "label_1": 1 - wins,
            "model_0": context.model(pair, a),
            "model_1": context.model(pair, b),
            "ranking_id": number,
            "user_id": _user(judgement.votes, context),
            "num_example_per_prompt": context.rows_of_prompt[pair.prompt],
            "__index_level_0__": number,
        }
        if context.image is None:
            return row
        return row | {"jpg_0": context.image(a.sha256), "jpg_1": context.image(b.sha256)}


def _user(votes: Sequence[GivenVote], context: Context) -> int:
    names = {context.name_of(vote.annotator_id) for vote in votes}
    return int(names.pop(), 16) if len(names) == 1 else _SEVERAL
