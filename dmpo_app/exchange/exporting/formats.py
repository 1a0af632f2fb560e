"""Export formats: raw votes, Pick-a-Pic, chosen/rejected, open-image-preferences.

PNG and not JPEG: readers tell them apart by their first bytes, and nothing of the picture is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from typing import Any

from dmpo_app.domain.image import ImageRef
from dmpo_app.domain.vote import Outcome
from dmpo_app.errors import BadInput
from dmpo_app.exchange.exporting.export_rows import WINS, Column, Context, Format, Judgement, Row, Rows
from dmpo_app.store.voting.judgements import GivenVote, JudgedPair

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


FORMATS: Sequence[Format] = (
    PickAPic(),
    OpenImagePreferences(),
    ChosenRejected(),
    RawVotes(
        "votes-jsonl", ".jsonl", "raw votes, a line of JSON each: choice, order shown, time, how images were made"
    ),
    RawVotes("votes-csv", ".csv", "the same as a table that no spreadsheet takes for formulas"),
)


def format_named(name: str) -> Format:
    """Raises BadInput that names those there are."""
    for one in FORMATS:
        if one.name == name:
            return one
    known = "\n".join(f"  {one.name}: {one.description}" for one in FORMATS)
    raise BadInput(f"there is no export format {name!r}; there are\n{known}")
