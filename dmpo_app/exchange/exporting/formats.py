"""Export formats: raw votes, Pick-a-Pic, chosen/rejected, open-image-preferences.

Pick-a-Pic's jpg_0 and jpg_1 hold PNG and not JPEG: readers tell them apart by their first bytes, and nothing of the
image is lost.
"""

from collections.abc import Sequence
from datetime import UTC
from typing import Any

from dmpo_app.domain.lineage import ImageRef
from dmpo_app.domain.vote import Outcome
from dmpo_app.errors import BadInputError
from dmpo_app.exchange.exporting.export_rows import WINS_OF_A, Column, Format, FormatContext, PairVotes, Row, RowKind
from dmpo_app.store.voting.vote_queries import ExportVote, VotedPair

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
    Column("elapsed_ms", "int64", "from assignment to vote; 0: unknown"),
    Column("strength", "string", "`slightly` or `clearly`, where it was asked for"),
    Column(
        "purpose",
        "string",
        "`vote`; `gold`: the right answer is known; `repeat`: voted on by the same person before; `duel`: a judgement "
        "of two versions, see `adapter_version` of the images",
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


class RawVotesFormat:
    default_rows: RowKind = "votes"
    is_raw = True
    default_images = False
    holds_ties = True
    counts_prompts = False

    def __init__(self, name: str, suffix: str, description: str) -> None:
        self.name = name
        self.suffix = suffix
        self.description = description

    def columns(self, context: FormatContext) -> Sequence[Column]:
        """The columns, with the provenance of each image as columns of their own, which they are in the table."""
        dot = "_" if self.suffix == ".csv" else "."
        images = [
            Column(f"image_{side}{dot}{one.name}", one.kind, one.meaning) for side in ("a", "b") for one in _IMAGE
        ]
        return (*_VOTE, *([_COMMENT] if context.comments else []), *images)

    def row(self, pair: VotedPair, pair_votes: PairVotes, context: FormatContext) -> Row:
        vote = pair_votes.votes[0]
        row = {
            "vote": vote.id,
            "pair": pair.id,
            "prompt": pair.prompt,
            "question": vote.question.value,
            "choice": vote.choice.value,
            "outcome": vote.outcome.value,
            "a_on_left": vote.a_on_left,
            "annotator": context.annotator_name(vote.annotator_id),
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
        return row | {f"image_{side}": _image_cells(pair, image, context) for side, image in _images(pair)}


def _images(pair: VotedPair) -> Sequence[tuple[str, ImageRef]]:
    return (("a", pair.image_a), ("b", pair.image_b))


def _image_cells(pair: VotedPair, image: ImageRef, context: FormatContext) -> dict[str, Any]:
    provenance = image.provenance
    return {
        "sha256": image.sha256,
        "file": None if context.copy_image is None else context.copy_image(image.sha256),
        "width": image.width,
        "height": image.height,
        "base_model": context.base_model(pair, image),
        "base_fingerprint": context.base.fingerprint,
        "adapter_version": provenance.adapter_version,
        "adapter_strength": provenance.strength,
        "seed": provenance.seed,
        "sampler": provenance.sampler,
        "num_steps": provenance.num_steps,
        "guidance": provenance.guidance,
        "batch_size": provenance.batch_size,
        "num_threads": provenance.num_threads,
        "device": provenance.device,
        "dtype": provenance.dtype,
    }


_SEVERAL_USERS = -1

_COLUMNS = (
    Column("are_different", "bool", "whether the two files differ"),
    Column("best_image_uid", "string", "the preferred image's uid, or `tie`"),
    Column("caption", "string", "the prompt"),
    Column("created_at", "timestamp[ns]", "when the (last) vote was given, UTC"),
    Column("has_label", "bool", "always true: pairs without votes are not exported"),
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


class PickAPicFormat:
    name = "pick-a-pic"
    description = "Pick-a-Pic v2 parquet: caption, jpg_0, jpg_1, label_0, label_1 and what goes with them"
    suffix = ".parquet"
    default_rows: RowKind = "votes"
    is_raw = False
    default_images = True
    holds_ties = True
    counts_prompts = True

    def columns(self, context: FormatContext) -> Sequence[Column]:
        return [one for one in _COLUMNS if context.read_image is not None or one.kind != "binary"]

    def row(self, pair: VotedPair, pair_votes: PairVotes, context: FormatContext) -> Row:
        a, b, wins = pair.image_a, pair.image_b, WINS_OF_A[pair_votes.outcome]
        number = pair_votes.votes[0].id if context.rows == "votes" else pair.id
        row = {
            "are_different": a.sha256 != b.sha256,
            "best_image_uid": {Outcome.A: a.sha256, Outcome.B: b.sha256}.get(pair_votes.outcome, "tie"),
            "caption": pair.prompt,
            "created_at": max(vote.at for vote in pair_votes.votes).astimezone(UTC).replace(tzinfo=None),
            "has_label": True,
            "image_0_uid": a.sha256,
            "image_0_url": "",
            "image_1_uid": b.sha256,
            "image_1_url": "",
            "label_0": wins,
            "label_1": 1 - wins,
            "model_0": context.model_with_version(pair, a),
            "model_1": context.model_with_version(pair, b),
            "ranking_id": number,
            "user_id": _user(pair_votes.votes, context),
            "num_example_per_prompt": context.rows_per_prompt[pair.prompt],
            "__index_level_0__": number,
        }
        if context.read_image is None:
            return row
        return row | {"jpg_0": context.read_image(a.sha256), "jpg_1": context.read_image(b.sha256)}


def _user(votes: Sequence[ExportVote], context: FormatContext) -> int:
    names = {context.annotator_name(vote.annotator_id) for vote in votes}
    return int(names.pop(), 16) if len(names) == 1 else _SEVERAL_USERS


_PREFERENCE = (
    Column("prompt", "string", "what both images were made of"),
    Column("chosen", "image", "the preferred image, a PNG file; its name is its sha256"),
    Column("rejected", "image", "the other one"),
)


class ChosenRejectedFormat:
    name = "chosen-rejected"
    description = "parquet of prompt, chosen, rejected, as trainers take it, with votes and agreement"
    suffix = ".parquet"
    default_rows: RowKind = "pairs"
    is_raw = False
    default_images = True
    holds_ties = False
    counts_prompts = False

    def columns(self, context: FormatContext) -> Sequence[Column]:  # noqa: ARG002 - the same with and without images
        return (
            *_PREFERENCE,
            Column("num_votes", "int64", "votes behind this row that say something"),
            Column("agreement", "float64", "share of them for the chosen image, or its probability where so decided"),
        )

    def row(self, pair: VotedPair, pair_votes: PairVotes, context: FormatContext) -> Row:
        consensus = pair_votes.consensus
        return _preference(pair, pair_votes, context)[0] | {
            "num_votes": consensus.num_votes,
            "agreement": consensus.agreement,
        }


class OpenImagePreferencesFormat:
    name = "open-image-preferences"
    description = "open-image-preferences-v1-binarized parquet: prompt, chosen, rejected, their models"
    suffix = ".parquet"
    default_rows: RowKind = "pairs"
    is_raw = False
    default_images = True
    holds_ties = False
    counts_prompts = False

    def columns(self, context: FormatContext) -> Sequence[Column]:  # noqa: ARG002 - the same with and without images
        return (
            Column("id", "int64", "the pair's number; the vote's, where a row is a vote"),
            *_PREFERENCE,
            Column("chosen_model", "string", "what made the chosen image: base model and adapter version"),
            Column("rejected_model", "string", "what made the other one"),
            Column("evolution", "string", "empty: prompts are not rewritten here"),
            Column("category", "string", "empty"),
            Column("sub_category", "string", "empty"),
        )

    def row(self, pair: VotedPair, pair_votes: PairVotes, context: FormatContext) -> Row:
        row, chosen, rejected = _preference(pair, pair_votes, context)
        return row | {
            "id": pair_votes.votes[0].id if context.rows == "votes" else pair.id,
            "chosen_model": context.model_with_version(pair, chosen),
            "rejected_model": context.model_with_version(pair, rejected),
            "evolution": "",
            "category": "",
            "sub_category": "",
        }


def _preference(
    pair: VotedPair, pair_votes: PairVotes, context: FormatContext
) -> tuple[dict[str, Any], ImageRef, ImageRef]:
    chosen, rejected = pair.image_a, pair.image_b
    if pair_votes.outcome is Outcome.B:
        chosen, rejected = rejected, chosen
    row = {"prompt": pair.prompt, "chosen": _cell(chosen, context), "rejected": _cell(rejected, context)}
    return row, chosen, rejected


def _cell(image: ImageRef, context: FormatContext) -> dict[str, bytes | str | None]:
    content = None if context.read_image is None else context.read_image(image.sha256)
    return {"bytes": content, "path": f"{image.sha256}.png"}


FORMATS: Sequence[Format] = (
    PickAPicFormat(),
    OpenImagePreferencesFormat(),
    ChosenRejectedFormat(),
    RawVotesFormat(
        "votes-jsonl", ".jsonl", "raw votes, a line of JSON each: choice, order shown, time, how images were made"
    ),
    RawVotesFormat("votes-csv", ".csv", "the same as a table that no spreadsheet takes for formulas"),
)


def get_format(name: str) -> Format:
    """Get an export format by name. Raises BadInputError that lists the formats."""
    for one in FORMATS:
        if one.name == name:
            return one
    descriptions = "\n".join(f"  {one.name}: {one.description}" for one in FORMATS)
    raise BadInputError(f"there is no export format {name!r}; there are\n{descriptions}")
