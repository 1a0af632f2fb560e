"""Rows of prompt, chosen and rejected: as trainers take them, and as open-image-preferences-v1-binarized has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dmpo_app.domain.image import ImageRef
from dmpo_app.domain.vote import Outcome
from dmpo_app.exchange.exporting.export_rows import Column, Context, Judgement, Row
from dmpo_app.exchange.exporting.selection import Rows
from dmpo_app.store.voting.judgements import JudgedPair

_PREFERENCE = (
    Column("prompt", "string", "what both images were made of"),
    Column("chosen", "image", "the preferred image, a PNG file; its name is its sha256"),
    Column("rejected", "image", "the other one"),
)


class ChosenRejected:
    name = "chosen-rejected"
    description = "parquet of prompt, chosen, rejected, as trainers take it, with votes and agreement"
    suffix = ".parquet"
    default_rows: Rows = "pairs"
    is_raw = False
    default_images = True
    holds_ties = False
    counts_prompts = False

    def columns(self, context: Context) -> Sequence[Column]:  # noqa: ARG002 - the same with and without images
        return (
            *_PREFERENCE,
            Column("num_votes", "int64", "votes behind this row that say something"),
            Column("agreement", "float64", "share of them for the chosen image, or its probability where so decided"),
        )

    def row(self, pair: JudgedPair, judgement: Judgement, context: Context) -> Row:
        verdict = judgement.verdict
        return _preference(pair, judgement, context)[0] | {
            "num_votes": verdict.num_votes,
            "agreement": verdict.agreement,
        }


class OpenImagePreferences:
    name = "open-image-preferences"
    description = "open-image-preferences-v1-binarized parquet: prompt, chosen, rejected, their models"
    suffix = ".parquet"
    default_rows: Rows = "pairs"
    is_raw = False
    default_images = True
    holds_ties = False
    counts_prompts = False

    def columns(self, context: Context) -> Sequence[Column]:  # noqa: ARG002 - the same with and without images
        return (
            Column("id", "int64", "the pair's number; the vote's, where a row is a vote"),
            *_PREFERENCE,
            Column("chosen_model", "string", "what made the chosen image: base model and adapter version"),
            Column("rejected_model", "string", "what made the other one"),
            Column("evolution", "string", "empty: prompts are not rewritten here"),
            Column("category", "string", "empty"),
            Column("sub_category", "string", "empty"),
        )

    def row(self, pair: JudgedPair, judgement: Judgement, context: Context) -> Row:
        row, chosen, rejected = _preference(pair, judgement, context)
        return row | {
            "id": judgement.votes[0].id if context.rows == "votes" else pair.id,
            "chosen_model": context.model(pair, chosen),
            "rejected_model": context.model(pair, rejected),
            "evolution": "",
            "category": "",
            "sub_category": "",
        }


def _preference(pair: JudgedPair, judgement: Judgement, context: Context) -> tuple[dict[str, Any], ImageRef, ImageRef]:
    chosen, rejected = pair.image_a, pair.image_b
    if judgement.outcome is Outcome.B:
        chosen, rejected = rejected, chosen
    row = {"prompt": pair.prompt, "chosen": _cell(chosen, context), "rejected": _cell(rejected, context)}
    return row, chosen, rejected


def _cell(image: ImageRef, context: Context) -> dict[str, bytes | str | None]:
    content = None if context.image is None else context.image(image.sha256)
    return {"bytes": content, "path": f"{image.sha256}.png"}
