"""One batch of an import as a part of a transaction: prompts, images, pairs, annotators, votes, bookmark."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, update

from dmpo_app.domain.data_import import (
    ImportBatch,
    ImportCounts,
    ImportedImage,
    ImportedPair,
    ImportedVote,
    ImportState,
)
from dmpo_app.domain.image import ImageKind, PairSource
from dmpo_app.domain.lineage import BASE_VERSION, BaseModelRef
from dmpo_app.domain.prompt import PromptSource, fold
from dmpo_app.domain.vote import Choice, Outcome
from dmpo_app.errors import Conflict
from dmpo_app.store.db.column_types import insert_in_order
from dmpo_app.store.files import Files
from dmpo_app.store.imports.import_ledger import Ledger, Verdict, annotator_ids, chunks, count_of
from dmpo_app.store.schema import (
    AnnotatorRow,
    AssignmentRow,
    AssignmentState,
    ImageRow,
    ImportedPairRow,
    ImportedVoteRow,
    ImportLeftOutRow,
    ImportRow,
    PairRow,
    PromptRow,
    PromptTagRow,
    VoteRow,
)

HELD_OUT = "prompt is held out of training"
SAMPLER = "imported"
"""Stands where the sampler of an image made here does; the other columns of how it was made are empty."""
TAG = "imported"
"""Of prompts that an import brought. They are retired: no new pairs are made of them until somebody restores them."""

_COUNT_VOTES = (
    update(PairRow)
    .where(PairRow.id == bindparam("pair"))
    .values(num_votes=PairRow.num_votes + bindparam("more"), num_taken=PairRow.num_taken + bindparam("more"))
)
_OFFER = update(PairRow).where(PairRow.id == bindparam("pair")).values(is_offered=True)


@dataclass(frozen=True, slots=True)
class TakingIn:
    """What a batch is recorded with. `stored`: the names of its images' stored files, by the hashes of those that
    came."""

    files: Files
    base: BaseModelRef
    state: ImportState
    stored: Mapping[str, str]
    at: datetime


def take_in(connection: Connection, *, context: TakingIn, batch: ImportBatch) -> ImportCounts:
    """Record a batch whose images are stored; returns the counts of the whole import. See `Imports.take_in`."""
    state, base = context.state, context.base
    row = connection.execute(select(ImportRow.bookmark).where(ImportRow.id == state.id)).one()
    if row.bookmark != (None if state.bookmark is None else dict(state.bookmark)):
        raise Conflict("this data set is being imported by another process; wait for it to end")
    use = state.spec.use
    held_out = _held_out(connection, batch.pairs)
    usable = [pair for pair in batch.pairs if pair.prompt not in held_out]
    left_out = [*batch.left_out, *((pair.row, HELD_OUT) for pair in batch.pairs if pair.prompt in held_out)]
    ledger = Ledger()
    ledger.look_up(connection, base.id, usable)
    judged = [(pair, ledger.judge(pair, use)) for pair in usable]
    new = _insert_pairs(connection, context, [pair for pair, verdict in judged if verdict.is_new_pair])
    ids = {key: known.id for key, known in ledger.pairs.items()} | new
    _insert_votes(connection, context, [(ids[pair.key], pair, verdict) for pair, verdict in judged])
    if use.offers_pairs and (old := [pair for pair, verdict in judged if not verdict.is_new_pair]):
        connection.execute(_OFFER, [{"pair": ids[pair.key]} for pair in old])
    _insert_left_out(connection, state, left_out)
    reasons = Counter(reason for _, reason in left_out)
    counts = state.counts + count_of(judged, use) + ImportCounts(rows=batch.num_rows, left_out=dict(reasons))
    values = {"bookmark": dict(batch.bookmark), "counts": asdict(counts), "is_complete": batch.is_last}
    connection.execute(update(ImportRow).where(ImportRow.id == state.id).values(changed_at=context.at, **values))
    return counts


def _held_out(connection: Connection, pairs: Sequence[ImportedPair]) -> set[str]:
    """Prompts of these pairs that are held out, or have a twin that is."""
    folded = {prompt: fold(prompt) for prompt in {pair.prompt for pair in pairs}}
    found: set[str] = set()
    for chunk in chunks(set(folded.values())):
        query = select(PromptRow.folded).where(PromptRow.folded.in_(chunk), PromptRow.held_out)
        found.update(connection.execute(query).scalars())
    return {prompt for prompt, value in folded.items() if value in found}


def _prompt_ids(connection: Connection, texts: Sequence[str], at: datetime) -> dict[str, int]:
    wanted = list(dict.fromkeys(texts))
    found = _find_prompts(connection, wanted)
    new = [text for text in wanted if text not in found]
    if new:
        values = {"held_out": False, "source": PromptSource.IMPORT, "created_at": at, "retired_at": at}
        connection.execute(insert(PromptRow), [{"text": text, "folded": fold(text), **values} for text in new])
        added = _find_prompts(connection, new)
        connection.execute(insert(PromptTagRow), [{"prompt_id": added[text], "tag": TAG} for text in new])
        found |= added
    return found


def _find_prompts(connection: Connection, texts: Sequence[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for chunk in chunks(texts):
        query = select(PromptRow.text, PromptRow.id).where(PromptRow.text.in_(chunk))
        found |= {row.text: row.id for row in connection.execute(query)}
    return found


def _insert_pairs(connection: Connection, context: TakingIn, pairs: Sequence[ImportedPair]) -> dict[str, int]:
    """The ids of the pairs by their keys."""
    if not pairs:
        return {}
    prompts = _prompt_ids(connection, [pair.prompt for pair in pairs], context.at)
    images = [_image_row(context, pair.prompt, image) for pair in pairs for image in (pair.image_a, pair.image_b)]
    ids = insert_in_order(connection, ImageRow.id, images)
    rows = [
        {
            "base_id": context.base.id,
            "prompt_id": prompts[pair.prompt],
            "image_a_id": ids[2 * number],
            "image_b_id": ids[2 * number + 1],
            "source": PairSource.IMPORT,
            "adapter_version": BASE_VERSION,
            "created_at": context.at,
            "is_offered": context.state.spec.use.offers_pairs,
            "is_encoded": False,
        }
        for number, pair in enumerate(pairs)
    ]
    pair_ids = insert_in_order(connection, PairRow.id, rows)
    new = {pair.key: pair_id for pair, pair_id in zip(pairs, pair_ids, strict=True)}
    origins = [
        {
            "pair_id": new[pair.key],
            "base_id": context.base.id,
            "import_id": context.state.id,
            "source_row": pair.row,
            "content_key": pair.key,
            "sha256_a": pair.image_a.sha256,
            "origin": {"a": dict(pair.image_a.origin), "b": dict(pair.image_b.origin)},
        }
        for pair in pairs
    ]
    connection.execute(insert(ImportedPairRow), origins)
    return new


def _image_row(context: TakingIn, prompt: str, image: ImportedImage) -> dict[str, Any]:
    if image.png is None:
        raise Conflict("a pair that was known is gone; start the import again")
    sha256 = context.stored[image.sha256]
    if not context.files.has_image(sha256):
        context.files.put_image(image.png)  # a purge has just deleted a render that is the same
    return {
        "base_id": context.base.id,
        "kind": ImageKind.PAIR,
        "sha256": sha256,
        "width": image.width,
        "height": image.height,
        "prompt": prompt,
        "seed": 0,
        "sampler": SAMPLER,
        "num_steps": 0,
        "guidance": 0.0,
        "adapter_version": BASE_VERSION,
        "strength": 0.0,
        "batch_size": 0,
        "num_threads": 0,
        "device": "",
        "dtype": "",
        "created_at": context.at,
    }


def _insert_votes(
    connection: Connection, context: TakingIn, judged: Sequence[tuple[int, ImportedPair, Verdict]]
) -> None:
    votes = [
        (pair_id, pair.row, pair.vote.seen_from(swapped=verdict.swapped))
        for pair_id, pair, verdict in judged
        if verdict.is_new_vote and pair.vote is not None
    ]
    if not votes:
        return
    annotators = _annotators(connection, [vote for _, _, vote in votes], context.at)
    showings = [_showing(context, pair_id, annotators[vote.voter], vote) for pair_id, _, vote in votes]
    showing_ids = insert_in_order(connection, AssignmentRow.id, showings)
    rows = [
        {
            "assignment_id": showing_id,
            "base_id": context.base.id,
            "annotator_id": annotators[vote.voter],
            "pair_id": pair_id,
            "choice": _choice(vote),
            "outcome": vote.outcome,
            "elapsed_ms": vote.elapsed_ms,
            "created_at": context.at,
            "question": vote.question,
            "strength": vote.strength,
            "comment": vote.comment,
        }
        for showing_id, (pair_id, _, vote) in zip(showing_ids, votes, strict=True)
    ]
    vote_ids = insert_in_order(connection, VoteRow.id, rows)
    origins = [
        {"vote_id": vote_id, "import_id": context.state.id, "source_row": row, "given_at": vote.given_at}
        for vote_id, (_, row, vote) in zip(vote_ids, votes, strict=True)
    ]
    connection.execute(insert(ImportedVoteRow), origins)
    per_pair = Counter(pair_id for pair_id, _, _ in votes)
    connection.execute(_COUNT_VOTES, [{"pair": pair_id, "more": count} for pair_id, count in per_pair.items()])


def _showing(context: TakingIn, pair_id: int, annotator_id: int, vote: ImportedVote) -> dict[str, Any]:
    return {
        "public_id": secrets.token_urlsafe(18),
        "base_id": context.base.id,
        "annotator_id": annotator_id,
        "pair_id": pair_id,
        "question": vote.question,
        "a_on_left": vote.a_on_left,
        "state": AssignmentState.ANSWERED,
        "created_at": context.at,
        "opened_at": context.at,
        "expires_at": context.at,
    }


def _choice(vote: ImportedVote) -> Choice:
    if vote.outcome in (Outcome.A, Outcome.B):
        return Choice.LEFT if (vote.outcome is Outcome.A) == vote.a_on_left else Choice.RIGHT
    return Choice(vote.outcome.value)


def _annotators(connection: Connection, votes: Sequence[ImportedVote], at: datetime) -> Mapping[str, int]:
    found = {vote.voter: vote.annotator_id for vote in votes if vote.annotator_id is not None}
    handles = {vote.identity: vote.handle for vote in votes if vote.annotator_id is None}
    known = annotator_ids(connection, handles)
    new = [
        {"public_id": secrets.token_urlsafe(16), "handle": handle, "created_at": at, "identity": identity}
        for identity, handle in handles.items()
        if identity not in known
    ]
    if new:
        connection.execute(insert(AnnotatorRow), new)
        known = annotator_ids(connection, handles)
    return found | known


def _insert_left_out(connection: Connection, state: ImportState, left_out: Sequence[tuple[str, str]]) -> None:
    if left_out:
        rows = [{"import_id": state.id, "source_row": row, "reason": reason} for row, reason in left_out]
        connection.execute(insert(ImportLeftOutRow), rows)
