"""Votes as they were given, with everything that is known about their images, as lines of JSON or as a table."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from typing import Any

from dmpo_app.domain.image import ImageRef
from dmpo_app.exchange.exporting.export_rows import Column, Context, Judgement, Row
from dmpo_app.exchange.exporting.selection import Rows
from dmpo_app.store.voting.judgements import JudgedPair

_VOTE = (
    Column("vote", "int64", "the vote's number, in the order they were given"),
    Column("pair", "int64", "the pair's number"),
    Column("prompt", "string", "what both images were made of"),
    Column("question", "string", "`overall`, `appeal` or `fit`: which image is better, looks better, fits better"),
    Column("choice", "string", "as given: `left`, `right`, `tie`, `both_bad` or `skip`"),
    Column("outcome", "string", "the same in terms of the images: `a`, `b`, `tie`, `both_bad` or `skip`"),
    Column("a_on_left", "bool", "the order shown: whether image a stood on the left"),
    Column("annotator", "string", "keyed hash of the annotator, 12 hexadecimal digits"),
    Column("created_at", "string", "when, UTC"),
    Column("elapsed_ms", "int64", "from showing to answer; 0 was not told"),
    Column("strength", "string", "`slightly` or `clearly`, where it was asked for"),
    Column(
        "purpose", "string", "`vote`; `gold`: the right answer is known; `repeat`: judged by the same person before"
    ),
    Column("gold", "string", "the right answer of a gold pair, `a`, `b` or `tie`"),
    Column("reported", "bool", "whether somebody said that the pair should not be shown"),
    Column("source", "string", "where the pair comes from"),
)
_COMMENT = Column("comment", "string", "what the annotator wrote")
_IMAGE = (
    Column("sha256", "string", "of the image's file"),
    Column("file", "string", "where the file is in this data set; empty without images"),
    Column("width", "int64", "pixels"),
    Column("height", "int64", "pixels"),
    Column("base_model", "string", "the model it was made with"),
    Column("base_fingerprint", "string", "sha256 over the model's configuration and weights"),
    Column("adapter_version", "int64", "0 is the base model alone"),
    Column("adapter_strength", "float64", "1 is the adapter as trained"),
    Column("seed", "int64", ""),
    Column("sampler", "string", ""),
    Column("num_steps", "int64", "denoising steps"),
    Column("guidance", "float64", "guidance scale"),
    Column("batch_size", "int64", "the last bits of an image depend on this and the next three"),
    Column("num_threads", "int64", ""),
    Column("device", "string", ""),
    Column("dtype", "string", ""),
)


class RawVotes:
    default_rows: Rows = "votes"
    is_raw = True
    default_images = False
    holds_ties = True
    counts_prompts = False

    def __init__(self, name: str, suffix: str, description: str) -> None:
        self.name = name
        self.suffix = suffix
        self.description = description

    def columns(self, context: Context) -> Sequence[Column]:
        """With what is said of each image as columns of their own, which they are in the table."""
        dot = "_" if self.suffix == ".csv" else "."
        images = [
            Column(f"image_{side}{dot}{one.name}", one.kind, one.meaning) for side in ("a", "b") for one in _IMAGE
        ]
        return (*_VOTE, *([_COMMENT] if context.comments else []), *images)

    def row(self, pair: JudgedPair, judgement: Judgement, context: Context) -> Row:
        vote = judgement.votes[0]
        row = {
            "vote": vote.id,
            "pair": pair.id,
            "prompt": pair.prompt,
            "question": vote.question.value,
            "choice": vote.choice.value,
            "outcome": vote.outcome.value,
            "a_on_left": vote.a_on_left,
            "annotator": context.name_of(vote.annotator_id),
            "created_at": vote.at.astimezone(UTC).isoformat(),
            "elapsed_ms": vote.elapsed_ms,
            "strength": None if vote.strength is None else vote.strength.value,
            "purpose": vote.purpose.value,
            "gold": None if pair.gold is None else pair.gold.value,
            "reported": pair.reported,
            "source": pair.source.value,
        }
        if context.comments:
            row["comment"] = vote.comment
        return row | {f"image_{side}": _made(pair, image, context) for side, image in _images(pair)}


def _images(pair: JudgedPair) -> Sequence[tuple[str, ImageRef]]:
    return (("a", pair.image_a), ("b", pair.image_b))


def _made(pair: JudgedPair, image: ImageRef, context: Context) -> dict[str, Any]:
    made = image.provenance
    return {
        "sha256": image.sha256,
        "file": None if context.image_file is None else context.image_file(image.sha256),
        "width": image.width,
        "height": image.height,
        "base_model": context.base_model(pair, image),
        "base_fingerprint": context.base.fingerprint,
        "adapter_version": made.adapter_version,
        "adapter_strength": made.strength,
        "seed": made.seed,
        "sampler": made.sampler,
        "num_steps": made.num_steps,
        "guidance": made.guidance,
        "batch_size": made.batch_size,
        "num_threads": made.num_threads,
        "device": made.device,
        "dtype": made.dtype,
    }
